"""alpha-CROWN as a backend."""

from __future__ import annotations

from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.slopes import ITERATIONS, Effort, alpha_crown, optimised_lower
from provenn.verifier.graph import Graph


class AlphaCrown(Backend):
    """CROWN with the slopes of its relaxations optimised, for intermediate bounds and for the specification's rows."""

    name = "alpha-crown"
    summary = "CROWN with optimised slopes (Xu et al. 2021), intermediate bounds included"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "alpha-crown"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the lower bound of every clause's best row is positive; rows above 0 are not optimised on."""

        def over() -> bool:
            return budget.left <= 0

        def margins(graph: Graph, packed: Packed) -> Tensor:
            relaxed = alpha_crown(graph, packed.region, Effort(ITERATIONS // 2, over=over))
            found = optimised_lower(relaxed, -packed.matrix, Effort(over=over), enough=-packed.bound)
            return packed.margins(found.lower)

        return bound_cases(problem, budget, progress, self.name, margins)
