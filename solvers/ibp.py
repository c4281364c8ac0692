"""Interval bound propagation as a backend."""

from __future__ import annotations

from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.graph import Graph


class Ibp(Backend):
    """The loosest and cheapest bound: two forward passes a batch."""

    name = "ibp"
    summary = "interval bound propagation (Gowal et al. 2018): two forward passes, loosest"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "ibp"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the interval of every clause's best row is positive."""
        return bound_cases(problem, budget, progress, self.name, _margins)


def _margins(graph: Graph, packed: Packed) -> Tensor:
    return packed.margins(output_lower(graph, propagate(graph, packed.region.box), -packed.matrix))
