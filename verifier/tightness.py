"""Propagation tightness: the box that a network's active linear map needs, over the box that intervals make of it.

At an input x a piecewise-linear network is a linear map J = J_L .. J_1, the product of its ops' pieces active there.
Inputs whose coordinates are within r of x's go, under that map, into a box of radius |J| r, the smallest there is;
layer by layer, as IBP goes, into one of radius |J_L| .. |J_1| r. Their ratio lies in (0, 1]; it is 1 where intervals
lose nothing. A measurement in floating point, at points: it explains bounds and proves nothing.
Source: Mao, Mueller, Fischer and Vechev 2024 (arXiv 2306.10426), local tightness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidSpecification, UnsupportedOp
from provenn.verifier.graph import Graph
from provenn.verifier.ops.abs import PRelu
from provenn.verifier.ops.adjoint import linear_part
from provenn.verifier.ops.base import Affine, Op, Shape
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.larger import Either
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import Extreme
from provenn.verifier.ops.pick import Pick
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Expand, Select
from provenn.verifier.ops.sort import Sort
from provenn.verifier.ops.steps import Step

BENT = (Relu, LeakyRelu, PRelu, Clip, Step)
"""Functions of one number that are linear between their kinks."""

CHOOSING = (MaxPool, Extreme, Sort, Gate, Either)
"""Ops whose result has, at every input, cells of the inputs: their pieces have no negative coefficients."""

MOVING = (Select, Concat, Expand, Pick)
"""Affine ops that take cells from somewhere, as separable ones do: they lose nothing themselves."""

LEAST = 1e-8
"""Both radii are at least this when they are divided, as in the authors' code: a dead output has tightness 1."""

ELEMENTS = 1 << 22
"""Values of a network, over all its nodes, that one pass computes at most, unless one point has more."""

Map = Callable[..., Tensor]


@dataclass(frozen=True, eq=False)
class Layer:
    """The tightness of what comes out of one layer that adds up: [batch, cells], of the network cut behind it."""

    name: str
    op: str
    tightness: Tensor

    @cached_property
    def mean(self) -> float:
        """Over cells and inputs."""
        return float(self.tightness.mean())


@dataclass(frozen=True, eq=False)
class Tightness:
    """outputs: [batch, rows], of every row of C f; layers: in the graph's order, where they were asked for."""

    outputs: Tensor
    layers: tuple[Layer, ...] = ()

    @cached_property
    def mean(self) -> float:
        """Over rows and inputs: the number that the paper reports."""
        return float(self.outputs.mean())


def tightness(graph: Graph, x: Tensor, radius: Tensor, labels: Tensor | None = None, layers: bool = False) -> Tightness:
    """The tightness at inputs x [batch, *input] of boxes of `radius`, of x's shape; both of the parameters' dtype.

    labels [batch]: C has a row f_label - f_j for every other class j, merged with the last layer before intervals are
    taken (the elision of Gowal et al. 2018); None: C is the identity. layers: of every layer that adds up, too, at
    the cost of a forward pass an input coordinate in place of a backward pass a row.
    A ReLU at its kink is active. Normalisation is part of the network: constants scale radii as weights do.
    Raises: UnsupportedOp naming a node that is not piecewise linear; InvalidSpecification if there is one output only.
    """
    require_piecewise_linear(graph)
    most = max(1, ELEMENTS // sum(prod(node.shape) for node in graph.nodes))
    found = []
    for start in range(0, len(x), most):
        part = slice(start, start + most)
        found.append(_Local(graph, x[part], radius[part], None if labels is None else labels[part]).measured(layers))
    joined = zip(*(one.layers for one in found), strict=True)
    return Tightness(
        torch.cat([one.outputs for one in found]),
        tuple(Layer(same[0].name, same[0].op, torch.cat([layer.tightness for layer in same])) for same in joined),
    )


def lossless(weights: Sequence[Tensor]) -> bool:
    """Whether |W_L .. W_1| = |W_L| .. |W_1|: all paths from an input to an output have weights of one sign.

    Necessary and sufficient, entry by entry: |sum of paths| = sum of |paths| iff no two paths have opposite signs.
    For weights without zeros and L = 2: the products W2[i, j] W1[j, k] have one sign over all j, for every i and k.
    weights: W_1 first, each [out, in].
    """
    positive = torch.eye(weights[0].shape[1], dtype=torch.bool)
    negative = torch.zeros_like(positive)
    for weight in weights:
        rising, falling = weight > 0, weight < 0
        positive, negative = (
            _meets(rising, positive) | _meets(falling, negative),
            _meets(rising, negative) | _meets(falling, positive),
        )
    return not bool((positive & negative).any())


def clipped(x: Tensor, epsilon: float, clip: tuple[float, float] | None) -> Tensor:
    """Half the width, coordinate by coordinate, of the box of radius epsilon around x within the range `clip`."""
    low, high = clip or (-torch.inf, torch.inf)
    return ((x + epsilon).clamp(low, high) - (x - epsilon).clamp(low, high)) / 2


def require_piecewise_linear(graph: Graph) -> None:
    """Raises: UnsupportedOp naming the first node that has no linear map of its own at a point."""
    for node in graph.nodes[1:]:
        if not isinstance(node.op, (Affine, *BENT, *CHOOSING)):
            reason = "it is not piecewise linear: no linear map is active at an input"
            raise UnsupportedOp(node.name, type(node.op).__name__, reason)


def _meets(first: Tensor, second: Tensor) -> Tensor:
    """The product of matrices of truth values."""
    return (first.double() @ second.double()) > 0


def _adds(op: Op | None) -> bool:
    """Whether coordinates are added up, so that intervals may lose something."""
    return isinstance(op, Affine) and not op.separable and not isinstance(op, MOVING)


class _Local:
    """The linear pieces active at a batch of inputs: of every node J on tangents, and |J| on radii."""

    def __init__(self, graph: Graph, x: Tensor, radius: Tensor, labels: Tensor | None) -> None:
        self.graph, self.x, self.radius = graph, x, radius
        self.rows = _rows(graph, len(x), labels, x)
        self.values = self._forward()

    def measured(self, layers: bool) -> Tightness:
        """All of it."""
        radii = self._propagated()
        end, rows = self._merged()
        sent = sum(rows[i].abs().flatten(2).mul(radii[i].flatten(1)).sum(2) for i in end)
        assert isinstance(sent, Tensor)
        found = Tightness(_ratio(self._optimal(), sent).T)
        if not layers:
            return found
        places = [i for i, node in enumerate(self.graph.nodes) if _adds(node.op)]
        least = self._columns(places)
        names = [(self.graph.nodes[i].name, type(self.graph.nodes[i].op).__name__) for i in places]
        cut = (_ratio(least[i], radii[i]).flatten(1) for i in places)
        return Tightness(found.outputs, tuple(Layer(*name, part) for name, part in zip(names, cut, strict=True)))

    def _forward(self) -> list[Tensor]:
        values = [self.x]
        with torch.no_grad():
            for node in self.graph.nodes[1:]:
                assert node.op is not None
                values.append(node.op.forward(*(values[i] for i in node.inputs)))
        return values

    def _propagated(self) -> list[Tensor]:
        """The radius of every node's box, layer by layer: [batch, *node]."""
        radii = [self.radius]
        with torch.no_grad():
            for index in range(1, len(self.graph.nodes)):
                radii.append(self._magnitude(index)(*(radii[i] for i in self.graph.nodes[index].inputs)))
        return radii

    def _magnitude(self, index: int) -> Map:
        node = self.graph.nodes[index]
        if isinstance(node.op, Affine):
            return node.op.magnitude
        if isinstance(node.op, BENT):
            slope = self._slope(index)
            return lambda radius: slope.abs() * radius
        return self._chosen(index)

    def _tangent(self, index: int) -> Map:
        """J of one op on tangents [columns, batch, *input_i]."""
        node = self.graph.nodes[index]
        if isinstance(node.op, BENT):
            slope = self._slope(index)
            return lambda tangent: slope * tangent
        if isinstance(node.op, Affine):
            function: Map = linear_part(node.op, tuple(self.graph.nodes[i].shape for i in node.inputs)).apply
        else:
            function = self._chosen(index)
        return lambda *tangents: _flattened(function, tangents)

    def _slope(self, index: int) -> Tensor:
        """The derivative of a function of one number at every cell; at a kink the one that torch takes."""
        node = self.graph.nodes[index]
        assert node.op is not None
        with torch.enable_grad():
            value = self.values[node.inputs[0]].detach().requires_grad_()
            result = node.op.forward(value)
            if not result.requires_grad:
                return torch.zeros_like(value)
            (slope,) = torch.autograd.grad(result.sum(), value)
        return slope

    def _chosen(self, index: int) -> Map:
        """J t of an op that chooses, for tangents t of [copies x batch]: the derivative of  u -> u J t."""
        node = self.graph.nodes[index]
        values = [self.values[i] for i in node.inputs]

        def pushed(*tangents: Tensor) -> Tensor:
            copies = len(tangents[0]) // len(values[0])
            with torch.enable_grad():
                # Beside the values themselves, so that each tangent meets those of its own input.
                at = [v.repeat(copies, *(1,) * (v.dim() - 1)).requires_grad_() for v in values]
                assert node.op is not None
                result = node.op.forward(*at)
                rows = torch.zeros_like(result, requires_grad=True)
                pulled = torch.autograd.grad((result * rows).sum(), at, create_graph=True, allow_unused=True)
                total = sum((p * t).sum() for p, t in zip(pulled, tangents, strict=True) if p is not None)
                assert isinstance(total, Tensor)
                (found,) = torch.autograd.grad(total, rows)
            return found

        return pushed

    def _optimal(self) -> Tensor:
        """|C J| r: [rows, batch], a backward pass a row."""
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            outputs = self.graph.forward(x).flatten(1)
            found = []
            for row in self.rows:
                (gradient,) = torch.autograd.grad((outputs * row).sum(), x, retain_graph=True, allow_unused=True)
                size = torch.zeros_like(x) if gradient is None else gradient.abs()
                found.append((size * self.radius).flatten(1).sum(1))
        return torch.stack(found).detach()

    def _columns(self, places: Sequence[int]) -> dict[int, Tensor]:
        """|J_node| r of some nodes: a forward pass an input coordinate, many at a time."""
        total = {i: torch.zeros_like(self.values[i]) for i in places}
        with torch.no_grad():
            for tangents in self._units():
                sent = {0: tangents}
                for index, node in enumerate(self.graph.nodes[1:], start=1):
                    sent[index] = self._tangent(index)(*(sent[i] for i in node.inputs))
                    for i in node.inputs:
                        if self.graph.last_use[i] == index:
                            sent.pop(i, None)
                    if index in total:
                        total[index] += sent[index].abs().sum(0)
        return total

    def _units(self) -> Iterator[Tensor]:
        """Radii of single coordinates: [columns, batch, *input], those that are 0 for all left out."""
        flat = self.radius.flatten(1)
        open_ = flat.any(0).nonzero()[:, 0]
        cells = len(self.x) * sum(prod(node.shape) for node in self.graph.nodes)
        for columns in torch.split(open_, max(1, ELEMENTS // cells)):
            units = flat.new_zeros((len(columns), *flat.shape))
            units[torch.arange(len(columns)), :, columns] = flat[:, columns].T
            yield units.reshape(len(columns), *self.radius.shape)

    def _merged(self) -> tuple[tuple[int, ...], dict[int, Tensor]]:
        """C and the last layer as one: rows [rows, batch, *node] over the nodes that the last layer reads."""
        index, rows = len(self.graph.nodes) - 1, self.rows
        rows = rows.expand(-1, len(self.x), -1).reshape(len(rows), len(self.x), *self.graph.output_shape)
        while isinstance(op := self.graph.nodes[index].op, Affine):
            inputs = self.graph.nodes[index].inputs
            shapes: list[Shape] = [self.graph.nodes[i].shape for i in inputs]
            with torch.no_grad():
                pulled = op.adjoint(rows.flatten(0, 1), shapes)
            parts = [p.reshape(*rows.shape[:2], *shape) for p, shape in zip(pulled, shapes, strict=True)]
            if _adds(op) or len(inputs) > 1:
                merged: dict[int, Tensor] = {}
                for i, part in zip(inputs, parts, strict=True):
                    merged[i] = merged[i] + part if i in merged else part
                return tuple(merged), merged
            index, rows = inputs[0], parts[0]
        return (index,), {index: rows}


def _rows(graph: Graph, batch: int, labels: Tensor | None, like: Tensor) -> Tensor:
    """C: [rows, batch or 1, outputs]."""
    outputs = prod(graph.output_shape)
    identity = torch.eye(outputs, dtype=like.dtype, device=like.device)
    if labels is None:
        return identity.unsqueeze(1)
    if outputs < 2:
        raise InvalidSpecification("with one output there is no other class: leave the labels out")
    if labels.shape != (batch,) or not bool(((labels >= 0) & (labels < outputs)).all()):
        raise InvalidSpecification(f"labels are {batch} of 0 to {outputs - 1}, one an input")
    others = torch.arange(outputs - 1, device=like.device).unsqueeze(1)
    others = others + (others >= labels)
    return identity[labels] - identity[others]


def _flattened(function: Map, tangents: Sequence[Tensor]) -> Tensor:
    """A function of [batch, ..] on [columns, batch, ..]."""
    result = function(*(t.flatten(0, 1) for t in tangents))
    return result.reshape(*tangents[0].shape[:2], *result.shape[1:])


def _ratio(optimal: Tensor, layerwise: Tensor) -> Tensor:
    return optimal.clamp(min=LEAST) / layerwise.clamp(min=LEAST)
