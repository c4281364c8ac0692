"""CROWN as a backend."""

from __future__ import annotations

from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.backward import crown
from provenn.verifier.graph import Graph


class Crown(Backend):
    """Linear bounds propagated backward, with backward intermediate bounds."""

    name = "crown"
    summary = "CROWN (Zhang et al. 2018): backward linear bounds, intermediate bounds included"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "crown"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the linear lower bound of every clause's best row is positive."""
        return bound_cases(problem, budget, progress, self.name, _margins)


def _margins(graph: Graph, packed: Packed) -> Tensor:
    return packed.margins(crown(graph, packed.region).output_lower(-packed.matrix))
