"""Affine nodes merged into their neighbours: the same function with fewer nodes.

Every rule looks at a node and at the node that it reads, if nothing else reads that one. Constants are multiplied in
the parameters' own precision: float64 where a model is read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod

import torch
from torch import Tensor

from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.conv import Conv, ConvTranspose, per_channel, split_padding
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.shape import Pad, Reshape, Transpose

CANCELLATION = 2.0**16
"""By how much the terms of a merged constant may exceed the largest of its node: more would lose digits in the sum
that the unmerged nodes show as large values."""


def folded(graph: Graph) -> Graph:
    """The same function: scalings merged into the matrices beside them, moves that undo each other dropped.

    A merged node has the name of the later of the two; where a node does nothing, its reader reads what it read.
    """
    while True:
        shorter = _Pass(graph).run()
        if len(shorter.nodes) == len(graph.nodes):
            return graph
        graph = shorter


@dataclass
class _Pass:
    """One walk through the graph. nodes: the new ones; uses: how often each is read; place: old index -> new one."""

    graph: Graph
    nodes: list[Node] = field(default_factory=list)
    uses: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)

    def run(self) -> Graph:
        """The new graph; nodes behind its output are needed by nothing."""
        readers = Counter(i for node in self.graph.nodes for i in node.inputs)
        linear = {i for node in self.graph.nodes if isinstance(node.op, Linear) for i in node.inputs}
        for index, node in enumerate(self.graph.nodes):
            moved = replace(node, inputs=tuple(self.place[i] for i in node.inputs))
            self.place.append(self._add(moved, readers[index], index in linear))
        return Graph(tuple(self.nodes[: self.place[-1] + 1]))

    def _add(self, node: Node, uses: int, before_linear: bool) -> int:
        """Where the node's value is found: a new node, an earlier one that does both, or the one it reads."""
        if len(node.inputs) == 1 and node.op is not None:
            (index,) = node.inputs
            first = self.nodes[index]
            if first.shape == node.shape and does_nothing(node.op, node.shape):
                self.uses[index] += uses - 1
                return index
            if first.op is not None and self.uses[index] == 1:
                shape = self.nodes[first.inputs[0]].shape
                both = _both(first, node, shape)
                if both is not None:
                    self.nodes[index], self.uses[index] = Node(node.name, both, first.inputs, node.shape), uses
                    return index
                swapped = before_linear and isinstance(node.op, Reshape) and first.shape == shape
                if swapped and isinstance(first.op, Scale):
                    node = self._swapped(index, first.op, node)
        self.nodes.append(node)
        self.uses.append(uses)
        return len(self.nodes) - 1

    def _swapped(self, index: int, scale: Scale, node: Node) -> Node:
        """The scaling behind the change of shape instead of before it, where the next matrix can take it up."""
        first = self.nodes[index]
        self.nodes[index] = replace(node, inputs=first.inputs)
        weight, bias = (_reshaped(c, first.shape, node.shape) for c in (scale.weight, scale.bias))
        return Node(first.name, Scale(weight, bias), (index,), node.shape)


def does_nothing(op: Op, shape: Shape) -> bool:
    """Whether the op maps a node of `shape` to itself."""
    if isinstance(op, Scale):
        return bool((op.weight == 1).all()) and not op.bias.any()
    if isinstance(op, Transpose):
        return op.perm == tuple(range(len(shape)))
    return isinstance(op, Reshape)


def _both(first: Node, second: Node, shape: Shape) -> Op | None:
    """One op that is `second` after `first`, which reads a node of `shape`; None where there is no rule."""
    f, g = first.op, second.op
    made: Op | None = None
    if isinstance(g, Scale) and first.shape == second.shape:
        made = _scaled_after(f, g, first.shape)
    elif isinstance(f, Scale) and first.shape == shape:
        made = _scaled_before(f, g, shape)
    elif isinstance(f, Reshape) and isinstance(g, Reshape):
        made = g
    elif isinstance(f, Transpose) and isinstance(g, Transpose):
        made = Transpose(tuple(f.perm[axis] for axis in g.perm))
    elif isinstance(f, Pad) and isinstance(g, Conv):
        made = _padded(f, g)
    finite = made is None or all(v.isfinite().all() for v in vars(made).values() if isinstance(v, Tensor))
    return made if finite else None


def _scaled_after(op: Op | None, scale: Scale, shape: Shape) -> Op | None:
    """Scale of an op whose result has `shape`: W -> w W, b -> w b + c."""
    if isinstance(op, Scale):
        weight, bias = scale.weight * op.weight, _sum(scale.weight * op.bias, scale.bias)
        if bias is None:
            return None
        largest = max(c.numel() for c in (scale.weight, scale.bias, op.weight, op.bias))
        return Scale(weight, bias) if max(weight.numel(), bias.numel()) <= largest else None
    if not isinstance(op, Linear | Conv | ConvTranspose):
        return None
    constants = _constants(scale, op, shape)
    if constants is None:
        return None
    weight, bias = constants
    shifted = _sum(weight * op.bias, bias)
    if shifted is None:
        return None
    if isinstance(op, ConvTranspose):
        grouped = _grouped(op.weight, op.groups) * _over_kernel(weight, op)
        return replace(op, weight=grouped.reshape(op.weight.shape), bias=shifted)
    return replace(op, weight=per_channel(weight, op.weight.dim() - 1) * op.weight, bias=shifted)


def _scaled_before(scale: Scale, op: Op | None, shape: Shape) -> Op | None:
    """The op of a scaled node of `shape`: W -> W w, b -> W c + b; with padding, which is not shifted, c must be 0."""
    if not isinstance(op, Linear | Conv | ConvTranspose):
        return None
    constants = _constants(scale, op, shape)
    if constants is None:
        return None
    weight, bias = constants
    if isinstance(op, Linear):
        shift = _sum(op.weight @ bias, op.bias, op.weight.abs() @ bias.abs())
        return None if shift is None else Linear(op.weight * weight, shift)
    if bias.any() and (isinstance(op, ConvTranspose) or max(op.padding) > 0):
        return None
    if isinstance(op, ConvTranspose):
        return replace(op, weight=op.weight * per_channel(weight, op.weight.dim() - 1))
    # Group i of the outer channels reads group i of the inner ones.
    per_group = _grouped(op.weight, op.groups)
    scaled = per_group * _over_kernel(weight, op)
    terms = (per_group * _over_kernel(bias, op)).flatten(2)
    shift = _sum(terms.sum(2).flatten(), op.bias, terms.abs().sum(2).flatten())
    return None if shift is None else replace(op, weight=scaled.reshape(op.weight.shape), bias=shift)


def _sum(first: Tensor, second: Tensor, terms: Tensor | None = None) -> Tensor | None:
    """First + second; None where the terms of which these are made nearly cancel."""
    total = first + second
    largest = torch.maximum((first if terms is None else terms).abs().max(), second.abs().max())
    return total if bool(largest <= CANCELLATION * total.abs().max()) else None


def _padded(pad: Pad, conv: Conv) -> Conv | None:
    """Zeros around the spatial axes become the convolution's own."""
    begin, end = split_padding(pad.pads)
    spatial = (*begin[1:], *end[1:])
    if pad.value != 0 or begin[0] or end[0] or min(*spatial, *conv.padding) < 0:
        return None
    return replace(conv, padding=tuple(a + b for a, b in zip(spatial, conv.padding, strict=True)))


def _constants(scale: Scale, op: Op, shape: Shape) -> tuple[Tensor, Tensor] | None:
    """Weight and bias along the axis of a node of `shape` that the op sums over or makes; None if others matter too."""
    axis = len(shape) - 1 if isinstance(op, Linear) else 0
    weight, bias = _along(scale.weight, axis, shape), _along(scale.bias, axis, shape)
    return None if weight is None or bias is None else (weight, bias)


def _along(constant: Tensor, axis: int, shape: Shape) -> Tensor | None:
    """The constant's entries along one axis of a node of `shape`: [shape[axis]]; None if others matter too."""
    full = (1,) * (len(shape) - constant.dim()) + tuple(constant.shape)
    if len(full) > len(shape) or any(n != 1 for i, n in enumerate(full) if i != axis):
        return None
    return constant.reshape(-1).expand(shape[axis])


def _grouped(weight: Tensor, groups: int) -> Tensor:
    """[a, b, *kernel] -> [groups, a / groups, b, *kernel]."""
    return weight.reshape(groups, -1, *weight.shape[1:])


def _over_kernel(channels: Tensor, op: Conv | ConvTranspose) -> Tensor:
    """[channels] -> [groups, 1, channels / groups, 1, ..]: the same at every cell of the kernel."""
    return channels.reshape(op.groups, 1, -1, *(1,) * (op.weight.dim() - 2))


def _reshaped(constant: Tensor, old: Shape, new: Shape) -> Tensor:
    """A constant that fits a node of shape `old` for the same cells in shape `new`."""
    if constant.numel() == 1:
        return constant.reshape(())
    assert prod(old) == prod(new)
    return torch.broadcast_to(constant, old).reshape(new)
