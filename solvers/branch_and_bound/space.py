"""What the search asks of a way of splitting."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.solvers.branch_and_bound.queue import Domains
from provenn.solvers.branch_and_bound.record import Record
from provenn.verifier.interval import Interval

Over = Callable[[], bool]
"""Whether the time has ended."""


@dataclass(frozen=True, eq=False)
class Expanded:
    """What became of some parts: the parts of them that are still open.

    points, and the box of each [n, *input]: where an attack may begin, and stay; closed: the share of the region, 1 in
    all, that was decided; stuck: how many parts can be split no further.
    """

    domains: Domains | None
    points: Tensor
    box: Interval
    closed: float = 0.0
    stuck: int = 0


class Space(Protocol):
    """A way of splitting one case. Deterministic; what it proves goes into `record`."""

    record: Record
    batch: int
    """How many parts to take at once."""
    least: float
    """The smallest margin that was proved anywhere; infinity before."""

    def start(self, over: Over) -> Expanded:
        """The region itself."""
        ...

    def expand(self, domains: Domains, over: Over) -> Expanded:
        """Those parts, split or decided. Parts that the end of the time interrupts come back open."""
        ...

    def decided(self, closed: float) -> bool:
        """Whether every part is proved, as the record knows; `closed`: the share that was, in case it was not kept."""
        ...

    def proof(self) -> CaseProof:
        """What was recorded."""
        ...
