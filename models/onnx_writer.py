"""ONNX written node by node, every shape known: what torch files become (pt2, weights). Loads no torch."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, prod
from typing import Any, NoReturn

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel, ResourceLimit

OPSET, IR = 20, 10
BATCH = "batch"
"""The length of axis 0 where it is not known: every other axis of every value has a fixed one."""

Extent = int | str
Extents = tuple[Extent, ...]
Array = NDArray[Any]

FLOATS = {np.dtype(np.float32): onnx.TensorProto.FLOAT, np.dtype(np.float64): onnx.TensorProto.DOUBLE}
NAME = 100
"""Characters of a name that are kept."""

RANK = 16
"""Axes of a value."""


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor: its name, lengths of its axes (BATCH on axis 0 at most) and type; `numbers` [*shape] if constant."""

    name: str
    shape: Extents
    type: np.dtype[Any]
    numbers: Array | None = None

    @property
    def each(self) -> int:
        """Elements at batch 1."""
        return elements(self.shape)


def elements(shape: Iterable[Extent]) -> int:
    """How many at batch 1."""
    return prod(n for n in shape if isinstance(n, int))


def shown(shape: Iterable[Extent]) -> str:
    """The shape in a message."""
    return f"[{', '.join(map(str, shape))}]"


class Writer:
    """A graph of one input, of one float type, that grows node by node; `where` is the part of the source being read.

    Every method raises InvalidModel, naming `where`, if shapes or types do not fit; ResourceLimit beyond the limits.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.where: str | None = None
        self._nodes: list[NodeProto] = []
        self._inputs: list[Value] = []
        self._stored: dict[int, tuple[str, Array]] = {}  # by identity of the array
        self._bytes = self._numbers = 0
        self._taken: set[str] = set()
        self._numbered = 0

    def refuse(self, message: str) -> NoReturn:
        """Raises: InvalidModel, about the present part of the source."""
        raise InvalidModel(message, self.where)

    def require(self, condition: object, message: str) -> None:
        """Raises: InvalidModel unless the condition holds."""
        if not condition:
            self.refuse(message)

    def sound(self, shape: Extents) -> None:
        """Raises: unless a value may have this shape."""
        self.require(len(shape) <= RANK, f"a value with {len(shape)} axes; at most {RANK} are read")
        self.require(BATCH not in shape[1:], f"shape {shown(shape)}: the batch would leave axis 0")
        self.require(all(isinstance(n, str) or n > 0 for n in shape), f"shape {shown(shape)}: an axis is empty")
        self.limits.require_elements((n for n in shape if isinstance(n, int)), self.where or "a constant")

    def input(self, name: str, shape: Extents, type: np.dtype[Any]) -> Value:
        """The network's input."""
        self.sound(shape)
        self._inputs.append(Value(self._fresh(name), shape, type))
        return self._inputs[-1]

    def constant(self, numbers: Array, name: str = "constant") -> Value:
        """Numbers, written to the file if a node that matters reads them."""
        self.sound(numbers.shape)
        self._numbers += numbers.size
        if self._numbers > self.limits.folded:
            raise ResourceLimit("what the constants hold, each as often as it is rearranged", f"{self.limits.folded}")
        return Value(name, numbers.shape, numbers.dtype, numbers)

    def scalar(self, number: float, like: Value) -> Value:
        """One number in the type of another value, as torch takes a Python number.   Raises: if it is not finite."""
        with np.errstate(over="ignore"):
            rounded = np.asarray(float(number)).astype(like.type)
        self.require(isfinite(rounded), f"the number {number} is not a finite one of type {like.type}")
        return self.constant(rounded, "number")

    def integers(self, numbers: Sequence[int]) -> Value:
        """A list of positions, axes or lengths."""
        self.require(all(abs(n) < 2**63 for n in numbers), "a whole number is beyond 64 bits")
        return Value("integers", (len(numbers),), np.dtype(np.int64), np.array(numbers, np.int64))

    def node(self, operator: str, inputs: Sequence[Value | None], shape: Extents, **attributes: Any) -> Value:
        """One more node; its first output, of that shape, in the type of its float inputs."""
        self.sound(shape)
        types = {v.type for v in inputs if v is not None and v.type.kind == "f"}
        self.require(len(types) == 1, f"{operator} would mix {' and '.join(sorted(map(str, types))) or 'no floats'}")
        (type,) = types
        self.require(type in FLOATS, f"it computes in {type}; only float32 and float64 are read: call module.float()")
        return self._add(operator, inputs, Value(self._fresh(self.where or operator.lower()), shape, type), attributes)

    def cast(self, x: Value, type: np.dtype[Any]) -> Value:
        """The same numbers as float32 or float64."""
        return self._add("Cast", [x], Value(self._fresh(self.where or "cast"), x.shape, type), {"to": FLOATS[type]})

    def batch(self, like: Value) -> Value:
        """The batch's length, int64 [1]."""
        value = Value(self._fresh("batch"), (1,), np.dtype(np.int64))
        return self._add("Shape", [like], value, {"start": 0, "end": 1})

    def lengths(self, parts: Sequence[Value]) -> Value:
        """Lists of lengths, one after the other: int64."""
        value = Value(self._fresh("lengths"), (sum(p.each for p in parts),), np.dtype(np.int64))
        return self._add("Concat", parts, value, {"axis": 0})

    def broadcast(self, *shapes: Extents) -> Extents:
        """The shape of an elementwise operation."""
        rank = max(map(len, shapes))
        padded = [(1,) * (rank - len(s)) + s for s in shapes]
        axes = [{n for n in extents if n != 1} or {1} for extents in zip(*padded, strict=True)]
        self.require(all(len(n) == 1 for n in axes), f"shapes {', '.join(map(shown, shapes))} do not fit together")
        return tuple(n for extents in axes for n in extents)

    def axis(self, axis: int, rank: int) -> int:
        """The axis, counted from the front."""
        self.require(-rank <= axis < rank, f"axis {axis} of a value with {rank} axes")
        return axis % rank

    def axes(self, axes: Sequence[int], rank: int) -> list[int]:
        """Different axes, counted from the front, in rising order."""
        found = {self.axis(axis, rank) for axis in axes}
        self.require(len(found) == len(axes), f"an axis is named twice in {list(axes)[:8]}")
        return sorted(found)

    def within(self, x: Value, axis: int) -> int:
        """The length of an axis that an operation may run along: the batch it may not."""
        extent = x.shape[axis]
        if isinstance(extent, str):
            self.refuse("it runs along the batch; inputs of one batch must not meet")
        return extent

    def model(self, output: Value) -> bytes:
        """The file that computes this value.   Raises: InvalidModel if it is constant."""
        if output.numbers is not None:
            raise InvalidModel("the output does not depend on the input; there is nothing to verify")
        if output in self._inputs:
            output = self.node("Identity", [output], output.shape)
        nodes = self._leading_to(output)
        read = {name for node in nodes for name in node.input}
        stored = [numpy_helper.from_array(np.ascontiguousarray(a).reshape(a.shape), n)
                  for n, a in self._stored.values() if n in read]  # fmt: skip
        inputs, outputs = ([_declared(v) for v in values] for values in (self._inputs, [output]))
        graph = helper.make_graph(nodes, "network", inputs, outputs, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
        data: bytes = model.SerializeToString()
        self.limits.require_bytes(len(data), "the network as an ONNX file")
        return data

    def _add(self, operator: str, inputs: Sequence[Value | None], value: Value, attributes: dict[str, Any]) -> Value:
        names = ["" if v is None else v.name if v.numbers is None else self._store(v) for v in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = [value.name, self._fresh(f"{value.name}.places")] if operator == "TopK" else [value.name]
        self._nodes.append(helper.make_node(operator, names, outputs, value.name, **attributes))
        self.limits.require_nodes(len(self._nodes))
        return value

    def _store(self, value: Value) -> str:
        assert value.numbers is not None
        if id(value.numbers) not in self._stored:
            self._bytes += value.numbers.nbytes
            self.limits.require_bytes(self._bytes, "the constants of the network")
            self._stored[id(value.numbers)] = (self._fresh(value.name), value.numbers)
        return self._stored[id(value.numbers)][0]

    def _fresh(self, name: str) -> str:
        """The name in plain characters, with a number if it is taken."""
        first = found = re.sub(r"[^\w./:-]", "_", name, flags=re.ASCII)[:NAME] or "value"
        while found in self._taken:
            self._numbered += 1  # never again: however names are chosen, all together take few turns
            found = f"{first}.{self._numbered}"
        self._taken.add(found)
        return found

    def _leading_to(self, output: Value) -> list[NodeProto]:
        """The nodes that the output depends on, in order."""
        needed, kept = {output.name}, []
        for node in reversed(self._nodes):
            if node.output[0] in needed:
                needed.update(node.input)
                kept.append(node)
        return kept[::-1]


def _declared(value: Value) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(value.name, FLOATS[value.type], list(value.shape))
