"""The server's side of short tasks: an inspection in a sandboxed child, or a question that a child can answer."""

from __future__ import annotations

import logging
import threading
from math import ceil
from typing import Any

from provenn.api import problems
from provenn.api.jobs.attempt import TIME, alarm, ending
from provenn.api.jobs.child import Child
from provenn.api.jobs.inspection import Inspection, confined
from provenn.api.jobs.task import Limits, Order, Task, main
from provenn.api.settings import Settings
from provenn.models.sandbox import Confinement, demanded
from provenn.verifier.errors import ProvennError, ResourceLimit

AT_ONCE = 2
"""Short tasks that are done at the same time; others wait."""
CANONICAL_BYTES = 1 << 31
"""Of a canonical file: protobuf holds no more."""
log = logging.getLogger("provenn.api")


class Inspector:
    """Has strangers' files read, each in a sandbox of its own; and asks what a child knows."""

    def __init__(self, settings: Settings) -> None:
        """Raises: SandboxUnavailable if the settings demand a layer that does not exist."""
        memory = min(settings.inspect_memory_mb, settings.memory_limit_mb or settings.inspect_memory_mb)
        required = demanded(settings.require_sandbox)
        self._seconds = settings.inspect_seconds
        self._limits = Limits(1, memory)
        self._confinement = Confinement(memory, ceil(self._seconds), CANONICAL_BYTES, required)
        self._free = threading.BoundedSemaphore(AT_ONCE)

    def inspect(self, task: Inspection) -> dict[str, Any]:
        """The task's answer, of whatever form: the child that gives it may be the file's.

        Raises: the child's problem; the task's `refusal` if the child died of it; ResourceLimit if it took too long.
        """
        with self._free:
            child = Child(confined, self._confinement, task)
            with alarm(child, self._seconds):
                said = next(child.messages(), {})
            code = child.close()
        if "trace" in said:
            log.warning("the reader failed: %s", _printable(str(said["trace"])))
        try:
            if "answer" in said:
                return dict(said["answer"])
            if "problem" in said and said["problem"]["status"] in range(400, 600):
                raise problems.restored(said["problem"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise task.refusal("the reader gave no sound answer about it") from error
        raise self._unread(task, child.why, code)

    def ask(self, task: Task) -> dict[str, Any]:
        """The answer of a task that reads no stranger's file.   Raises: the child's problem, or that none answers."""
        with self._free:
            child = Child(main, self._limits)
            child.give(Order(task, self._seconds))
            with alarm(child, self._seconds):
                said = next(child.messages(), {})
            child.kill("it has answered")
            code = child.close()
        if "problem" in said:
            raise problems.restored(said["problem"])
        if "answer" not in said:
            raise problems.problem(problems.UNAVAILABLE, f"no worker process answers ({ending(code)})")
        return dict(said["answer"])

    def _unread(self, task: Inspection, why: str | None, code: int) -> ProvennError:
        if why == TIME:
            return ResourceLimit("time to read the file", f"{self._seconds:g} s")
        limit = f"its memory limit is {self._confinement.memory_mb} MiB"
        return task.refusal(f"the reader could not take it ({ending(code)}; {limit})")


def _printable(text: str) -> str:
    """What a terminal might obey, ends of lines too, is left out."""
    return "".join(c if c.isprintable() else " | " for c in text)
