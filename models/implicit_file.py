"""Networks with implicit layers, which ONNX has no operator for: one safetensors file, "provenn-network/1".

The file's `__metadata__` holds one text, "provenn": the JSON of the input's shape and the layers in order, each with
the names of its tensors. It is read twice, here and by the trusted kernel.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any, ClassVar

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.verifier.errors import InvalidModel, ResourceLimit
from provenn.verifier.ops.base import Shape

FORMAT = "provenn-network/1"
FUNCTIONS = ("relu", "tanh", "sigmoid")
TYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8")}
HEADER_BYTES = 1 << 20
"""Of the header: names and shapes of the tensors, and the layers."""

AXES = 8
"""Of the input, whatever its layout: the first layer reads it flattened."""

WIDTH = 4096
"""Units of one implicit layer: a linear system of this size is solved for every input."""

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True, eq=False)
class Linear:
    """y = W x + b;  weight W [out, in], bias b [out] or None."""

    kind: ClassVar[str] = "linear"
    weight: Array
    bias: Array | None = None


@dataclass(frozen=True)
class Activation:
    """y = phi(x), coordinate by coordinate; function phi one of `FUNCTIONS`."""

    kind: ClassVar[str] = "activation"
    function: str


@dataclass(frozen=True, eq=False)
class Implicit:
    """The fixed point z = phi(W z + U x + b);  weight W [n, n], input U [n, in], bias b [n] or None."""

    kind: ClassVar[str] = "implicit"
    function: str
    weight: Array
    input: Array
    bias: Array | None = None


Layer = Linear | Activation | Implicit
KEYS = {kind.kind: set(kind.__dataclass_fields__) for kind in (Linear, Activation, Implicit)}


@dataclass(frozen=True, eq=False)
class ImplicitNetwork:
    """The layers in order, of inputs [*shape] flattened; the numbers are float32 or float64, as in the file."""

    shape: Shape
    layers: tuple[Layer, ...]

    @property
    def outputs(self) -> int:
        """Width of the output."""
        width = prod(self.shape)
        for layer in self.layers:
            width = width if isinstance(layer, Activation) else len(layer.weight)
        return width


def is_implicit_file(data: bytes) -> bool:
    """Whether the content, not compressed, begins like a safetensors file; no ONNX file does, even a broken one.

    That is a header's length below 2^32 in eight bytes, and its brace: ONNX would have four empty fields there.
    """
    return len(data) > 8 and data[8:9] == b"{" and data[4:8] == bytes(4)


def write(network: ImplicitNetwork) -> bytes:
    """The file of a network.   Raises: InvalidModel if it could not be read again."""
    tensors, layers = {}, []
    for index, layer in enumerate(network.layers):
        row: dict[str, str] = {"kind": layer.kind}
        for key in layer.__dataclass_fields__:
            value = getattr(layer, key)
            if isinstance(value, np.ndarray):
                row[key] = f"layer{index}.{key}"
                tensors[row[key]] = np.ascontiguousarray(value)
            elif value is not None:
                row[key] = value
        layers.append(row)
    text = json.dumps({"format": FORMAT, "input": list(network.shape), "layers": layers})
    try:
        data = safetensors.numpy.save(tensors, metadata={"provenn": text})
    except (safetensors.SafetensorError, KeyError) as error:
        raise InvalidModel(f"a tensor that cannot be stored: {error}") from error
    parse(data)
    return data


def parse(data: bytes, limits: Limits | None = None) -> ImplicitNetwork:
    """The network of a file (gzip or not), whatever is in it.

    Raises: InvalidModel naming the layer or the tensor, and what was expected; ResourceLimit.
    """
    limits = limits or Limits()
    content = decompressed(data, limits)
    if not is_implicit_file(content):
        raise InvalidModel("not a safetensors file: it does not begin with the length of a header and a header")
    text = _description(content)
    reading = _Reading(_tensors(content, limits), limits)
    description = _object(text, "the description", {"format", "input", "layers"})
    if description["format"] != FORMAT:
        raise InvalidModel(f"the description has format {_shown(description['format'])}; it must be '{FORMAT}'")
    shape, rows = description["input"], description["layers"]
    if not (isinstance(shape, list) and 0 < len(shape) <= AXES and all(type(n) is int and n > 0 for n in shape)):
        raise InvalidModel(f"input is {_shown(shape)}; it must be a list of positive whole numbers, at most {AXES}")
    if not (isinstance(rows, list) and rows):
        raise InvalidModel("layers must be a list of one layer or more")
    limits.require_elements(shape, "the input")
    limits.require_nodes(len(rows))
    return reading.network(tuple(shape), rows)


def _description(content: bytes) -> Any:
    """The JSON of the metadata."""
    length = int.from_bytes(content[:8], "little")
    if length > HEADER_BYTES:
        raise ResourceLimit(f"the header of {length} bytes", f"{HEADER_BYTES} bytes")
    if length > len(content) - 8:
        raise InvalidModel(f"the file is truncated: a header of {length} bytes, {len(content) - 8} are left")
    header = _json(content[8 : 8 + length], "the header")
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(metadata, dict) or not isinstance(metadata.get("provenn"), str):
        raise InvalidModel(
            "a safetensors file without a description: its __metadata__ must have the text 'provenn' "
            f"(format {FORMAT}); tensors alone are no network"
        )
    _object(metadata, "the __metadata__", {"provenn"})
    return _json(metadata["provenn"], "the description")


def _json(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{what} cannot be read as JSON: {_shown(str(error))}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _object(value: Any, what: str, required: set[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """The value, an object of exactly these keys."""
    if not isinstance(value, dict):
        raise InvalidModel(f"{what} is {_shown(value)}; it must be an object")
    if missing := sorted(required - set(value)):
        raise InvalidModel(f"{what} lacks {', '.join(missing)}")
    if unknown := sorted(set(value) - required - set(optional)):
        raise InvalidModel(f"{what} has {_shown(unknown[0])}, which is not known there")
    return value


def _tensors(content: bytes, limits: Limits) -> dict[str, Array]:
    """Every tensor of the file, its numbers as they are stored."""
    try:
        stored: list[tuple[str, dict[str, Any]]] = safetensors.deserialize(content)  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise InvalidModel(f"not a sound safetensors file: {_shown(str(error))}") from error
    tensors = {}
    for name, entry in stored:
        what = f"tensor {_shown(name)}"
        if entry["dtype"] not in TYPES:
            raise InvalidModel(f"{what} has type {_shown(entry['dtype'])}; it must be F32 or F64")
        if len(entry["shape"]) > 2 or 0 in entry["shape"]:
            raise InvalidModel(f"{what} has shape {_shown(entry['shape'])}; it must be a vector or a matrix, not empty")
        limits.require_elements(entry["shape"], what)
        array: Array = np.frombuffer(entry["data"], TYPES[entry["dtype"]]).reshape(entry["shape"])
        if not np.isfinite(array).all():
            raise InvalidModel(f"{what} holds a number that is not finite")
        tensors[name] = array
    return tensors


@dataclass
class _Reading:
    """The tensors of a file that no layer has named yet."""

    tensors: dict[str, Array]
    limits: Limits
    taken: set[str] = field(default_factory=set)

    def network(self, shape: Shape, rows: list[Any]) -> ImplicitNetwork:
        """The layers, each of the width that the one before it has."""
        network = ImplicitNetwork(shape, ())
        for index, row in enumerate(rows):
            layer = self.layer(f"layer {index}", row, network.outputs)
            network = ImplicitNetwork(shape, (*network.layers, layer))
        if self.tensors:
            raise InvalidModel(f"tensor {_shown(min(self.tensors))} is used by no layer")
        return network

    def layer(self, what: str, row: Any, width: int) -> Layer:
        """One layer of inputs [width]."""
        kind = row.get("kind") if isinstance(row, dict) else None
        if not isinstance(kind, str) or kind not in KEYS:
            raise InvalidModel(f"{what} is of kind {_shown(kind)}; it must be one of {', '.join(KEYS)}")
        _object(row, what, {"kind", *KEYS[kind]} - {"bias"}, ["bias"] if "bias" in KEYS[kind] else [])
        function = row.get("function")
        if "function" in KEYS[kind] and (not isinstance(function, str) or function not in FUNCTIONS):
            raise InvalidModel(f"{what} has function {_shown(function)}; it must be one of {', '.join(FUNCTIONS)}")
        if kind == Activation.kind:
            return Activation(function)
        if kind == Linear.kind:
            weight = self.matrix(what, row, "weight", None, width)
            return Linear(weight, self.bias(what, row, len(weight)))
        source = self.matrix(what, row, "input", None, width)
        if (units := len(source)) > WIDTH:
            raise ResourceLimit(f"{what}, an implicit one of {units} units", f"{WIDTH} units")
        weight = self.matrix(what, row, "weight", units, units)
        return Implicit(function, weight, source, self.bias(what, row, units))

    def matrix(self, what: str, row: dict[str, Any], key: str, rows: int | None, columns: int) -> Array:
        """The tensor [rows, columns] that the layer names; rows None: any positive number."""
        array = self.taken_by(what, row, key)
        if array.ndim != 2 or array.shape[1] != columns or rows not in (None, len(array)):
            expected = f"[{'any' if rows is None else rows}, {columns}]"
            raise InvalidModel(f"{what}: {key} {_shown(row[key])} has shape {list(array.shape)}, not {expected}")
        return array

    def bias(self, what: str, row: dict[str, Any], width: int) -> Array | None:
        """The tensor [width] that the layer names, None if it names none."""
        if "bias" not in row:
            return None
        array = self.taken_by(what, row, "bias")
        if array.shape != (width,):
            raise InvalidModel(f"{what}: bias {_shown(row['bias'])} has shape {list(array.shape)}, not [{width}]")
        return array

    def taken_by(self, what: str, row: dict[str, Any], key: str) -> Array:
        """The tensor whose name stands under `key`, and that no other layer has."""
        name = row[key]
        if not isinstance(name, str):
            raise InvalidModel(f"{what}: {key} is {_shown(name)}; it must be the name of a tensor")
        if name in self.taken:
            raise InvalidModel(f"{what}: {key} {_shown(name)} is used already; every tensor is used once")
        if name not in self.tensors:
            raise InvalidModel(f"{what}: {key} {_shown(name)} is no tensor of the file")
        self.taken.add(name)
        return self.tensors.pop(name)


def _shown(value: Any) -> str:
    """The value in a message: its first characters, none that a terminal might obey."""
    text = ascii(value)
    return text if len(text) <= 80 else f"{text[:80]}.."
