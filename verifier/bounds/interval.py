"""Interval bound propagation (IBP): an enclosure of every node by one forward traversal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.errors import InvalidBounds, Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval, sure
from provenn.verifier.region import box_minimum


def propagate(graph: Graph, box: Interval) -> list[Interval]:
    """Lower and upper bounds of every node over a box of inputs, in node order; each [batch, *node].

    Raises: InvalidBounds if a bound is not a number (an overflow, or an input that is not finite).
    Source: Gowal et al. 2018.   Time and memory: about two forward passes, linear in the batch.
    """
    bounds = [box]
    for index in range(1, len(graph.nodes)):
        bounds.append(step(graph, index, bounds))
    require_valid(graph, bounds)
    return bounds


def step(graph: Graph, index: int, bounds: Sequence[Interval]) -> Interval:
    """The enclosure of node `index` from those of its inputs.   Raises: Unbounded."""
    node = graph.nodes[index]
    assert node.op is not None
    try:
        return node.op.interval(*(bounds[i] for i in node.inputs))
    except Unbounded as error:
        raise Unbounded(f"node '{node.name}': {error}") from None


def require_valid(graph: Graph, bounds: Sequence[Interval]) -> None:
    """The first node whose bounds or width are not finite, or that has lower > upper, is named.

    An op's lines divide by the width: one that overflows would give lines that are finite and wrong.
    Raises: Unbounded, InvalidBounds.
    """
    # A nan fails the first comparison; a width is finite only if both ends are.
    checks = [(b.lower <= b.upper).all() & ((b.upper - b.lower).amax() < float("inf")) for b in bounds]
    valid = torch.stack(checks).tolist()
    if not all(valid):
        first = valid.index(False)
        name, wrong = graph.nodes[first].name, bounds[first]
        if not (wrong.upper - wrong.lower).isfinite().all():
            raise Unbounded(f"node '{name}': a bound, or the width between two, is not finite; use a smaller region")
        raise InvalidBounds(f"node '{name}': a lower bound lies above its upper bound")


def output_lower(
    graph: Graph, bounds: Sequence[Interval], matrix: Float[Tensor, "spec batch outputs"]
) -> Float[Tensor, "spec batch"]:
    """A lower bound of C y from interval bounds: C is first pulled, exactly, through the affine ops at the end.

    Where several rows read the same neuron this is tighter than C over the box of outputs.
    """
    pending, total = through_affine_end(graph, bounds, matrix)
    for index, rows in pending.items():
        total = total + box_minimum(rows.flatten(2), bounds[index].lower.flatten(1), bounds[index].upper.flatten(1))
    return sure(total)


def through_affine_end(
    graph: Graph, bounds: Sequence[Interval], matrix: Float[Tensor, "spec batch outputs"]
) -> tuple[dict[int, Tensor], Float[Tensor, "spec batch"]]:
    """C y as rows [spec, batch, *node] over the last nodes that are not affine, or the input, plus a constant."""
    last = len(graph.nodes) - 1
    pending = {last: matrix.reshape(*matrix.shape[:2], *graph.output_shape)}
    total = matrix.new_zeros(matrix.shape[:2])
    for index in range(last, -1, -1):
        node = graph.nodes[index]
        if index not in pending or node.op is None or not node.op.affine:
            continue
        pulled, offset = node.op.backward(pending.pop(index), [bounds[i] for i in node.inputs])
        total = total if offset is None else total + offset
        for source, part in zip(node.inputs, pulled, strict=True):
            pending[source] = pending[source] + part if source in pending else part
    return pending, total
