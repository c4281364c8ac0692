"""CROWN-IBP as a backend."""

from __future__ import annotations

from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.backward import crown_ibp
from provenn.verifier.graph import Graph


class CrownIbp(Backend):
    """Linear bounds propagated backward once, over interval bounds."""

    name = "crown-ibp"
    summary = "CROWN-IBP (Zhang et al. 2020): one backward pass over interval bounds"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "crown"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the linear lower bound of every clause's best row is positive."""
        return bound_cases(problem, budget, progress, self.name, _margins)


def _margins(graph: Graph, packed: Packed) -> Tensor:
    return packed.margins(crown_ibp(graph, packed.region).output_lower(-packed.matrix))
