"""The derivative of a network over a region, as a graph: linear maps, and gains of which only bounds are known.

Every difference f(x) - f(y) over a convex region is J (x - y), J a product of the affine ops' matrices and of diagonal
ones with slopes of the functions, secants included; so is every element of Clarke's generalized Jacobian. Functions of
several values are made of such: a product's slopes are the values of its factors, known from boxes. What an op does to
differences is its rule in verifier.ops.increments, the one that LipSDP reads too: a unit with slopes in [a, b] is a
`Gain`. Where nothing is open (a region of one point beside no kink) the graphs compute the derivative itself.
Source: lipschitz.md, section 4; Shi et al. 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from provenn.verifier.errors import ResourceLimit, Unbounded, UnsupportedOp
from provenn.verifier.graph import Graph, Node
from provenn.verifier.interval import Interval
from provenn.verifier.ops.adjoint import linear_part, transposed
from provenn.verifier.ops.arithmetic import Add, Sub
from provenn.verifier.ops.base import Affine, Elementwise, Op, Shape
from provenn.verifier.ops.gain import Gain
from provenn.verifier.ops.increments import Increments
from provenn.verifier.ops.monotone import Monotone

WHAT = "its slopes over the region are not bounded, so no derivative can be; what may help: a smaller region"
"""Of a function."""

CELLS = 2**24
"""Largest number of gains of one op: a product of matrices has one for every pair of entries that meet."""


def jacobian_vector(graph: Graph, bounds: Sequence[Interval], fixed: bool = False) -> Graph:
    """A tangent s of the input's shape -> J s, for every J of the region.

    bounds: enclosures of every node over the region, [1, *node]; fixed: see Gain.
    Raises: UnsupportedOp naming the node whose differences have no rule, or no finite slope; ResourceLimit.
    """
    return _Tracing(graph, bounds, fixed).run()


def vector_jacobian(graph: Graph, bounds: Sequence[Interval], fixed: bool = False) -> Graph:
    """A row c of the output's shape -> c J, for every J of the region: as `jacobian_vector`."""
    return transpose(jacobian_vector(graph, bounds, fixed))


def transpose(graph: Graph) -> Graph:
    """The graph whose matrix is the transposed one, of a graph of linear ops and gains."""
    nodes = [Node("output", None, (), graph.output_shape)]
    sent: dict[int, list[int]] = {len(graph.nodes) - 1: [0]}

    def add(name: str, op: Op, inputs: tuple[int, ...], shape: Shape) -> int:
        nodes.append(Node(f"{name}'" if len(inputs) == 1 else f"{name}' +", op, inputs, shape))
        return len(nodes) - 1

    for index in range(len(graph.nodes) - 1, -1, -1):
        if index not in sent:
            continue
        node, (here, *others) = graph.nodes[index], sent.pop(index)
        if others:
            here = add(node.name, Add(), (here, *others), node.shape)
        shapes = tuple(graph.nodes[i].shape for i in node.inputs)
        for position, source in enumerate(node.inputs):
            op = node.op if isinstance(node.op, Gain) else _transposed(node.op, shapes, position)
            sent.setdefault(source, []).append(add(node.name, op, (here,), shapes[position]))
    return Graph(tuple(nodes))


def _transposed(op: Op | None, shapes: tuple[Shape, ...], position: int) -> Affine:
    assert isinstance(op, Affine)
    return transposed(op, shapes, position)


@dataclass(frozen=True)
class Moved(Monotone):
    """Cells moved, selected, repeated, added up or averaged, by a function of [batch, *node_i] that does only that."""

    function: Callable[..., Tensor]

    onnx = ()

    def apply(self, *inputs: Tensor) -> Tensor:
        """The function."""
        return self.function(*inputs)


@dataclass(frozen=True, eq=False)
class _Traced(Increments):
    """A difference as a node of the graph that is made; box: an enclosure of the value that differs."""

    tracing: _Tracing
    node: int
    box: Interval

    def through(self, function: Callable[[Tensor], Tensor]) -> _Traced:
        return self.jointly(function, ())

    def at(self, places: Tensor) -> _Traced:
        return self.through(lambda x: x[..., places])

    def jointly(self, function: Callable[..., Tensor], others: Sequence[Increments]) -> _Traced:
        every = (self, *map(_traced, others))
        box = Interval(*(function(*ends) for ends in zip(*((x.box.lower, x.box.upper) for x in every), strict=True)))
        return self.tracing.made(Moved(function), every, box)

    def __add__(self, other: Increments) -> _Traced:
        return self.tracing.made(Add(), (self, _traced(other)), None)

    def __sub__(self, other: Increments) -> _Traced:
        return self.tracing.made(Sub(), (self, _traced(other)), None)


def _traced(increments: Increments) -> _Traced:
    assert isinstance(increments, _Traced)
    return increments


@dataclass(eq=False)
class _Tracing:
    """One walk over the graph: verifier.ops.increments.Scope, where a unit is a gain."""

    graph: Graph
    bounds: Sequence[Interval]
    fixed: bool
    nodes: list[Node] = field(default_factory=list)
    current: Node | None = None
    rectified_before: dict[tuple[int, int], _Traced] = field(default_factory=dict)

    def run(self) -> Graph:
        """The graph of the output's difference."""
        self.nodes = [Node("input", None, (), self.graph.input_shape)]
        values = {0: self._of(0, self.bounds[0])}
        for index, node in enumerate(self.graph.nodes[1:], start=1):
            assert node.op is not None
            self.current, inputs = node, [values[i] for i in node.inputs]
            if isinstance(node.op, Affine):
                part = linear_part(node.op, tuple(self.graph.nodes[i].shape for i in node.inputs))
                values[index] = self.made(part, inputs, self.bounds[index])
            else:
                found = node.op.increments(inputs, self)
                if found is None:
                    raise UnsupportedOp(node.name, type(node.op).__name__, "its differences have no rule")
                values[index] = self._of(_traced(found).node, self.bounds[index])
        last = values[len(self.graph.nodes) - 1].node
        if last < len(self.nodes) - 1 or last == 0:
            self._add(Moved(lambda x: x), (last,))
        return Graph(tuple(self.nodes))

    def made(self, op: Affine, inputs: Sequence[_Traced], box: Interval | None) -> _Traced:
        """A new node; box None: what interval arithmetic says of it."""
        node = self._add(op, tuple(x.node for x in inputs))
        return self._of(node, op.interval(*(x.box for x in inputs)) if box is None else box)

    def slopes(self) -> tuple[Tensor, Tensor]:
        """See Scope."""
        node = self.current
        assert node is not None
        assert isinstance(node.op, Elementwise)
        try:
            found = node.op.derivative(self.bounds[node.inputs[0]])
        except Unbounded as error:
            raise UnsupportedOp(node.name, type(node.op).__name__, f"{WHAT} ({error})") from error
        shape = (1, *node.shape)
        return found.lower.expand(shape), found.upper.expand(shape)

    def boxes(self) -> Sequence[Interval]:
        """See Scope: all are known."""
        assert self.current is not None
        return [self.bounds[i] for i in self.current.inputs]

    def units(self, argument: Increments, lower: Tensor, upper: Tensor) -> Increments:
        """See Scope.   Raises: ResourceLimit."""
        argument, node = _traced(argument), self.current
        assert node is not None
        if not bool(lower.isfinite().all() & upper.isfinite().all()):
            raise UnsupportedOp(node.name, type(node.op).__name__, WHAT)
        if lower.numel() > CELLS:
            raise ResourceLimit(f"node '{node.name}': numbers of its derivative", f"{CELLS}")
        gain = self._add(Gain(lower[0], upper[0], self.fixed), (argument.node,))
        return self._of(gain, argument.box)  # nobody reads this box: the network's node has its own

    def rectified(self, gap: Increments) -> Increments:
        """See Scope."""
        gap = _traced(gap)
        first, second = self.nodes[gap.node].inputs if len(self.nodes[gap.node].inputs) == 2 else (gap.node, -1)
        if (first, second) in self.rectified_before:
            return self.rectified_before[first, second]
        if (second, first) in self.rectified_before:
            return self.rectified_before[second, first] + gap
        low, high = gap.box.lower, gap.box.upper
        lower, upper = (low > 0).to(low.dtype), (high >= 0).to(low.dtype)
        node = self._add(Gain(lower[0], upper[0], self.fixed), (gap.node,))
        part = self._of(node, Interval(low.clamp(min=0), high.clamp(min=0)))
        self.rectified_before[first, second] = part
        return part

    def fixed_point(self, weight: Tensor, argument: Increments) -> Increments:
        """Implicit layers have no bounds over a region, and no derivative here."""
        node = self.current
        assert node is not None
        raise UnsupportedOp(node.name, type(node.op).__name__, "an implicit layer has no derivative as a graph")

    def _add(self, op: Op, inputs: tuple[int, ...]) -> int:
        zeros = [torch.zeros((1, *self.nodes[i].shape), dtype=self.bounds[0].lower.dtype) for i in inputs]
        shape = tuple(op.forward(*zeros).shape[1:])
        name = "input" if self.current is None else self.current.name
        self.nodes.append(Node(name, op, inputs, shape))
        return len(self.nodes) - 1

    def _of(self, node: int, box: Interval) -> _Traced:
        like = torch.zeros((1, *self.nodes[node].shape), dtype=box.lower.dtype)
        return _Traced({0: like}, self, node, box)
