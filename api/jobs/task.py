"""What every child does: binds itself, runs one task, and says one answer or one problem."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from math import ceil
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from provenn.api import problems
from provenn.api.jobs.child import Reporter
from provenn.verifier.errors import ProvennError, ResourceLimit

RESERVED = 2 << 30
"""Bytes of address space that libraries reserve for threads' stacks and heaps without using them."""


@dataclass(frozen=True)
class Limits:
    """threads: of this process; memory_mb: MiB of private memory it may write beyond a warm process, or None.

    gpu_share: of the memory of the one GPU that this process sees; None: it sees none, or is not limited.
    """

    threads: int
    memory_mb: int | None
    gpu_share: float | None = None

    def apply(self) -> None:
        """Binds this process; cannot be undone."""
        import torch

        torch.set_num_threads(self.threads)
        if self.gpu_share is not None and torch.cuda.is_available():
            torch.cuda.set_per_process_memory_fraction(self.gpu_share)
        if self.memory_mb is not None:
            fields = Path("/proc/self/statm").read_text().split()
            size, written = (int(fields[k]) * resource.getpagesize() + (self.memory_mb << 20) for k in (0, 5))
            resource.setrlimit(resource.RLIMIT_DATA, (written, written))
            resource.setrlimit(resource.RLIMIT_AS, (size + RESERVED, size + RESERVED))

    def begin(self, seconds: float) -> None:
        """From now on this process may compute for so long, on each of its threads and one more; SIGXCPU ends it."""
        used = resource.getrusage(resource.RUSAGE_SELF)
        allowed = used.ru_utime + used.ru_stime + seconds * (self.threads + 1)
        resource.setrlimit(resource.RLIMIT_CPU, (ceil(allowed) + 1, resource.getrlimit(resource.RLIMIT_CPU)[1]))


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


@dataclass(frozen=True)
class Order:
    """A task, and the seconds it may take."""

    task: Task
    seconds: float


def main(connection: Connection, limits: Limits) -> None:
    """The child's whole life: of every order one answer or one problem. Anything else ends it with exit code 1."""
    reporter = Reporter(connection)
    limits.apply()
    for order in reporter.given():
        limits.begin(order.seconds)
        reporter.send(_performed(order.task, reporter, limits))


def _performed(task: Task, reporter: Reporter, limits: Limits) -> dict[str, Any]:
    try:
        return {"answer": task.run(reporter)}
    except ProvennError as error:
        return {"problem": problems.document(problems.of(error))}
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        limit = ResourceLimit("memory", f"{limits.memory_mb} MiB a worker")
        return {"problem": problems.document(problems.of(limit))}
