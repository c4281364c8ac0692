"""The worst cross entropy over boxes, bounded from above, and differentiable in the graph's parameters.

With margins m_j = y_label - y_j the cross entropy is log(1 + sum_j exp(-m_j)), which falls with every margin: lower
bounds of the margins give an upper bound of it. They are bounded as linear functions of the last nonlinear layer: the
affine layers behind it are merged into them (elision), never bounded on their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from provenn.verifier.bounds import backward
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.region import Region
from provenn.verifier.training.boxes import require_share


@dataclass(frozen=True, eq=False)
class Bounded:
    """margins: lower bounds of y_label - y_j over the box of every input, for the other classes j in order.

    bounds: of every node by IBP, in node order, for regularisers.
    """

    margins: Float[Tensor, "batch others"]
    bounds: Sequence[Interval]

    @property
    def loss(self) -> Float[Tensor, ""]:
        """An upper bound of the cross entropy at the worst points of the boxes, averaged over the batch."""
        return functional.softplus(torch.logsumexp(-self.margins, 1)).mean()

    @property
    def certified(self) -> Tensor:
        """Which inputs have no margin at or below zero: [batch] of bool, up to rounding."""
        return (self.margins > 0).all(1)


def ibp(graph: Graph, box: Interval, labels: Int[Tensor, "batch"]) -> Bounded:
    """By interval bounds.   Raises: InvalidBounds, Unbounded.   Source: Gowal et al. 2018."""
    bounds = propagate(graph, box)
    return Bounded(output_lower(graph, bounds, margins(graph, labels)).T, bounds)


def crown_ibp(graph: Graph, box: Interval, labels: Int[Tensor, "batch"], share: float = 0.0) -> Bounded:
    """By one backward pass of linear bounds over interval bounds; `share` of every margin is IBP's.

    Training usually begins with share 0 and ends with 1, where the result is IBP's. A mixture of two lower bounds is
    one.   Raises: InvalidBounds, Unbounded; ValueError for a share beyond 0 to 1, where a mixture bounds nothing.
    Source: Zhang et al. 2020 (CROWN-IBP), where share is beta.
    """
    require_share(share)
    if share == 1:
        return ibp(graph, box, labels)
    relaxed, matrix = backward.crown_ibp(graph, Region(box)), margins(graph, labels)
    found = relaxed.output_lower(matrix)
    if share > 0:
        found = torch.lerp(found, output_lower(graph, relaxed.bounds, matrix), share)
    return Bounded(found.T, relaxed.bounds)


def margins(graph: Graph, labels: Int[Tensor, "batch"]) -> Float[Tensor, "others batch classes"]:
    """The matrix C of  (C y)_j = y_label - y_j.   Raises: ValueError where the output has more axes than one."""
    if len(graph.output_shape) != 1:
        raise ValueError(f"outputs of shape {list(graph.output_shape)} are not one score a class")
    (classes,) = graph.output_shape
    unit = torch.eye(classes, dtype=graph.dtype, device=labels.device)
    others = torch.arange(classes - 1, device=labels.device).unsqueeze(1)
    return unit[labels] - unit[others + (others >= labels)]
