"""Whether a network is a convex function of its input, by the rules of composition (disciplined convexity).

Source: Grant, Boyd, Ye 2006. Sufficient, never necessary; exact, for it looks at the signs of constants alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor

from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.adjoint import linear_part
from provenn.verifier.ops.base import Affine
from provenn.verifier.ops.larger import Larger
from provenn.verifier.ops.maximum import Maximum, Minimum
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.relu import Relu

Curvature = tuple[Tensor, Tensor]
"""Of every entry of a node, flat: whether it is convex, whether it is concave; affine is both."""

CELLS = 2**24
"""Largest matrix of an affine op that is looked at."""


def convex(graph: Graph) -> bool:
    """Whether every output is proved a convex function of the input."""
    known: list[Curvature] = []
    for node in graph.nodes:
        inputs = [known[i] for i in node.inputs]
        if node.op is None:
            sure = torch.ones(prod(node.shape), dtype=torch.bool)
            known.append((sure, sure))
        elif isinstance(node.op, Affine):
            known.append(_affine(graph, node, node.op, inputs))
        else:
            known.append(_curved(node, inputs))
    return bool(known[-1][0].all())


def _curved(node: Node, inputs: Sequence[Curvature]) -> Curvature:
    """The rising convex functions relu and max keep convexity; |z| and z^2 are convex of what is affine."""
    no = torch.zeros(prod(node.shape), dtype=torch.bool)
    same = all(len(rising) == len(no) for rising, _ in inputs)
    rising, falling = inputs[0]
    if isinstance(node.op, Relu):
        return rising, no
    if isinstance(node.op, Abs) or (isinstance(node.op, Pow) and node.op.exponent == 2):
        return rising & falling, no
    if same and isinstance(node.op, Larger) and not node.op.smallest:
        return inputs[1][0] & inputs[2][0], no
    if same and isinstance(node.op, Maximum) and not isinstance(node.op, Minimum):
        return torch.stack([up for up, _ in inputs]).all(0), no
    return no, no


def _affine(graph: Graph, node: Node, op: Affine, inputs: Sequence[Curvature]) -> Curvature:
    """Sums with positive weights keep curvature, negative weights turn it round."""
    shapes = tuple(graph.nodes[i].shape for i in node.inputs)
    part, size = linear_part(op, shapes), prod(node.shape)
    up, down = torch.ones(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
    for place, (rising, falling) in enumerate(inputs):
        count = prod(shapes[place])
        if count * size > CELLS:
            return ~up, ~down
        units = [torch.zeros((count, *shape), dtype=torch.float64) for shape in shapes]
        units[place] = torch.eye(count, dtype=torch.float64).reshape(count, *shapes[place])
        matrix = part.forward(*units).reshape(count, size)  # the column of every entry of this input
        more, less = matrix > 0, matrix < 0
        up &= ~((more & ~rising[:, None]) | (less & ~falling[:, None])).any(0)
        down &= ~((more & ~falling[:, None]) | (less & ~rising[:, None])).any(0)
    return up, down
