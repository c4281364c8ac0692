"""Wall time, CPU time and peak memory of one call, each measurement in a process of its own."""

from __future__ import annotations

import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

LONGEST = 60.0
"""Seconds that the counted runs of one measurement may take together: slow calls are run less often."""

MIB = 1 << 20


@dataclass(frozen=True, eq=False)
class Cost:
    """Medians of `runs` calls after a warm-up, in seconds; memory in MiB; values: what the call returned.

    memory: how far the process's resident set grew at most, over all calls, beyond what it was before the first; on
    CUDA the same of the memory that torch holds on the device.
    """

    wall: float
    cpu: float
    memory: float
    runs: int
    values: np.ndarray


def in_child(function: Callable[..., Any], *arguments: Any) -> Any:
    """What `function` returns, called in a fork of this process, which has imported everything and computed nothing.

    Raises: RuntimeError if the child died.
    """
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, arguments))
    process.start()
    sender.close()
    try:
        found = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"{function.__name__}{arguments} ended with exit code {process.exitcode}") from None
    process.join()
    return found


def _answer(sender: Connection, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    sender.send(function(*arguments))


def cost(call: Callable[[], Tensor], runs: int, device: str) -> Cost:
    """Measures `call`; whatever it needs has been loaded."""
    memory = Memory(device)
    began = time.perf_counter()
    values = _finished(call, device)
    first = time.perf_counter() - began
    counted = max(1, min(runs, int(LONGEST / max(first, 1e-9))))
    walls, cpus = [], []
    for _ in range(counted):
        wall, cpu = time.perf_counter(), time.process_time()
        values = _finished(call, device)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return Cost(
        statistics.median(walls), statistics.median(cpus), memory.growth(), counted, values.detach().cpu().numpy()
    )


def _finished(call: Callable[[], Tensor], device: str) -> Tensor:
    values = call()
    if device != "cpu":
        torch.cuda.synchronize(device)
    return values


class Memory:
    """Peak memory from now on, in MiB beyond what is held now."""

    def __init__(self, device: str) -> None:
        self.device = device
        if device != "cpu":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self.start = torch.cuda.memory_allocated(device) / MIB
            return
        forget = Path("/proc/self/clear_refs")
        if forget.exists():
            forget.write_text("5")
        self.start = _resident("VmRSS")

    def growth(self) -> float:
        """MiB."""
        if self.device != "cpu":
            return torch.cuda.max_memory_allocated(self.device) / MIB - self.start
        return _resident("VmHWM") - self.start


def _resident(name: str) -> float:
    """MiB by the kernel's account; where it gives none, the largest resident set so far."""
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(fields[name].split()[0]) / 1024
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest / (MIB if sys.platform == "darwin" else 1024)
