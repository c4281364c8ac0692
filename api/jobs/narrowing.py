"""Bounds of every output over a job's one region, as they tighten, for whoever watches: no proof, and no verdict.

Interval bounds, CROWN's and alpha-CROWN's, each only once it fits into SHARE of the time that the job has taken so far,
by what the one before it took.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Edge, Relaxed, by_rows, relax
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.bounds.slopes import ITERATIONS, Effort, alpha_crown, optimised_lower
from provenn.verifier.errors import InvalidBounds
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region
from provenn.verifier.spec import Case

SHARE = 0.08
"""Of the job's time so far, for all of this together."""
FIRST = 0.002
"""Seconds that the first bounds are expected to take: a job that is over sooner than FIRST / SHARE has none."""
OUTPUTS, VALUES, PARAMETERS = 100, 1 << 16, 1 << 21
"""A network with more outputs, values of nodes or parameters is left alone: nobody could look at all of them, or the
bounds would cost too much."""
Over = Callable[[], bool]
Ends = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Stage:
    """A way to bound, and how many times as long as the stage before it it is expected to take."""

    method: str
    bound: Callable[[Graph, Region, Over], Ends]
    dearer: float


@dataclass
class Narrowing:
    """found: one entry a stage that has been made: its method, seconds since the job began, lower and upper.

    began: a time.monotonic value.
    """

    graph: Graph
    case: Case
    began: float
    found: list[dict[str, Any]] = field(default_factory=list)
    _spent: float = 0.0
    _last: float = FIRST

    @classmethod
    def of(cls, graph: Graph, cases: Sequence[Case], began: float) -> Narrowing | None:
        """None unless there is one case, of a small network."""
        values = sum(math.prod(node.shape) for node in graph.nodes)
        large = math.prod(graph.output_shape) > OUTPUTS or values > VALUES or graph.parameter_count() > PARAMETERS
        return None if large or len(cases) != 1 else cls(graph, cases[0], began)

    def go_on(self) -> bool:
        """Makes the next stage if its time has come; says whether it did. One that cannot be made is the last."""
        if len(self.found) == len(STAGES):
            return False
        stage, start = STAGES[len(self.found)], time.monotonic()
        left = SHARE * (start - self.began) - self._spent
        if left < stage.dearer * self._last:
            return False
        try:
            lower, upper = stage.bound(*self._single, lambda: time.monotonic() > start + left)
        except InvalidBounds:
            self._last = math.inf
            return False
        end = time.monotonic()
        self._last, self._spent = end - start, self._spent + end - start
        self._note(stage.method, end, lower, upper)
        return True

    @cached_property
    def _single(self) -> tuple[Graph, Region]:
        """In single precision, on the CPU."""
        region = Region.of([self.case.inputs], self.graph.input_shape, "cpu", torch.float32)
        return self.graph.to("cpu", torch.float32), region

    def _note(self, method: str, now: float, lower: Tensor, upper: Tensor) -> None:
        """Both this stage's bounds and those before it hold."""
        ends = [lower.flatten().tolist(), upper.flatten().tolist()]
        if self.found:
            before = self.found[-1]
            ends = [list(map(max, ends[0], before["lower"])), list(map(min, ends[1], before["upper"]))]
        self.found.append({"method": method, "seconds": now - self.began, "lower": ends[0], "upper": ends[1]})


def _ibp(graph: Graph, region: Region, over: Over) -> Ends:
    with torch.no_grad():
        output = propagate(graph, region.box)[-1]
    return output.lower, output.upper


def _crown(graph: Graph, region: Region, over: Over) -> Ends:
    """Once the time is over, what is not tightened yet stays as intervals have it."""

    def tighten(relaxed: Relaxed, edge: Edge, value: Tensor) -> None:
        if not over():
            by_rows(relaxed, edge, value, schedule.MEMORY)

    with torch.no_grad():
        return _ends(relax(graph, region, tighten).output_lower(_both_signs(graph)))


def _alpha_crown(graph: Graph, region: Region, over: Over) -> Ends:
    relaxed = alpha_crown(graph, region, Effort(ITERATIONS // 2, over=over))
    return _ends(optimised_lower(relaxed, _both_signs(graph), Effort(over=over)).lower)


def _both_signs(graph: Graph) -> Tensor:
    """Rows y_i, then rows -y_i: [2 outputs, 1, outputs]."""
    rows = torch.eye(math.prod(graph.output_shape))
    return torch.cat([rows, -rows]).unsqueeze(1)


def _ends(lower: Tensor) -> Ends:
    """From lower bounds of both signs [2 outputs, 1]."""
    below, above = lower.squeeze(1).chunk(2)
    return below, -above


STAGES = (
    Stage("ibp", _ibp, 1.0),
    Stage("crown", _crown, 16.0),
    Stage("alpha-crown", _alpha_crown, 3.0 * ITERATIONS),
)
