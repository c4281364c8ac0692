"""Forward mode as a backend, alone and with a backward pass at the end."""

from __future__ import annotations

from torch import Tensor

from provenn.solvers.base import Backend, Budget, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import bound_cases
from provenn.solvers.packing import Packed
from provenn.verifier.bounds.forward import forward_backward, forward_lower
from provenn.verifier.graph import Graph


class Forward(Backend):
    """Linear bounds propagated forward: a pass for every coordinate of the input, however many neurons there are."""

    name = "forward"
    summary = "forward linear bounds (Xu et al. 2020): for few inputs"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "crown"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the linear lower bound of every clause's best row is positive."""
        return bound_cases(problem, budget, progress, self.name, _forward)


class ForwardBackward(Backend):
    """Forward linear bounds of every neuron, backward ones of the specification's rows."""

    name = "forward-backward"
    summary = "forward linear bounds, then one backward pass over them (Xu et al. 2020): for few inputs"
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    certificate = "crown"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where the linear lower bound of every clause's best row is positive."""
        return bound_cases(problem, budget, progress, self.name, _forward_backward)


def _forward(graph: Graph, packed: Packed) -> Tensor:
    return packed.margins(forward_lower(graph, packed.region, -packed.matrix))


def _forward_backward(graph: Graph, packed: Packed) -> Tensor:
    return packed.margins(forward_backward(graph, packed.region).output_lower(-packed.matrix))
