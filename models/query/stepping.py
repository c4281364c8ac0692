"""Choices, comparisons and casts to whole numbers and truth values, written with steps.

The readers refuse choices by computed values that jump. Over reals they are exactly (0 and 1 stand for truth values)

    a > b          relu(sign(a - b))          a == b             1 - |sign(a - b)|
    not p          1 - p                      p and q, p or q    p q, max(p, q)
    where(p, x, y) p x + (1 - p) y            bool(x)            |sign(x)|
    int(x)         floor(relu(x)) - floor(relu(-x))

so a network that is refused is written so and read again. Whole numbers stay floats then. int(x) means that only where
x is in range: every x that is cast becomes an output, which a proof has to bound by RANGE. Afterwards whole numbers
are only moved, negated and added, to constants in RANGE or to each other, at most SUMS times: 32 bits hold them.

Roundings can take computed values across a jump. So what is compared becomes an output too, a - b, which a proof has to
keep GAP away from 0; only values that undergo no rounding between the input and the jump are taken at their word, and
only such values are cast to whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, TensorShapeProto, ValueInfoProto, helper, numpy_helper

from provenn.verifier.errors import InvalidModel, UnsupportedOp
from provenn.verifier.query.meaning import Watched

Shape = tuple[int, ...]

RANGE, SUMS, WATCHED = 2**20, 8, 4096
"""Largest number that is cast to a whole one; how many sums of whole numbers, and how many outputs there may be."""

GAP = Fraction(1, 1024)
"""How far apart computed values are that a proof takes to be different."""

FLOATS = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE})
WHOLE = frozenset({TensorProto.INT64, TensorProto.INT32, TensorProto.BOOL})
"""Element types that are written with steps where they are computed from the input."""

MOVES = frozenset(
    {"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Gather", "Slice", "Expand", "Concat"}
)
"""Operators that leave numbers as they are."""

EXACT = MOVES | {"Neg", "Abs", "Relu", "Max", "Min", "Floor", "Ceil", "Sign", "Greater", "Less", "GreaterOrEqual",
                 "LessOrEqual", "Equal", "Not", "And", "Or", "Xor", "Where"}  # fmt: skip
"""Operators that round nothing."""

COMPARISONS = {"Greater": (0, 1, False), "Less": (1, 0, False), "GreaterOrEqual": (1, 0, True),
               "LessOrEqual": (0, 1, True)}  # fmt: skip
"""Operator -> which operand must be larger than which, and whether the answer is the opposite."""


@dataclass(frozen=True, eq=False)
class Stepped:
    """The model written with steps, and what a proof must watch besides: outputs that follow its own."""

    model: ModelProto
    watched: Watched


def written_with_steps(model: ModelProto) -> Stepped:
    """The same function over reals.   Raises: UnsupportedOp for operators on whole numbers that are not written so."""
    try:
        known = onnx.shape_inference.infer_shapes(model)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InvalidModel(f"ONNX cannot infer the element types: {str(error)[:300]}") from error
    values = {v.name: v.type.tensor_type for g in (known.graph,) for v in (*g.value_info, *g.input, *g.output)}
    writer = _Writer({name: kind.elem_type for name, kind in values.items()})
    writer.sizes.update((name, _extents(kind.shape)) for name, kind in values.items() if _fixed(kind.shape))
    for tensor in model.graph.initializer:
        writer.keep(tensor.name, tensor)
    writer.computed.update(value.name for value in model.graph.input)
    writer.exact.update(value.name for value in model.graph.input)
    for index, node in enumerate(model.graph.node):
        writer.add(node, node.name or f"{node.op_type}_{index}")
    ranged, apart = sum(prod(writer.sizes[name]) for name in writer.ranged), sum(size for _, size in writer.apart)
    if ranged + apart > WATCHED:
        raise UnsupportedOp("query", "Where", f"more than {WATCHED} jumps")
    changed = ModelProto()
    changed.CopyFrom(model)
    if ranged + apart:
        writer.append(changed.graph.output[0])
        changed.graph.output[0].type.tensor_type.shape.dim[0].dim_value += ranged + apart
    del changed.graph.node[:]
    changed.graph.node.extend(writer.nodes)
    changed.graph.initializer.extend(writer.stored)
    return Stepped(changed, Watched(ranged, apart, Fraction(RANGE), GAP))


def _fixed(shape: TensorShapeProto) -> bool:
    return all(axis.HasField("dim_value") for axis in shape.dim)


def _extents(shape: TensorShapeProto) -> Shape:
    return tuple(axis.dim_value for axis in shape.dim)


@dataclass
class _Writer:
    """Nodes so far. kinds: element types of the values; sizes: shapes, where known.

    computed: values that depend on the input; exact: those of them that no rounding has touched; ranged, apart: what is
    to be watched, the latter with its number of elements.
    """

    kinds: dict[str, int]
    nodes: list[NodeProto] = field(default_factory=list)
    stored: list[TensorProto] = field(default_factory=list)
    ranged: list[str] = field(default_factory=list)
    apart: list[tuple[str, int]] = field(default_factory=list)
    computed: set[str] = field(default_factory=set)
    exact: set[str] = field(default_factory=set)
    sizes: dict[str, Shape] = field(default_factory=dict)
    _small: set[str] = field(default_factory=set)
    _count: int = 0
    _sums: int = 0

    def keep(self, name: str, tensor: TensorProto) -> None:
        """Takes note of a stored tensor."""
        self.kinds[name] = tensor.data_type
        if tensor.data_type in WHOLE and prod(tensor.dims) <= WATCHED:
            values = numpy_helper.to_array(tensor).astype(np.float64)
            self._small.update({name} if np.abs(values).max(initial=0.0) <= RANGE else ())

    def append(self, output: ValueInfoProto) -> None:
        """Puts what must be in range behind the model's output."""
        own = self._fresh()
        for node in self.nodes:
            node.output[:] = [own if name == output.name else name for name in node.output]
        flat = self._stored(np.array([-1], np.int64))
        kind = output.type.tensor_type.elem_type
        more = [
            self._node("Cast", [self._node("Reshape", [name, flat])], to=kind)
            for name in (*self.ranged, *(n for n, _ in self.apart))
        ]
        self._node("Concat", [own, *more], output.name, axis=0)

    def add(self, node: NodeProto, name: str) -> None:
        """One node: as it is, or with steps where whole numbers or truth values are computed from the input."""
        depends = node.op_type not in ("Shape", "Size") and any(i in self.computed for i in node.input)
        if not depends:
            self.nodes.append(node)
            for value in (a.t for a in node.attribute if a.name == "value" and node.op_type == "Constant"):
                self.keep(node.output[0], value)
            return
        self.computed.update(filter(None, node.output))
        if self._rounds_nothing(node):
            self.exact.update(filter(None, node.output))
        values = (*node.output, *(i for i in node.input if i in self.computed))
        touched = any(self.kinds.get(value) in WHOLE for value in values)
        if not touched and node.op_type != "Where":
            self.nodes.append(node)
            return
        write: Callable[[NodeProto], None] | None = {
            **dict.fromkeys(COMPARISONS, self._comparison),
            **dict.fromkeys(MOVES, self._moved),
            **dict.fromkeys(("Add", "Sub", "Neg"), self._sum),
            **dict.fromkeys(("Not", "And", "Or", "Xor"), self._logic),
            "Cast": self._cast,
            "Equal": self._equal,
            "Where": self._where,
        }.get(node.op_type)
        if write is None:
            raise UnsupportedOp(name, node.op_type, "whole numbers or truth values computed from the input")
        write(node)

    def _rounds_nothing(self, node: NodeProto) -> bool:
        """Whether its result is exact because its operands are; a cast to fewer digits is not."""
        known = node.op_type in EXACT or (node.op_type == "Cast" and self._keeps_digits(node))
        return known and all(name in self.exact or name not in self.computed for name in node.input)

    def _keeps_digits(self, node: NodeProto) -> bool:
        target = next((a.i for a in node.attribute if a.name == "to"), 0)
        return target in WHOLE or target == TensorProto.DOUBLE or self.kinds.get(node.input[0]) != TensorProto.DOUBLE

    def _sign(self, a: str, b: str, node: NodeProto) -> str:
        """sign(a - b), which is watched where a or b is rounded."""
        gap = self._node("Sub", [a, b])
        if not all(name in self.exact or name not in self.computed for name in node.input):
            shape = self.sizes.get(node.output[0])
            if shape is None:
                raise InvalidModel("ONNX cannot infer the shape of what is compared", node.name)
            self.apart.append((gap, prod(shape)))
        return self._node("Sign", [gap])

    def _comparison(self, node: NodeProto) -> None:
        larger, smaller, opposite = COMPARISONS[node.op_type]
        a, b = self._numbers(node.input[larger]), self._numbers(node.input[smaller])
        sign = self._sign(a, b, node)
        if opposite:
            self._node("Sub", [self._number(1.0, a), self._node("Relu", [sign])], node.output[0])
        else:
            self._node("Relu", [sign], node.output[0])

    def _equal(self, node: NodeProto) -> None:
        a, b = (self._numbers(name) for name in node.input)
        differs = self._node("Abs", [self._sign(a, b, node)])
        self._node("Sub", [self._number(1.0, a), differs], node.output[0])

    def _logic(self, node: NodeProto) -> None:
        parts = [self._numbers(name) for name in node.input]
        match node.op_type:
            case "Not":
                self._node("Sub", [self._number(1.0, parts[0]), parts[0]], node.output[0])
            case "And":
                self._node("Mul", parts, node.output[0])
            case "Or":
                self._node("Max", parts, node.output[0])
            case "Xor":
                self._node("Abs", [self._node("Sub", parts)], node.output[0])

    def _where(self, node: NodeProto) -> None:
        condition, x, y = node.input
        x, y = self._numbers(x), self._numbers(y)
        if condition not in self.computed:
            self._copied(node, [condition, x, y])
            return
        first = self._node("Mul", [condition, x])
        second = self._node("Mul", [self._node("Sub", [self._number(1.0, x), condition]), y])
        self._node("Add", [first, second], node.output[0])

    def _cast(self, node: NodeProto) -> None:
        (source,), (target,) = node.input, [a.i for a in node.attribute if a.name == "to"]
        kind = self.kinds.get(source)
        if target in FLOATS:
            self._node("Cast", [source], node.output[0], to=target)
        elif kind == target or (kind in WHOLE and target != TensorProto.BOOL):
            self._node("Identity", [source], node.output[0])
        elif target == TensorProto.BOOL:
            self._node("Abs", [self._sign(source, self._number(0.0, source), node)], node.output[0])
        elif source not in self.exact:
            raise UnsupportedOp(node.name, "Cast", "values that were rounded, cast to whole numbers")
        elif kind in FLOATS and target in (TensorProto.INT64, TensorProto.INT32):
            if source not in self.sizes:
                raise InvalidModel("ONNX cannot infer the shape of what is cast to whole numbers", node.name)
            self.ranged.append(source)
            up = self._node("Floor", [self._node("Relu", [source])])
            down = self._node("Floor", [self._node("Relu", [self._node("Neg", [source])])])
            self._node("Sub", [up, down], node.output[0])
        else:
            raise UnsupportedOp(node.name, "Cast", "a cast between these element types")

    def _moved(self, node: NodeProto) -> None:
        count = len(node.input) if node.op_type == "Concat" else 1
        self._copied(node, [*map(self._numbers, node.input[:count]), *node.input[count:]])

    def _sum(self, node: NodeProto) -> None:
        self._sums += 1
        if self._sums > SUMS:
            raise UnsupportedOp(node.name, node.op_type, f"more than {SUMS} sums of whole numbers")
        if not all(name in self.computed or name in self._small for name in node.input):
            raise UnsupportedOp(node.name, node.op_type, f"whole numbers that are not known to be {RANGE} at most")
        self._copied(node, [self._numbers(name) for name in node.input])

    def _copied(self, node: NodeProto, inputs: Sequence[str]) -> None:
        """The node with other inputs."""
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = inputs
        self.nodes.append(copy)

    def _numbers(self, name: str) -> str:
        """The value as floats: stored whole numbers are cast."""
        if name in self.computed or self.kinds.get(name) in FLOATS:
            return name
        if self.kinds.get(name) not in WHOLE:
            raise UnsupportedOp(name, "Cast", "a constant of another element type beside a computed one")
        return self._node("Cast", [name], to=TensorProto.FLOAT)

    def _number(self, value: float, like: str) -> str:
        """A stored number of the type of `like`, float32 where that is none of floats."""
        kind = np.float64 if self.kinds.get(like) == TensorProto.DOUBLE else np.float32
        return self._stored(np.array(value, kind))

    def _stored(self, array: np.ndarray) -> str:
        name = self._fresh()
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or self._fresh()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        self.computed.update({name} if any(i in self.computed for i in inputs) else ())
        return name

    def _fresh(self) -> str:
        self._count += 1
        return f"provenn.step.{self._count}"
