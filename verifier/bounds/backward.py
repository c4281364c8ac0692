"""CROWN: linear forms propagated from a node back to the input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.interval import output_lower, require_valid, step
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization
from provenn.verifier.region import Region


@dataclass(frozen=True, eq=False)
class Relaxed:
    """A graph with every op replaced by linear bounds that hold over one region.

    bounds: an enclosure of every node; linear: for every node the linear bounds of its op.
    """

    graph: Graph
    region: Region
    bounds: Sequence[Interval]
    linear: Sequence[Linearization | None]

    def lower(self, node: int, coefficients: Float[Tensor, "spec batch *node"]) -> Float[Tensor, "spec batch"]:
        """A lower bound of A x_node over the region: [spec, batch].   Source: Zhang et al. 2018, theorem 3.2."""
        pending = {node: coefficients}
        constant: Tensor | None = None
        for index in range(node, 0, -1):
            rows = pending.pop(index, None)
            linear = self.linear[index]
            if rows is None or linear is None:
                continue
            pulled, offset = linear(rows)
            if offset is not None:
                constant = offset if constant is None else constant + offset
            for source, part in zip(self.graph.nodes[index].inputs, pulled, strict=True):
                pending[source] = pending[source] + part if source in pending else part
        best = self.region.concretize(pending[0]) if 0 in pending else coefficients.new_zeros(coefficients.shape[:2])
        return best if constant is None else best + constant

    def output_lower(self, matrix: Float[Tensor, "spec batch outputs"]) -> Float[Tensor, "spec batch"]:
        """A lower bound of C y for the network's flattened output y, in chunks of rows, never below interval's."""
        last = len(self.graph.nodes) - 1
        batch = matrix.shape[1]
        shaped = matrix.reshape(*matrix.shape[:2], *self.graph.output_shape)
        per_row = batch * schedule.widest(self.graph, last)
        parts = [self.lower(last, shaped[part]) for part in schedule.chunks(matrix.shape[0], per_row)]
        return torch.maximum(torch.cat(parts), output_lower(self.graph, self.bounds, matrix))


def crown(graph: Graph, region: Region) -> Relaxed:
    """Bounds of every node, by backward passes wherever a relaxation depends on them, intersected with IBP.

    Only coordinates whose bound matters (for a ReLU: the unstable ones) get a pass.   Raises: InvalidBounds.
    Time: sum over nonlinear layers of (unstable neurons) x (cost of one backward row to the input), linear in the
    batch; memory: schedule.CHUNK_ELEMENTS coefficients a node at once.
    """
    bounds: list[Interval] = [region.box]
    linear: list[Linearization | None] = [None]
    relaxed = Relaxed(graph, region, bounds, linear)
    aligned = [region.centre is None]
    tightened = [True]
    for index, node in enumerate(graph.nodes[1:], start=1):
        assert node.op is not None
        inputs = [bounds[i] for i in node.inputs]
        for source, mask in zip(node.inputs, node.op.improvable(*inputs), strict=True):
            if mask is not None and not tightened[source]:
                bounds[source] = _tightened(relaxed, source, mask)
                tightened[source] = True
        inputs = [bounds[i] for i in node.inputs]
        linear.append(node.op.linearize(inputs))
        bounds.append(step(graph, index, bounds))
        alone = len(node.inputs) == 1 and aligned[node.inputs[0]]
        aligned.append(alone and node.op.separable)
        tightened.append(alone and node.op.affine)
    require_valid(graph, bounds)
    return relaxed


def interval_relaxed(graph: Graph, region: Region, bounds: Sequence[Interval]) -> Relaxed:
    """CROWN-IBP: linear bounds of every op over given (interval) bounds; no intermediate backward pass."""
    linear: list[Linearization | None] = [None]
    for node in graph.nodes[1:]:
        assert node.op is not None
        linear.append(node.op.linearize([bounds[i] for i in node.inputs]))
    return Relaxed(graph, region, bounds, linear)


def _tightened(relaxed: Relaxed, node: int, mask: Tensor) -> Interval:
    """Bounds of `node` with a backward pass for the coordinates where mask [batch, *node] holds in some entry."""
    interval = relaxed.bounds[node]
    rows = schedule.chosen(mask)
    if rows.index.shape[0] == 0:
        return interval
    shape, dtype = relaxed.graph.nodes[node].shape, interval.lower.dtype
    per_row = 2 * mask.shape[0] * schedule.widest(relaxed.graph, node)
    for part in schedule.chunks(rows.index.shape[0], per_row):
        some = rows.part(part)
        unit = some.coefficients(shape, dtype)
        both = relaxed.lower(node, torch.cat([unit, -unit]))
        lower, upper = both.chunk(2)
        interval = some.tighten(interval, lower, -upper)
    return interval
