"""The time that a run may take, from the start of the process on, and an end to it that nothing can hold up."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path


def _began() -> float:
    """When this process began, as a time.monotonic value: from the system where it tells, else from the time spent."""
    age = time.process_time()
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        told = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        told = age
    return time.monotonic() - (told if age <= told < age + 60 else age)


BEGAN = _began()

MARGIN, LAST = 0.3, 0.2
"""Seconds before the time is up when work should end, and when it is ended."""


@dataclass(frozen=True)
class Deadline:
    """Seconds of wall clock from `start` (a time.monotonic value) on; None: no limit."""

    seconds: float | None
    start: float

    @property
    def left(self) -> float:
        """Seconds left, possibly negative."""
        return float("inf") if self.seconds is None else self.start + self.seconds - MARGIN - time.monotonic()


def supervised(deadline: Deadline) -> int | None:
    """Splits the process in two: None in the one that works; in the other the exit code, once work or time has ended.

    The one that waits prints what the worker has printed, as soon as that has ended, or else `timed-out`: nothing that
    the worker does, be it one long call that yields to nobody, holds up the end. If it did not end by itself, killed
    for its memory for instance, that is `unknown`. Without a limit, or where processes cannot be split, there is only
    the worker.
    """
    if deadline.seconds is None or not hasattr(os, "fork"):
        return None
    source, sink = os.pipe()
    worker = os.fork()
    if worker == 0:
        os.close(source)
        os.dup2(sink, 1)
        os.close(sink)
        return None
    os.close(sink)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(_stopped(worker)))
    parts: list[bytes] = []
    while select.select([source], [], [], max(deadline.left + MARGIN - LAST, 0.0))[0]:
        parts.append(os.read(source, 1 << 16))
        if not parts[-1]:
            _, status = os.waitpid(worker, 0)
            code = os.waitstatus_to_exitcode(status)
            if code < 0:
                sys.stderr.write(f"error: the process that worked on it was ended by signal {-code}\n")
            sys.stdout.write("unknown\n" if code < 0 else b"".join(parts).decode())
            return max(code, 0)
    sys.stdout.write("timed-out\n")
    sys.stdout.flush()
    os.kill(worker, signal.SIGKILL)
    return 0


def _stopped(worker: int) -> int:
    """Ends the worker; the exit code of what is terminated."""
    os.kill(worker, signal.SIGKILL)
    return 128 + signal.SIGTERM
