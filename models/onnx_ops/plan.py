"""A network read as shapes first: every node's shape is known, and within the limits, before a number is computed.

The batch axis. Everything is read at batch 1. A value of ONNX shape (1, *s) whose first axis may stand for the batch
is held by a node of shape s (`lead`); any other value by a node of its whole ONNX shape. `Plan.held` converts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, ClassVar

import numpy as np
import torch

from provenn.models.limits import Limits
from provenn.models.live_array import LiveArray, as_array
from provenn.models.onnx_ops.folding import JUMPS, STEPS, Compute, Fold, Folding, blamed, whole, widened
from provenn.models.tensors import Array
from provenn.verifier.errors import InvalidModel, ResourceLimit, UnsupportedOp
from provenn.verifier.graph import Graph
from provenn.verifier.graph import Node as GraphNode
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.shape import Reshape

SMALL = 4096
"""Constants of at most this many elements are computed at once: shapes, axes and indices are made of them."""

MakeOp = Callable[..., Op]


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of the file: where it is computed, its ONNX shape at batch 1, and how it is held."""

    step: int
    shape: Shape
    lead: bool

    kind: ClassVar[str] = "a computed value"

    @property
    def held_shape(self) -> Shape:
        """The shape of the node that holds it."""
        return self.shape[1:] if self.lead else self.shape


@dataclass(frozen=True, eq=False)
class Variable(Value):
    """Computed from the network's input, by node `step` of the plan."""


@dataclass(frozen=True, eq=False)
class Constant(Value):
    """Independent of the input, computed by fold `step` of the plan; `known` where its numbers are there already."""

    floating: bool
    known: Array | None

    kind = "a constant"


@dataclass(frozen=True, eq=False)
class Unheld(Value):
    """What no node holds: it stands for something that the operators `read_by` know; every other one is refused."""

    read_by: ClassVar[frozenset[str]]


@dataclass(frozen=True, eq=False)
class Apply:
    """A node to be made: `make(*parameters)` is its op; no make: the network's input."""

    name: str
    make: MakeOp | None
    inputs: tuple[int, ...]
    parameters: tuple[Constant, ...]
    shape: Shape


@dataclass
class Node:
    """One ONNX node: its operator, the values it reads (None where left out), its attributes, crossed off when read.

    outputs: their names, "" where one is left out.
    """

    name: str
    operator: str
    opset: int
    inputs: Sequence[Value | None]
    outputs: Sequence[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def attribute(self, name: str, default: Any = None) -> Any:
        """The attribute's value, `default` if it is not given."""
        return self.attributes.pop(name, default)

    def flag(self, name: str, default: bool = False) -> bool:
        """An attribute that is 0 or 1: what another number means, runtimes do not agree about."""
        value = self.attribute(name, int(default))
        self.require(value in (0, 1), f"{name} is {value}; it must be 0 or 1")
        return bool(value)

    def require(self, condition: object, reason: str) -> None:
        """Raises: InvalidModel naming this node unless the condition holds."""
        if not condition:
            raise InvalidModel(f"{self.operator}: {reason}", self.name)

    def supported(self, condition: object, reason: str) -> None:
        """Raises: UnsupportedOp naming this node unless the condition holds."""
        if not condition:
            raise UnsupportedOp(self.name, self.operator, reason)

    def given(self, position: int) -> Value | None:
        """The value at `position`, None if left out."""
        return self.inputs[position] if position < len(self.inputs) else None

    def input(self, position: int = 0) -> Value:
        """The value at `position`."""
        value = self.given(position)
        if value is None:
            raise InvalidModel(f"{self.operator}: input {position} is missing", self.name)
        return value

    def constant(self, position: int, what: str) -> Constant:
        """The constant at `position`."""
        value = self.input(position)
        if not isinstance(value, Constant):
            raise UnsupportedOp(self.name, self.operator, f"{what} must be constant, but is computed from the input")
        return value

    def integers(self, position: int, what: str) -> tuple[int, ...]:
        """The whole numbers at `position`, flat."""
        constant = self.constant(position, what)
        self.require(not constant.floating, f"{what} must be whole numbers")
        if constant.known is None:
            raise ResourceLimit(f"node '{self.name}': {what} computed within the model", f"{SMALL} elements")
        return tuple(int(i) for i in constant.known.ravel())

    def listed(self, name: str, position: int) -> tuple[int, ...] | None:
        """Whole numbers given as attribute `name` (older opsets) or as an input (newer ones); None if left out."""
        values = self.attribute(name)
        if values is not None:
            return tuple(values)
        return None if self.given(position) is None else self.integers(position, name)

    def number(self, name: str, position: int) -> float | None:
        """A number given as attribute `name` (older opsets) or as an input (newer ones); None if left out."""
        value = self.attribute(name)
        if value is not None or self.given(position) is None:
            return None if value is None else float(value)
        known = self.constant(position, name).known
        self.require(known is not None and known.size == 1, f"{name} must be one number")
        return float(np.asarray(known).ravel()[0])

    def axis(self, axis: int, rank: int) -> int:
        """The axis, counted from the front."""
        self.require(-rank <= axis < rank, f"axis {axis} does not exist in a tensor with {rank} axes")
        return axis % rank


class Plan:
    """What is to be computed, in order, all shapes known and within the limits."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.nodes: list[Apply] = []
        self.folding = Folding()
        self._names: dict[str, int] = {}
        self._folded = 0
        self._indices = 0

    def input(self, name: str, shape: Shape, lead: bool) -> Variable:
        """The network's input, of ONNX shape `shape` at batch 1."""
        value = Variable(0, shape, lead)
        self.nodes.append(Apply(self._unique(name), None, (), (), value.held_shape))
        return value

    def stored(self, name: str, array: Array) -> Constant:
        """A constant whose numbers are there."""
        kept = Fold(name, "", (), lambda: array, array.shape, array.dtype.kind == "f", False)
        return Constant(self.folding.add(kept), array.shape, False, kept.floating, array)

    def fold(
        self,
        node: Node,
        sources: Sequence[Constant],
        compute: Compute,
        shape: Shape,
        floating: bool,
        coarse: bool = False,
    ) -> Constant:
        """A constant of `shape`, computed by `compute` from the sources' arrays; at once if all is small.

        coarse: it is rounded further than to float32.
        Raises: UnsupportedOp if it would be a step away where every fold on the way is rounded to float32.
        """
        self._require_elements(node, shape)
        self._folded += prod(shape)
        if self._folded > self.limits.folded:
            raise ResourceLimit("the constants computed within the model", f"{self.limits.folded} elements in all")
        stepping = any(s.floating for s in sources) and (coarse or not floating or node.operator in STEPS)
        steps = tuple(s.step for s in sources)
        place = self.folding.add(Fold(node.name, node.operator, steps, compute, tuple(shape), floating, stepping))
        inputs = [s.known for s in sources if s.known is not None and s.known.size <= SMALL]
        small = prod(shape) <= SMALL and len(inputs) == len(sources)
        known = self.folding.run(place, [widened(a) for a in inputs]) if small else None
        return Constant(place, tuple(shape), False, floating, known)

    def agreed(self, node: Node, x: Constant, decide: Compute) -> Array:
        """What is decided by a known constant, the same where every fold on the way is rounded to float32.

        Raises: UnsupportedOp if it is not the same, or the constant is not known.
        """
        node.supported(x.known is not None, "a constant computed within the model, of many elements")
        decided: Array = decide(widened(np.asarray(x.known)))
        node.supported(np.array_equal(decided, decide(self.folding.single(x.step))), JUMPS)
        return decided

    def emit(
        self,
        node: Node,
        op: Op | MakeOp,
        inputs: Sequence[Value],
        shape: Shape,
        lead: bool,
        parameters: Sequence[Constant] = (),
    ) -> Value:
        """The value of `op` (or of the op made of the parameters' arrays) over `inputs`, of ONNX shape `shape`."""
        make: MakeOp = (lambda: op) if isinstance(op, Op) else op
        self._require_elements(node, shape)
        if all(isinstance(v, Constant) for v in inputs):
            return self._folded_op(node, make, [*_constants(inputs), *parameters], len(inputs), shape)
        other = next((v for v in inputs if not isinstance(v, Variable)), None)
        if other is not None:
            raise UnsupportedOp(node.name, node.operator, f"{other.kind} beside or as a computed input")
        value = Variable(len(self.nodes), tuple(shape), lead)
        steps = tuple(v.step for v in inputs)
        self.nodes.append(Apply(self._unique(node.name), make, steps, tuple(parameters), value.held_shape))
        return value

    def held(self, node: Node, x: Value, lead: bool) -> Value:
        """The same value, its first axis (of length 1) held as the batch or not."""
        if x.lead == lead:
            return x
        node.supported(not lead or x.shape[:1] == (1,), f"its first axis must be the batch, in shape {list(x.shape)}")
        if isinstance(x, Constant):
            return replace(x, lead=lead)
        return self.emit(node, Reshape(x.shape[1:] if lead else x.shape), [x], x.shape, lead)

    def view(self, node: Node, x: Value, shape: Shape) -> Value:
        """The same elements in the same order in another ONNX shape; no node where the held shape is the same."""
        shape = tuple(shape)
        node.require(prod(shape) == prod(x.shape), f"{list(x.shape)} does not have the elements of {list(shape)}")
        if isinstance(x, Constant):
            return x if x.shape == shape else self.fold(node, [x], lambda a: a.reshape(shape), shape, x.floating)
        if isinstance(x, Unheld):
            node.supported(x.shape == shape, f"{x.kind} in another shape")
            return x
        lead = len(shape) > 1 and shape[0] == 1
        target = shape[1:] if lead else shape
        if x.held_shape == target:
            return replace(x, shape=shape, lead=lead)
        return self.emit(node, Reshape(target), [x], shape, lead)

    def require_indices(self, node: Node, count: int) -> None:
        """Raises: ResourceLimit if the positions listed so far are too many."""
        self._indices += count
        if self._indices > self.limits.indices:
            raise ResourceLimit(f"node '{node.name}': positions listed so far", str(self.limits.indices))

    def graph(self, output: Value) -> Graph:
        """The graph of the nodes that `output` needs; constants are computed now.

        Raises: InvalidModel if a constant is not finite, or an op refuses its parameters or its inputs' shapes.
        """
        graph = self.made(output)
        for node in graph.nodes[1:]:
            _require_shape(node, [graph.nodes[i].shape for i in node.inputs])
        return graph

    def made(self, output: Value, given: Mapping[int, Array] | None = None) -> Graph:
        """The graph with `given` numbers for some folds (by place) instead of their own; shapes are not looked at.

        Raises: InvalidModel if a constant is not finite, or an op refuses its parameters.
        """
        live = {0, output.step}
        for index in range(output.step, 0, -1):
            if index in live:
                live.update(self.nodes[index].inputs)
        place = {old: new for new, old in enumerate(sorted(live))}
        arrays = self.folding.arrays((c.step for index in place for c in self.nodes[index].parameters), given)
        nodes = [_graph_node(self.nodes[old], [place[i] for i in self.nodes[old].inputs], arrays) for old in place]
        return Graph(tuple(nodes))

    def _folded_op(self, node: Node, make: MakeOp, sources: list[Constant], count: int, shape: Shape) -> Constant:
        """An op over constants: the same mathematics as over variables."""
        shapes = [c.held_shape for c in sources[:count]]

        def compute(*arrays: Array) -> Array:
            inputs = [_held(a.reshape(1, *s)) for a, s in zip(arrays[:count], shapes, strict=True)]
            op, live = make(*arrays[count:]), next((_held(a) for a in arrays if isinstance(a, LiveArray)), None)
            if live is not None:
                value = op.to(live.device, torch.float64).forward(*(x.to(live.device) for x in inputs))
                return as_array(LiveArray(value.reshape(shape)))
            return whole(np.asarray(op.forward(*inputs).reshape(shape).numpy()))

        return self.fold(node, sources, compute, shape, all(c.floating for c in sources[:count]))

    def _require_elements(self, node: Node, shape: Shape) -> None:
        node.require(not shape or min(shape) > 0 or tuple(shape) == (0,), f"its result of shape {list(shape)} is empty")
        self.limits.require_elements(shape, f"node '{node.name}' ({node.operator}): its result")

    def _unique(self, name: str) -> str:
        """The name, numbered if another node has it."""
        unique = name
        while unique in self._names:
            self._names[name] += 1
            unique = f"{name}:{self._names[name]}"
        self._names[unique] = 1
        return unique


def op_of(plan: Plan, step: int) -> tuple[Op | None, int]:
    """The op of a node with one input and small constants, and that input."""
    made = plan.nodes[step]
    known = [c.known for c in made.parameters if c.known is not None and c.known.size <= SMALL]
    if made.make is None or len(made.inputs) != 1 or len(known) < len(made.parameters):
        return None, -1
    try:
        return made.make(*(widened(a) for a in known)), made.inputs[0]
    except InvalidModel:
        return None, -1


def tensor(array: Array) -> torch.Tensor:
    """A parameter of an op, in float64; the array itself where it is one already, the tensor of live numbers."""
    if isinstance(array, LiveArray):
        return array.values
    return torch.from_numpy(np.require(array, np.float64, ["C", "W"]))


def _held(array: Array) -> torch.Tensor:
    """As an input of an op."""
    return array.values if isinstance(array, LiveArray) else torch.from_numpy(array)


def _constants(values: Sequence[Value]) -> list[Constant]:
    return [v for v in values if isinstance(v, Constant)]


def _graph_node(step: Apply, inputs: list[int], arrays: dict[int, Array]) -> GraphNode:
    """The node with its op made.   Raises: InvalidModel naming it if its parameters do not fit or are not finite."""
    if step.make is None:
        return GraphNode(step.name, None, (), step.shape)
    with blamed(step.name, "its parameters do not fit"):
        op = step.make(*(arrays[c.step] for c in step.parameters))
    if not all(v.isfinite().all() for v in vars(op).values() if isinstance(v, torch.Tensor)):
        raise InvalidModel("a parameter computed within the model is nan or infinite", step.name)
    return GraphNode(step.name, op, tuple(inputs), step.shape)


def _require_shape(node: GraphNode, shapes: Sequence[Shape]) -> None:
    """Runs the op on a batch of none.   Raises: InvalidModel if it does not compute the declared shape."""
    assert node.op is not None
    kind = type(node.op).__name__
    inputs = [torch.zeros((0, *shape), dtype=torch.float64) for shape in shapes]
    with blamed(node.name, f"{kind} does not accept shapes {list(shapes)}"):
        result = node.op.forward(*inputs)
    if tuple(result.shape) != (0, *node.shape):
        raise InvalidModel(f"{kind} computes {tuple(result.shape[1:])}, not {node.shape}", node.name)
