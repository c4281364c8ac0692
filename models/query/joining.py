"""One network of a whole query: free inputs in one vector, the terms of its constraints in another.

x [free] float32 -> every model, its inputs gathered from x -> what the terms name, gathered from outputs, hidden
tensors and inputs; powers and products of those -> y [terms]. Models keep their nodes, renamed apart; where one is
declared equal to another, both share its stored tensors. Where all ports are float32 so is y, else float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from provenn.models.operator_names import OPSETS
from provenn.models.query.binding import Implementation, Port
from provenn.verifier.errors import InvalidModel
from provenn.verifier.query.meaning import Layout
from provenn.verifier.query.query import Monomial

INPUT, OUTPUT = "provenn.x", "provenn.y"

STANDARD = ("", "ai.onnx")

IR = 4
"""Oldest version of the format in which stored tensors need not be inputs."""


def joined(implementations: Sequence[Implementation], where: Layout) -> ModelProto:
    """The network of a query.   Raises: InvalidModel for models that cannot stand in one file."""
    plain = all(port.kind == TensorProto.FLOAT for part in implementations for port in part.ports)
    builder = _Builder(where, TensorProto.FLOAT if plain else TensorProto.DOUBLE)
    for place, implementation in enumerate(implementations):
        builder.add(place, implementation)
    builder.finish()
    models = [implementation.model for implementation in implementations]
    graph = helper.make_graph(
        builder.nodes,
        "query",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [where.free])],
        [helper.make_tensor_value_info(OUTPUT, builder.kind, [len(where.terms)])],
        builder.stored,
    )
    opsets = [helper.make_opsetid(domain, version) for domain, version in _opsets(models).items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=max(IR, *(m.ir_version for m in models)))


def _opsets(models: Sequence[ModelProto]) -> dict[str, int]:
    """Operator sets by domain.   Raises: InvalidModel if two models differ, or run functions of their own."""
    found: dict[str, int] = {}
    for model in models:
        if model.functions or model.graph.sparse_initializer or model.training_info:
            raise InvalidModel("functions, sparse tensors and training information are not joined")
        for entry in model.opset_import:
            domain = "" if entry.domain in STANDARD else entry.domain
            if found.setdefault(domain, entry.version) != entry.version:
                raise InvalidModel(
                    f"models of operator sets {found[domain]} and {entry.version} in one query: convert them to one"
                )
    if found.get("") not in OPSETS:
        raise InvalidModel(f"operator set {found.get('')} is not supported")
    return found


@dataclass
class _Builder:
    """Nodes and stored tensors so far, and where the values of declared elements are."""

    where: Layout
    kind: int
    nodes: list[NodeProto] = field(default_factory=list)
    stored: list[TensorProto] = field(default_factory=list)
    _flat: list[tuple[range, str]] = field(default_factory=list)
    _count: int = 0

    def add(self, place: int, implementation: Implementation) -> None:
        """One model: its inputs, its nodes, and its ports flattened."""
        prefix = f"n{place}/"
        model, twin = implementation.model, implementation.twin
        fed = {port.name for port in implementation.inputs}
        shared = prefix if twin is None else f"n{twin}/"
        names = {"": ""}
        for tensor in model.graph.initializer:
            if tensor.name in fed:
                continue
            names[tensor.name] = f"{shared}{tensor.name}"
            if twin is None:
                copy = TensorProto()
                copy.CopyFrom(tensor)
                copy.name = names[tensor.name]
                self.stored.append(copy)
        for port in implementation.inputs:
            names[port.name] = self._fed(f"{prefix}{port.name}", port)
        for node in model.graph.node:
            names |= {name: f"{prefix}{name}" for name in node.output if name}
            copied = NodeProto()
            copied.CopyFrom(node)
            copied.name = f"{prefix}{node.name}" if node.name else ""
            copied.input[:] = [_renamed(names, name) for name in node.input]
            copied.output[:] = [names[name] for name in node.output]
            self.nodes.append(copied)
        for port in implementation.ports:
            self._flat.append((port.elements, self._flattened(_renamed(names, port.name), port)))

    def _fed(self, name: str, port: Port) -> str:
        """An input of a model, gathered from x."""
        columns = [self.where.column[i] for i in port.elements]
        flat = self._gathered(INPUT, columns, self.where.free)
        shaped = self._node("Reshape", [flat, self._integers(port.shape)], None if port.kind != 1 else name)
        return shaped if port.kind == TensorProto.FLOAT else self._node("Cast", [shaped], name, to=port.kind)

    def _flattened(self, name: str, port: Port) -> str:
        """A port's values as a vector of y's element type."""
        if port.kind != self.kind:
            name = self._node("Cast", [name], to=self.kind)
        return self._node("Reshape", [name, self._integers([-1])])

    def finish(self) -> None:
        """The terms: single elements, then powers and products of them, put into the order of the layout."""
        powers = {_powers(monomial): place for monomial, place in self.where.terms.items()}
        singles = list(dict.fromkeys(i for factors in powers for i, _ in factors))
        places = {element: place for place, element in enumerate(singles)}
        base = self._elements(singles)
        direct = {place: places[f[0][0]] for f, place in powers.items() if f[0][1] == 1 and len(f) == 1}
        if len(direct) == len(powers):
            self._final(self._gathered(base, [direct[k] for k in range(len(direct))], len(singles)))
            return
        parts, order = [base], dict(direct)
        for factors, place in powers.items():
            if place not in direct:
                order[place] = len(singles) + len(parts) - 1
                parts.append(self._product(base, [(places[i], power) for i, power in factors], len(singles)))
        together = self._node("Concat", parts, axis=0)
        size = len(singles) + len(parts) - 1
        self._final(self._gathered(together, [order[k] for k in range(len(order))], size))

    def _final(self, name: str) -> None:
        if name not in self._dependent():
            # A network that ignores its input is none: it gets 0 x_0 on top.
            first = self._gathered(INPUT, [0], self.where.free)
            first = first if self.kind == TensorProto.FLOAT else self._node("Cast", [first], to=self.kind)
            nothing = self._node("Mul", [first, self._constant(np.zeros(1, self._numpy))])
            name = self._node("Add", [name, nothing])
        self._node("Reshape", [name, self._integers([-1])], OUTPUT)

    @property
    def _numpy(self) -> type[np.generic]:
        return np.float32 if self.kind == TensorProto.FLOAT else np.float64

    def _dependent(self) -> set[str]:
        """What is computed from x."""
        found = {INPUT}
        for node in self.nodes:
            if node.op_type not in ("Shape", "Size") and found.intersection(node.input):
                found.update(node.output)
        return found

    def _elements(self, elements: Sequence[int]) -> str:
        """The values of these elements as a vector."""
        parts: list[str] = []
        order: dict[int, int] = {}
        taken = 0
        for span, name in self._flat:
            inside = [i for i in elements if i in span]
            if inside:
                parts.append(self._gathered(name, [i - span.start for i in inside], len(span)))
                order |= {i: taken + k for k, i in enumerate(inside)}
                taken += len(inside)
        together = parts[0] if len(parts) == 1 else self._node("Concat", parts, axis=0)
        return self._gathered(together, [order[i] for i in elements], taken)

    def _product(self, base: str, factors: Sequence[tuple[int, int]], size: int) -> str:
        """The product of powers of places of a vector, [1]."""
        product = ""
        for place, power in factors:
            value = self._gathered(base, [place], size)
            if power > 1:
                value = self._node("Pow", [value, self._constant(np.array([power], self._numpy))])
            product = self._node("Mul", [product, value]) if product else value
        return product

    def _gathered(self, name: str, indices: Sequence[int], size: int) -> str:
        """The elements at `indices` of a vector of `size`; itself where that is all of it in order."""
        if list(indices) == list(range(size)):
            return name
        return self._node("Gather", [name, self._integers(indices)], axis=0)

    def _integers(self, values: Sequence[int]) -> str:
        return self._constant(np.array(values, np.int64))

    def _constant(self, array: np.ndarray) -> str:
        name = self._fresh()
        self.stored.append(numpy_helper.from_array(array, name))
        return name

    def _node(self, operator: str, inputs: Sequence[str], output: str | None = None, **attributes: Any) -> str:
        name = output or self._fresh()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def _fresh(self) -> str:
        self._count += 1
        return f"provenn.{self._count}"


def _renamed(names: dict[str, str], name: str) -> str:
    if name not in names:
        raise InvalidModel(f"'{name}' is read before anything computes it")
    return names[name]


def _powers(monomial: Monomial) -> tuple[tuple[int, int], ...]:
    """(element, power) of every factor."""
    return tuple((i, monomial.count(i)) for i in dict.fromkeys(monomial))


def serialised(model: ModelProto) -> bytes:
    """Its bytes.   Raises: InvalidModel if ONNX's checker refuses it."""
    content: bytes = model.SerializeToString()
    try:
        onnx.checker.check_model(content)
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        raise InvalidModel(f"the models cannot be joined: {str(error).strip()[:300]}") from error
    return content
