"""The program of a .pt2 file: its JSON as a list of calls, every field accounted for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from provenn.models.onnx_writer import BATCH, RANK, Extents
from provenn.models.pt2 import fields
from provenn.models.pt2.archive import ADVICE
from provenn.verifier.errors import InvalidModel

SCHEMA = 8
"""Major version of torch's schema (torch/_export/serde/schema.py); minor ones add fields, which are refused by name."""

STRIDED = 7
META = {"dtype", "sizes", "requires_grad", "device", "strides", "storage_offset", "layout"}
GRAPH = {"inputs", "outputs", "nodes", "tensor_values", "sym_int_values", "sym_bool_values"}
EMPTY = ("sym_bool_values", "custom_obj_values", "sym_float_values")
STORED = {"parameter": "parameter_name", "buffer": "buffer_name", "tensor_constant": "tensor_constant_name"}

MUTATIONS = ("buffer_mutation", "parameter_mutation", "user_input_mutation")


@dataclass(frozen=True)
class Meta:
    """What the file says of a tensor: torch's number of its type, its shape, and how it lies in its bytes."""

    type: int
    shape: Extents
    strides: tuple[int, ...]
    offset: int


@dataclass(frozen=True)
class Node:
    """A call of an operator: arguments by name, each a (kind, JSON value); names of its results, in order."""

    name: str
    target: str
    arguments: dict[str, tuple[str, Any]]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Stored:
    """A graph's input that the file holds: its name there, and whether among the constants (or the weights)."""

    input: str
    name: str
    constant: bool


@dataclass(frozen=True)
class Program:
    """One input and one output by name, stored tensors, calls, and what the file says of every tensor and symbol."""

    input: str
    output: str
    stored: tuple[Stored, ...]
    nodes: tuple[Node, ...]
    tensors: dict[str, Meta]
    symbols: frozenset[str]
    """Names of the integers that stand for the batch."""


def read(text: bytes) -> Program:
    """The program.   Raises: InvalidModel naming the field, and what to do."""
    top = fields.members(
        fields.parsed(text, "the program"),
        "the program",
        {"graph_module", "opset_version", "range_constraints", "schema_version"},
        {"verifiers", "torch_version", "guards_code"},
    )
    version = fields.members(top["schema_version"], "schema_version", {"major", "minor"})
    if fields.whole(version["major"], "schema_version") != SCHEMA:
        raise InvalidModel(f"schema_version {version['major']} of the program is not read, only {SCHEMA}; {ADVICE}")
    if fields.sequence(top.get("guards_code", []), "guards_code"):
        raise InvalidModel(f"guards_code holds Python code, which is never run; make axis 0 alone dynamic, or {ADVICE}")
    for name, constraint in fields.mapping(top["range_constraints"], "range_constraints").items():
        fields.members(constraint, f"range constraint {fields.shown(name)}", {"min_val", "max_val"})
    module = fields.members(
        top["graph_module"],
        "graph_module",
        {"graph", "signature", "module_call_graph"},
        {"metadata", "treespec_namedtuple_fields"},
    )
    graph = fields.members(module["graph"], "the graph", GRAPH, {"is_single_tensor_return", *EMPTY})
    for name in EMPTY:
        if fields.mapping(graph.get(name, {}), name):
            raise InvalidModel(f"the graph has {name}, which are not read; {ADVICE}")
    return _program(graph, fields.members(module["signature"], "the signature", {"input_specs", "output_specs"}))


def _program(graph: dict[str, Any], signature: dict[str, Any]) -> Program:
    inputs, stored = _inputs(signature)
    if len(inputs) != 1:
        raise InvalidModel(f"the program has {len(inputs)} inputs; a network to verify must have exactly one")
    given = [_tensor(a, "an input of the graph") for a in fields.sequence(graph["inputs"], "the inputs of the graph")]
    if sorted(given) != sorted([*inputs, *(s.input for s in stored)]) or len(set(given)) != len(given):
        raise InvalidModel("the inputs of the graph are not those of the signature")
    output = _output(signature)
    if [_tensor(a, "an output of the graph") for a in fields.sequence(graph["outputs"], "the outputs")] != [output]:
        raise InvalidModel("the outputs of the graph are not those of the signature")
    values = fields.mapping(graph["tensor_values"], "tensor_values")
    batch = _batch(values.get(inputs[0]))
    tensors = {name: meta(value, f"tensor {fields.shown(name)}", batch) for name, value in values.items()}
    symbols = fields.mapping(graph["sym_int_values"], "sym_int_values")
    for name, value in symbols.items():
        _extent(value, f"sym_int_values {fields.shown(name)}", batch)
    nodes = tuple(_nodes(fields.sequence(graph["nodes"], "the nodes")))
    return Program(inputs[0], output, stored, nodes, tensors, frozenset(symbols))


def _inputs(signature: dict[str, Any]) -> tuple[list[str], tuple[Stored, ...]]:
    """(names of the inputs, stored tensors) of the signature."""
    inputs, stored = [], []
    for spec in fields.sequence(signature["input_specs"], "input_specs"):
        kind, value = fields.one_of(spec, "an input of the signature")
        if kind == "user_input":
            inputs.append(_tensor(fields.members(value, "user_input", {"arg"})["arg"], "an input of the network"))
        elif kind in STORED:
            key = STORED[kind]
            found = fields.members(value, kind, {"arg", key}, {"persistent"} if kind == "buffer" else ())
            name = fields.text(found[key], key)
            argument = fields.members(found["arg"], f"{kind} {name}", {"name"})
            constant = kind == "tensor_constant" or not fields.flag(found.get("persistent", True), f"{kind} {name}")
            stored.append(Stored(fields.text(argument["name"], f"{kind} {name}"), name, constant))
        else:
            raise InvalidModel(f"an input of the signature is {fields.shown(kind)}; only tensors are read; {ADVICE}")
    return inputs, tuple(stored)


def _output(signature: dict[str, Any]) -> str:
    """The name of the only output."""
    found = []
    for spec in fields.sequence(signature["output_specs"], "output_specs"):
        kind, value = fields.one_of(spec, "an output of the signature")
        if kind in MUTATIONS:
            name = next((v for k, v in fields.mapping(value, kind).items() if k.endswith("_name")), "")
            raise InvalidModel(f"the program changes {fields.shown(name)} ({kind}); call module.eval() before export")
        if kind != "user_output":
            raise InvalidModel(f"an output of the program is {fields.shown(kind)}; only a tensor is read")
        found.append(fields.members(value, kind, {"arg"})["arg"])
    if len(found) != 1:
        raise InvalidModel(f"the program has {len(found)} outputs; choose one and export the network with it alone")
    return _tensor(found[0], "the output")


def _tensor(value: Any, what: str) -> str:
    """The name of an `as_tensor`."""
    kind, argument = fields.one_of(value, what)
    if kind != "as_tensor":
        raise InvalidModel(f"{what} is {fields.shown(kind)}; a tensor is expected")
    return fields.text(fields.members(argument, what, {"name"})["name"], what)


def _batch(value: Any) -> str | None:
    """The symbol of the input's axis 0, None if it has a fixed length."""
    sizes = value.get("sizes") if isinstance(value, dict) else None
    first = sizes[0] if isinstance(sizes, list) and sizes else None
    written = first.get("as_expr") if isinstance(first, dict) else None
    return None if written is None else fields.symbol(written, "axis 0 of the input")


def meta(value: Any, what: str, batch: str | None) -> Meta:
    """What the file says of a tensor; `batch` is the symbol that axis 0 may have."""
    found = fields.members(value, what, META)
    shape = []
    for axis, size in enumerate(fields.sequence(found["sizes"], f"{what}: sizes")):
        shape.append(_extent(size, f"{what}: axis {axis}", batch if axis == 0 else None))
    strides = [_length(s, f"{what}: strides") for s in fields.sequence(found["strides"], f"{what}: strides")]
    if len(strides) != len(shape) or len(shape) > RANK:
        raise InvalidModel(f"{what} has {len(shape)} sizes and {len(strides)} strides; at most {RANK} axes are read")
    device = fields.members(found["device"], f"{what}: device", {"type"}, {"index"})
    fields.text(device["type"], f"{what}: device")
    fields.flag(found["requires_grad"], f"{what}: requires_grad")
    if fields.whole(found["layout"], f"{what}: layout") != STRIDED:
        raise InvalidModel(f"{what} has layout {found['layout']}; only dense tensors are read")
    offset = _length(found["storage_offset"], f"{what}: storage_offset")
    return Meta(fields.whole(found["dtype"], f"{what}: dtype"), tuple(shape), tuple(strides), offset)


def _length(value: Any, what: str) -> int:
    """A fixed length that is not negative."""
    found = _extent(value, what, None)
    assert isinstance(found, int)
    return found


def _extent(value: Any, what: str, batch: str | None) -> int | str:
    """A length, BATCH where it is the symbol of that name.   Raises: InvalidModel for any other symbol."""
    kind, length = fields.one_of(value, what)
    if kind == "as_expr":
        found = fields.symbol(length, what)
        if found != batch:
            raise InvalidModel(
                f"{what} has the symbolic length {found}; only axis 0, the batch, may have one: "
                f"export with dynamic_shapes for axis 0 alone, or {ADVICE}"
            )
        return BATCH
    if kind != "as_int" or fields.whole(length, what) < 0:
        raise InvalidModel(f"{what} is {fields.shown(kind)} {fields.shown(length)}; a length is expected")
    return fields.whole(length, what)


def _nodes(nodes: list[Any]) -> Iterator[Node]:
    for index, value in enumerate(nodes):
        what = f"node {index}"
        found = fields.members(
            value, what, {"target", "inputs", "outputs", "metadata"}, {"is_hop_single_tensor_return", "name"}
        )
        target = fields.text(found["target"], f"{what}: target")
        outputs = tuple(
            name for o in fields.sequence(found["outputs"], f"{what}: outputs") for name in _results(o, what)
        )
        name = found.get("name") or (outputs[0] if outputs else what)
        arguments: dict[str, tuple[str, Any]] = {}
        for place, value in enumerate(fields.sequence(found["inputs"], f"{what}: inputs")):
            argument = fields.members(value, f"{what}: an argument", {"name", "arg"}, {"kind"})
            key = fields.text(argument["name"], f"{what}: an argument") or f"argument {place}"
            if key in arguments:
                raise InvalidModel(f"the argument {fields.shown(key)} is given twice", fields.text(name, what))
            arguments[key] = fields.one_of(argument["arg"], f"{what}: {key}")
        yield Node(fields.text(name, what), target, arguments, outputs)


def _results(value: Any, what: str) -> list[str]:
    """The names of one result: a tensor, a list of them, or an integer."""
    kind, result = fields.one_of(value, f"{what}: a result")
    if kind == "as_tensors":
        names = [fields.members(v, f"{what}: a result", {"name"})["name"] for v in fields.sequence(result, what)]
    elif kind == "as_tensor":
        names = [fields.members(result, f"{what}: a result", {"name"})["name"]]
    elif kind == "as_sym_int":
        names = [fields.members(result, f"{what}: a result", {"as_name"})["as_name"]]
    else:
        raise InvalidModel(f"{what} has a result {fields.shown(kind)}; only tensors and lengths are read; {ADVICE}")
    return [fields.text(name, f"{what}: a result") for name in names]
