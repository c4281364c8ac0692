"""The two engines that the benchmark of bounds compares, behind one call."""

from __future__ import annotations

from collections.abc import Callable

import torch
from bounds_cases import Question
from torch import Tensor

from provenn.solvers.auto_lirpa import Slopes, bounded_module, boxes, quiet
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.bounds.slopes import ITERATIONS, alpha_crown, optimised_lower

Bound = Callable[[], Tensor]
"""A lower bound of every row: [spec, batch]. Called many times; what is done once is done before."""

THEIR_METHODS = {"ibp": "IBP", "crown": "CROWN", "alpha-crown": "CROWN-Optimized"}
METHODS = tuple(THEIR_METHODS)
TOOLS = ("provenn", "auto_LiRPA")


def prepared(tool: str, question: Question, method: str) -> Bound:
    """`tool` ready to answer the question by `method`."""
    return ours(question, method) if tool == TOOLS[0] else theirs(question, method)


def ours(question: Question, method: str) -> Bound:
    """Provenn's engine with its default effort: ITERATIONS passes for the rows asked for, half of it before them."""
    graph, region, matrix = question.graph, question.region, question.matrix
    ways: dict[str, Bound] = {
        "ibp": lambda: output_lower(graph, propagate(graph, region.box), matrix),
        "crown": lambda: crown(graph, region).output_lower(matrix),
        "alpha-crown": lambda: optimised_lower(alpha_crown(graph, region), matrix).lower,
    }

    def bound() -> Tensor:
        with torch.no_grad():
            return ways[method]()

    return bound


def theirs(question: Question, method: str) -> Bound:
    """auto_LiRPA with its default options and as many iterations, its module built before."""
    inputs = boxes(question.region)
    rows = question.matrix.transpose(0, 1).contiguous()
    optimised = method == "alpha-crown"
    with quiet(), torch.no_grad():
        module = bounded_module(question.graph, inputs, Slopes(ITERATIONS), {})

    def bound() -> Tensor:
        with quiet(), torch.set_grad_enabled(optimised):
            found = module.compute_bounds(x=(inputs,), C=rows, method=THEIR_METHODS[method], bound_upper=False)
        lower: Tensor = found[0].detach().T
        return lower

    return bound
