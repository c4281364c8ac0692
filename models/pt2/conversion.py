"""The calls of a program, one after the other, as ONNX nodes; what the file says of every result is compared."""

from __future__ import annotations

from dataclasses import dataclass, field

from provenn.models.limits import Limits
from provenn.models.onnx_writer import BATCH, FLOATS, Value, Writer, shown
from provenn.models.pt2 import fields
from provenn.models.pt2.archive import ADVICE, Archive
from provenn.models.pt2.call import Call, Held
from provenn.models.pt2.operators import IN_PLACE, OPERATORS, VIEWS
from provenn.models.pt2.payload import TYPES, Payload
from provenn.models.pt2.program import Meta, Node, Program
from provenn.verifier.errors import InvalidModel, UnsupportedOp

ATEN = "torch.ops.aten."


def convert(program: Program, archive: Archive, limits: Limits) -> bytes:
    """The ONNX file of a program.   Raises: InvalidModel, UnsupportedOp, ResourceLimit, naming node or field."""
    limits.require_nodes(len(program.nodes))
    conversion = _Conversion(program, Writer(limits))
    conversion.store(Payload(archive, "data/weights/"), Payload(archive, "data/constants/"))
    for node in program.nodes:
        conversion.writer.where = node.name
        conversion.call(node)
    conversion.writer.where = None
    return conversion.writer.model(conversion.read(program.output, None))


@dataclass
class _Memory:
    """What tensors that may share it lie in: whether the file holds it, how often it was overwritten, last by whom."""

    stored: bool = False
    writes: int = 0
    writer: str = ""


@dataclass
class _Conversion:
    """What every name stands for, and which memory it lies in, as it was after how many writes."""

    program: Program
    writer: Writer
    values: dict[str, Held] = field(default_factory=dict)
    places: dict[str, tuple[_Memory, int]] = field(default_factory=dict)

    def store(self, weights: Payload, constants: Payload) -> None:
        """The input, and every tensor of the file that the program reads."""
        declared = self.program.tensors
        named = {n for node in self.program.nodes for n in _read_by(node)}
        for stored in self.program.stored:
            payload = constants if stored.constant else weights
            layout, meta = payload.meta(stored.name), declared.get(stored.input)
            if meta is None or (meta.type, meta.shape) != (layout.type, layout.shape):
                raise InvalidModel(f"the stored tensor {fields.shown(stored.name)} is not of the shape the graph says")
            value = None
            if stored.input in named and layout.type in TYPES:
                value = self.writer.constant(payload.tensor(stored.name), stored.name)
            self.values[stored.input] = value
            self.places[stored.input] = (_Memory(stored=True), 0)
        meta = declared.get(self.program.input)
        if meta is None:
            raise InvalidModel("the input's shape is not in tensor_values")
        kind = TYPES.get(meta.type)
        if kind is None or kind not in FLOATS:
            raise InvalidModel(f"the input is of type {meta.type} of torch; it must be float32 or float64")
        self.values[self.program.input] = self.writer.input(self.program.input, meta.shape, kind)
        self.places[self.program.input] = (_Memory(), 0)

    def call(self, node: Node) -> None:
        """One more call."""
        target = node.target.removeprefix(ATEN)
        base, _, overload = target.partition(".")
        writes = base.endswith("_") and f"{base[:-1]}.{overload}" in IN_PLACE and target not in OPERATORS
        name = f"{base[:-1]}.{overload}" if writes else target
        if not node.target.startswith(ATEN) or name not in OPERATORS:
            raise UnsupportedOp(node.name, fields.shown(node.target), ADVICE, OPERATORS)
        for read in _read_by(node):
            self.read(read, node.name)
        source = next((s for key in ("self", "input") for s in _named(node, key)), "")
        memory = self.places[source][0] if source in self.places else None
        if writes and (memory is None or memory.stored):
            raise InvalidModel(
                f"changes the stored tensor {fields.shown(source)}; call module.eval() before export", node.name
            )
        network_input = self.values[self.program.input]
        assert isinstance(network_input, Value)
        call = Call(node, self.values, network_input)
        results = OPERATORS[name](self.writer, call)
        call.finish()
        if len(results) != len(node.outputs):
            raise InvalidModel(f"{target} has {len(results)} results, the file names {len(node.outputs)}", node.name)
        if writes and memory is not None:
            self._overwritten(memory, node, source, results[0])
        shares = memory if (writes or name in VIEWS) and memory is not None else None
        for output, value in zip(node.outputs, results, strict=True):
            self._result(node, output, value)
            here = shares or _Memory()
            self.places[output] = (here, here.writes)

    def _overwritten(self, memory: _Memory, node: Node, source: str, result: Held) -> None:
        before = self.values[source]
        assert isinstance(before, Value) and isinstance(result, Value)
        if (before.shape, before.type) != (result.shape, result.type):
            raise InvalidModel(f"writes {shown(result.shape)} over {shown(before.shape)}", node.name)
        memory.writes, memory.writer = memory.writes + 1, node.name

    def read(self, name: str, node: str | None) -> Value:
        """The tensor of that name.   Raises: InvalidModel if it is not known, or was overwritten since."""
        value = self.values.get(name)
        if not isinstance(value, Value):
            state = "not computed here" if name in self.values else "computed by nothing before it"
            raise InvalidModel(f"reads {fields.shown(name)}, which is {state}", node)
        memory, version = self.places[name]
        if memory.writes != version:
            raise InvalidModel(
                f"reads {fields.shown(name)}, whose memory {fields.shown(memory.writer)} overwrites (an operation in "
                "place); export program.run_decompositions(), or write the network without such operations",
                node,
            )
        return value

    def _result(self, node: Node, name: str, value: Held) -> None:
        """Keeps a result.   Raises: InvalidModel if the file says something else of it."""
        if name in self.values:
            raise InvalidModel(f"computes {fields.shown(name)}, which is defined already", node.name)
        if isinstance(value, Value):
            _compare(node, name, value, self.program.tensors.get(name))
        elif value is not None and (name not in self.program.symbols or value != BATCH):
            raise InvalidModel(f"computes the length {fields.shown(name)}, which is not the batch", node.name)
        self.values[name] = value


def _compare(node: Node, name: str, value: Value, meta: Meta | None) -> None:
    if meta is None:
        raise InvalidModel(f"its result {fields.shown(name)} is not in tensor_values", node.name)
    if meta.shape != value.shape or TYPES.get(meta.type) != value.type:
        raise InvalidModel(
            f"its result {fields.shown(name)} has shape {shown(value.shape)} and type {value.type}; "
            f"the file says {shown(meta.shape)} and type {meta.type} of torch",
            node.name,
        )


def _read_by(node: Node) -> list[str]:
    """Names of the tensors that a call reads."""
    return [name for key in node.arguments for name in _named(node, key)]


def _named(node: Node, key: str) -> list[str]:
    """Names of the tensors that an argument is."""
    kind, value = node.arguments.get(key, ("", None))
    listed = [value] if kind == "as_tensor" else fields.sequence(value, key) if kind == "as_tensors" else []
    return [fields.text(fields.members(v, key, {"name"})["name"], key) for v in listed]
