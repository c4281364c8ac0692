"""What every child does: binds itself, runs one task, and says one answer or one problem."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import torch

from provenn.api import problems
from provenn.api.jobs.child import Reporter
from provenn.verifier.errors import ProvennError, ResourceLimit


@dataclass(frozen=True)
class Limits:
    """threads: of this process; memory_mb: MiB of private memory it may write beyond a warm process, or None."""

    threads: int
    memory_mb: int | None

    def apply(self) -> None:
        """Binds this process; cannot be undone."""
        torch.set_num_threads(self.threads)
        if self.memory_mb is not None:
            pages = int(Path("/proc/self/statm").read_text().split()[5])
            allowed = pages * resource.getpagesize() + (self.memory_mb << 20)
            resource.setrlimit(resource.RLIMIT_DATA, (allowed, allowed))


class Task(Protocol):
    """Something to be done in a child, with plain fields that travel by pickle."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The answer, JSON. May raise ProvennError."""
        ...


@dataclass(frozen=True)
class Nothing:
    """Does nothing: the first of these waits until the forkserver is warm."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Empty."""
        return {}


def main(connection: Connection, limits: Limits, task: Task) -> None:
    """The child's whole life: one task, one answer or one problem. Anything else ends it with exit code 1."""
    reporter = Reporter(connection)
    limits.apply()
    try:
        reporter.send({"answer": task.run(reporter)})
    except ProvennError as error:
        reporter.send({"problem": problems.document(problems.of(error))})
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        limit = ResourceLimit("memory", f"{limits.memory_mb} MiB a worker")
        reporter.send({"problem": problems.document(problems.of(limit))})
