"""Problem in, Result out: what every backend answers."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, Protocol, Self

import numpy as np
import torch

from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case


class Verdict(StrEnum):
    """What is known of one case, or of a whole specification."""

    VERIFIED = "verified"
    FALSIFIED = "falsified"
    UNKNOWN = "unknown"
    TIMEOUT = "timeout"


class Executor(Protocol):
    """Runs the user's original file, independently of our Graph (onnxruntime, bound by `api`)."""

    name: str

    def run(self, inputs: np.ndarray) -> np.ndarray:
        """float32 inputs [batch, *input_shape] -> float32 outputs [batch, *output_shape]."""
        ...


@dataclass(frozen=True, eq=False)
class Problem:
    """A network and cases that are decided independently of each other, bounded in one batch where possible.

    graph: float64 parameters on the CPU; backends move it to `device` and `dtype`. state: a file from which a search
    that can be taken up again goes on, and into which it puts itself, now and then and where it ends undecided;
    several open cases have one each, beside it. part: the file is a part of a search, which is to be joined: it is
    kept however this ends.
    """

    graph: Graph
    cases: Sequence[Case]
    executor: Executor | None = None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    seed: int = 0
    state: Path | None = None
    part: bool = False


@dataclass(frozen=True)
class Budget:
    """Wall-clock seconds from `start` (a time.monotonic value) on."""

    seconds: float
    start: float = field(default_factory=time.monotonic)

    @property
    def left(self) -> float:
        """Seconds left, possibly negative."""
        return self.start + self.seconds - time.monotonic()


@dataclass(frozen=True, eq=False)
class Outcome:
    """What is known of one case.

    margin: largest known lower bound of min over clauses of max over rows of (d - C y); > 0 means verified;
    -inf if none was computed. witness: float32 [*input_shape], confirmed by the executor; output: its answer. reason:
    why nothing was computed, where that needs saying. proof: what the backend's certificates are made from.
    """

    verdict: Verdict
    margin: float
    method: str
    seconds: float = 0.0
    witness: np.ndarray | None = None
    output: np.ndarray | None = None
    reason: str | None = None
    proof: object | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """One outcome a case, and numbers about the run (seconds by phase, counts)."""

    outcomes: tuple[Outcome, ...]
    stats: dict[str, float] = field(default_factory=dict)


class Phase(str):
    """What goes on, in words, with the best bound and the subdomains visited so far where there are any.

    share: how much of the case at work is decided, from 0 to 1; divisible: the search has a file and goes on as it has
    begun, so that others may go on with parts of it (`branch_and_bound.parts`) if it is interrupted now.
    """

    bound: float | None
    domains: int | None
    share: float
    divisible: bool

    def __new__(
        cls,
        words: str,
        bound: float | None = None,
        domains: int | None = None,
        share: float = 0.0,
        divisible: bool = False,
    ) -> Self:
        """The words, which are the whole string."""
        phase = super().__new__(cls, words)
        phase.bound, phase.domains, phase.share, phase.divisible = bound, domains, share, divisible
        return phase


Progress = Callable[[int, int, str], None]
"""progress(done, total, phase): called at least after every batch; may raise to interrupt."""


def silent(done: int, total: int, phase: str) -> None:
    """Reports nothing."""


class Backend(ABC):
    """One way of deciding problems. Subclasses are stateless; capabilities are class attributes."""

    name: ClassVar[str]
    summary: ClassVar[str]
    verdicts: ClassVar[frozenset[Verdict]]
    norms: ClassVar[frozenset[str]] = frozenset({"inf", "2", "1"})
    gpu: ClassVar[bool] = True
    requires: ClassVar[str | None] = None
    """A package that must be installed, or None."""
    certificate: ClassVar[str | None] = None
    """The method of the certificates that prove its verdicts, as verifier.certificate knows it; None for none."""

    @classmethod
    def status(cls) -> str:
        """Says "available", or why not and what to do."""
        from importlib.util import find_spec

        if cls.requires is None or find_spec(cls.requires) is not None:
            return "available"
        return f"not installed: pip install {cls.requires}"

    @abstractmethod
    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """One outcome a case, within the budget: cases not reached in time have verdict `timeout`."""
