"""Declared networks and the ONNX files that implement them: counts, element types and shapes must fit.

Source: the VNN-LIB standard 2.0, sections 3.3.3 (what fits) and 5.3.2 (what must be an error).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx
from onnx import ModelProto, TensorProto, ValueInfoProto

from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decoded, decompressed
from provenn.models.tensors import type_name
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.query.query import Network, Query, Tensor
from provenn.verifier.query.vnnlib1 import is_vnnlib1, require_counts

Shape = tuple[int, ...]

SOUND = {"real": None, "float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE,
         "int64": TensorProto.INT64, "int32": TensorProto.INT32}  # fmt: skip
"""Declared element types that are answered, and ONNX's number of each; `real` accepts a model of any."""

REAL = frozenset({TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.INT64, TensorProto.INT32})
"""What a model may hold where the declaration says `real`."""


NARROW = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
"""Floats that a float64 is rounded to."""


@dataclass(frozen=True)
class Port:
    """A tensor of a model that declared elements stand for. kind: ONNX's element type; shape: without symbols."""

    name: str
    kind: int
    shape: Shape
    elements: range


Ports = tuple[tuple[Port, ...], tuple[Port, ...], tuple[Port, ...]]


@dataclass(frozen=True, eq=False)
class Implementation:
    """A declared network's model and its ports: of inputs, hidden tensors and outputs.

    twin: the place of an earlier network that has the same model, or None.
    """

    network: Network
    model: ModelProto
    fitted: Ports
    twin: int | None = None

    @property
    def inputs(self) -> tuple[Port, ...]:
        """Those of inputs."""
        return self.fitted[0]

    @property
    def computed(self) -> tuple[Port, ...]:
        """Those of hidden tensors and outputs."""
        return (*self.fitted[1], *self.fitted[2])

    @property
    def hidden(self) -> tuple[Port, ...]:
        """Those of hidden tensors."""
        return self.fitted[1]

    @property
    def rounding(self) -> str | None:
        """What its model rounds to a narrower float, where float64 is declared; None for nothing."""
        if all(tensor.dtype != "float64" for tensor in self.network.tensors):
            return None
        narrowing = [node for node in self.model.graph.node if node.op_type in ("Cast", "CastLike")]
        kinds = {name: {a.i for a in n.attribute if a.name == "to"} for n in narrowing for name in n.output}
        return next((name for name, kind in kinds.items() if not kind or kind & NARROW), None)

    @property
    def ports(self) -> tuple[Port, ...]:
        """All of them, in the order of declaration."""
        return (*self.inputs, *self.computed)


def bind(query: Query, files: Mapping[str, bytes]) -> tuple[Implementation, ...]:
    """One implementation a declared network. files: ONNX files (gzip or not) by network name; for VNN-LIB 1.0 one.

    Raises: InvalidSpecification if files are missing or too many, or a declaration does not fit its model;
    InvalidModel, ResourceLimit.
    """
    _require_sound(query)
    models = _models(query, files)
    found: list[Implementation] = []
    places = {network.name: place for place, network in enumerate(query.networks)}
    for network in query.networks:
        same = network.equal_to
        model = models[same or network.name]
        read = _fitted_old(query, network, model) if is_vnnlib1(query) else _fitted(network, model)
        twin = None if same is None else places[same]
        found.append(Implementation(network, model, read, twin))
        if network.isomorphic_to is not None:
            _require_isomorphic(network, model, models[network.isomorphic_to])
    return tuple(found)


def _require_sound(query: Query) -> None:
    """Raises: InvalidSpecification for an element type about which nothing can be said soundly."""
    for tensor in query.tensors:
        if tensor.dtype not in SOUND:
            raise InvalidSpecification(
                f"tensor '{tensor.name}' is declared {tensor.dtype}: no sound analysis of this element type is known "
                f"here; sound: {', '.join(SOUND)}. Declared real, its model is read as one over the real numbers",
                tensor.line,
            )


def _models(query: Query, files: Mapping[str, bytes]) -> dict[str, ModelProto]:
    """The models of all networks that need one.   Raises: InvalidSpecification if other ones are given."""
    own = {network.name: network.equal_to for network in query.networks}
    lines = {network.name: network.line for network in query.networks}
    if is_vnnlib1(query):
        if len(files) != 1:
            raise InvalidSpecification(f"VNN-LIB 1.0 speaks of one network, {len(files)} model files are given")
        files = dict.fromkeys(own, next(iter(files.values())))
    for name, same in own.items():
        if same is None and name not in files:
            raise InvalidSpecification(f"network '{name}' is declared, but no model file is given for it", lines[name])
        if same is not None and name in files:
            reason = f"network '{name}' is declared equal to '{same}': it takes no file of its own"
            raise InvalidSpecification(reason, lines[name])
    for name in files:
        if name not in own:
            raise InvalidSpecification(f"a model file is given for '{name}', which the query does not declare")
    return {name: _model(name, data) for name, data in files.items()}


def _model(name: str, data: bytes) -> ModelProto:
    limits = Limits()
    try:
        return decoded(decompressed(data, limits), limits)
    except InvalidModel as error:
        raise InvalidModel(f"the model file of network '{name}': {error}") from None


def _fitted(network: Network, model: ModelProto) -> Ports:
    """Input, hidden and output ports.   Raises: InvalidSpecification where a declaration does not fit."""
    given = _inputs(model, len(network.inputs))
    for what, declared, found in (("inputs", network.inputs, given), ("outputs", network.outputs, model.graph.output)):
        if len(declared) != len(found):
            names = ", ".join(f"'{value.name}'" for value in list(found)[:5])
            raise InvalidSpecification(
                f"network '{network.name}' declares {len(declared)} {what}, its model has {len(found)} ({names})",
                network.line,
            )
    pairs = zip(network.inputs, given, strict=True)
    inputs = tuple(_port(network, tensor, value) for tensor, value in pairs)
    pairs = zip(network.outputs, model.graph.output, strict=True)
    outputs = tuple(_port(network, tensor, value) for tensor, value in pairs)
    known = _inferred(model, inputs) if network.hidden else {}
    hidden = tuple(_port(network, tensor, _node_output(network, tensor, model, known)) for tensor in network.hidden)
    return inputs, hidden, outputs


def _fitted_old(query: Query, network: Network, model: ModelProto) -> Ports:
    """Ports for VNN-LIB 1.0: X runs through the model's inputs, Y through its outputs, in the order of the file."""
    stored = {tensor.name for tensor in model.graph.initializer}
    parts: list[tuple[Port, ...]] = []
    given = [value for value in model.graph.input if value.name not in stored]
    sizes = [[prod(_at_batch_one(value)) for value in values] for values in (given, model.graph.output)]
    require_counts(query, sum(sizes[0]), sum(sizes[1]))
    for tensor, values in ((network.inputs[0], given), (network.outputs[0], model.graph.output)):
        start, ports = tensor.start, []
        for value in values:
            shape = _at_batch_one(value)
            ports.append(Port(value.name, value.type.tensor_type.elem_type, shape, range(start, start + prod(shape))))
            start += prod(shape)
        parts.append(tuple(ports))
    return parts[0], (), parts[1]


def _inputs(model: ModelProto, declared: int) -> list[ValueInfoProto]:
    """The model's inputs; stored ones count where the declaration counts them (the standard says that it must)."""
    stored = {tensor.name for tensor in model.graph.initializer}
    values = list(model.graph.input)
    return values if len(values) == declared else [value for value in values if value.name not in stored]


def _port(network: Network, tensor: Tensor, value: ValueInfoProto) -> Port:
    """The tensor fitted to a value of the model.   Raises: InvalidSpecification naming the declaration."""
    where = f"{tensor.role} '{tensor.name}' of network '{network.name}'"
    kind, wanted = value.type.tensor_type.elem_type, SOUND[tensor.dtype]
    held = f"'{value.name}' of its model holds {type_name(kind)}"
    if wanted is not None and kind != wanted:
        raise InvalidSpecification(f"{where} is declared {tensor.dtype}, but {held}", tensor.line)
    if kind not in REAL:
        raise InvalidSpecification(f"{where}: {held}, which is not read", tensor.line)
    shape = tensor.shape or ()
    dims = [d.dim_value if d.HasField("dim_value") else None for d in value.type.tensor_type.shape.dim]
    known = value.type.tensor_type.HasField("shape")
    if known and (len(dims) != len(shape) or any(d not in (None, n) for d, n in zip(dims, shape, strict=True))):
        found = ", ".join("?" if d is None else str(d) for d in dims)
        raise InvalidSpecification(
            f"{where} is declared with shape {list(shape)}, but '{value.name}' of its model has [{found}]",
            tensor.line,
        )
    return Port(value.name, kind, shape, tensor.elements)


def _at_batch_one(value: ValueInfoProto) -> Shape:
    """The shape with a first axis that is not fixed taken as 1.   Raises: InvalidModel for any other such axis."""
    dims = value.type.tensor_type.shape.dim
    shape = [d.dim_value if d.HasField("dim_value") else 1 if axis == 0 else -1 for axis, d in enumerate(dims)]
    if not value.type.tensor_type.HasField("shape") or min(shape, default=1) < 1:
        raise InvalidModel(f"'{value.name}' has no fixed shape")
    return tuple(shape)


def _inferred(model: ModelProto, inputs: Sequence[Port]) -> dict[str, ValueInfoProto]:
    """Element types and shapes of every value, as far as ONNX infers them from the inputs' shapes."""
    copy = ModelProto()
    copy.CopyFrom(model)
    for value in copy.graph.input:
        for port in inputs:
            if port.name == value.name:
                value.CopyFrom(onnx.helper.make_tensor_value_info(port.name, port.kind, port.shape))
    try:
        copy = onnx.shape_inference.infer_shapes(copy)
    except (onnx.shape_inference.InferenceError, RuntimeError) as error:
        raise InvalidModel(f"ONNX cannot infer the shapes within the model: {str(error)[:300]}") from error
    return {value.name: value for value in (*copy.graph.value_info, *copy.graph.output)}


def _node_output(
    network: Network, tensor: Tensor, model: ModelProto, known: Mapping[str, ValueInfoProto]
) -> ValueInfoProto:
    """The value that a hidden tensor names: an output of a node, or the only output of the node of that name."""
    outputs = {name for node in model.graph.node for name in node.output if name}
    name = tensor.node or ""
    if name not in outputs:
        named = [node.output[0] for node in model.graph.node if node.name == name and len(node.output) == 1]
        if len(named) != 1:
            raise InvalidSpecification(
                f"hidden '{tensor.name}' of network '{network.name}': no node of its model computes '{name}'",
                tensor.line,
            )
        name = named[0]
    if name not in known or not known[name].type.HasField("tensor_type"):
        raise InvalidModel(f"hidden '{tensor.name}': the element type of '{name}' cannot be inferred")
    return known[name]


def _require_isomorphic(network: Network, model: ModelProto, other: ModelProto) -> None:
    """Raises: InvalidSpecification unless both graphs have the same operators, connected alike, in the same order."""
    if _structure(model) != _structure(other):
        raise InvalidSpecification(
            f"network '{network.name}' is declared isomorphic to '{network.isomorphic_to}', but the graph of its model "
            "is another one",
            network.line,
        )


def _structure(model: ModelProto) -> list[tuple[str, str, tuple[int, ...], int]]:
    """(domain, operator, where each input comes from, outputs) of every node; stored tensors count from -2 down."""
    order = {value.name: place for place, value in enumerate(model.graph.input)}
    order |= {tensor.name: -2 - place for place, tensor in enumerate(model.graph.initializer)} | {"": -1}
    found = []
    for node in model.graph.node:
        sources = tuple(order.get(name, -1) for name in node.input)
        found.append((node.domain, node.op_type, sources, len(node.output)))
        order |= {name: len(order) + place for place, name in enumerate(node.output)}
    return found
