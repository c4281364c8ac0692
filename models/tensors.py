"""Numbers out of an ONNX file: stored tensors, attributes, and data kept in files beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from math import isfinite, prod
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, numpy_helper

from provenn.models.limits import Limits
from provenn.verifier.errors import InvalidModel

Array = NDArray[Any]

FLOATS: dict[int, type[np.generic]] = {
    TensorProto.FLOAT: np.float32,
    TensorProto.DOUBLE: np.float64,
    TensorProto.FLOAT16: np.float16,
}
COMPUTED = (TensorProto.FLOAT, TensorProto.DOUBLE)
"""Types that a network may compute in; float16 is read for stored numbers only, since its roundings and overflows are
too coarse for a proof in real arithmetic to say anything about them."""
INTEGERS: dict[int, type[np.generic]] = {
    TensorProto.INT64: np.int64,
    TensorProto.INT32: np.int32,
    TensorProto.BOOL: np.bool_,
}
STORED = FLOATS | INTEGERS

PLAIN_NAME = re.compile(r"[^\x00-\x1f/\\:*?\"<>|]+(/[^\x00-\x1f/\\:*?\"<>|]+)*")
"""A relative name: no drive, no leading slash, no wildcard (onnxruntime gives one a meaning of its own)."""


def type_name(data_type: int) -> str:
    """ONNX's name of an element type."""
    known = data_type in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(data_type)) if known else f"number {data_type}"


def decode(tensor: TensorProto, what: str, limits: Limits) -> Array:
    """The numbers of a tensor, in the type they are stored in.

    Raises: InvalidModel if the type is not one of STORED, the data do not fill the shape, or a float is nan or
    infinite; ResourceLimit for too many elements.
    """
    if tensor.data_type not in STORED:
        known = ", ".join(type_name(t) for t in STORED)
        raise InvalidModel(f"{what} has element type {type_name(tensor.data_type)}; readable types: {known}")
    if tensor.HasField("segment") or tensor.data_location != TensorProto.DEFAULT:
        raise InvalidModel(f"{what} is stored outside the model, where only initializers may be")
    limits.require_elements(tensor.dims, what)
    stored = np.dtype(STORED[tensor.data_type])
    if min(tensor.dims, default=0) < 0:
        raise InvalidModel(f"{what} has a negative extent in its shape {list(tensor.dims)}")
    expected = prod(tensor.dims) * stored.itemsize
    if tensor.HasField("raw_data") and len(tensor.raw_data) != expected:
        raise InvalidModel(
            f"{what}: shape {list(tensor.dims)} needs {expected} bytes, {len(tensor.raw_data)} are stored"
        )
    try:
        array = np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, OverflowError) as error:
        raise InvalidModel(f"{what} does not hold {prod(tensor.dims)} numbers of its type: {error}") from error
    if array.shape != tuple(tensor.dims) or array.dtype != stored:
        raise InvalidModel(f"{what} does not hold {prod(tensor.dims)} numbers of its type")
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidModel(f"{what} contains nan or inf; every weight must be a finite number")
    return array


def attribute_value(attribute: AttributeProto, node: str, limits: Limits) -> Any:
    """The attribute's value; tensors decoded.   Raises: InvalidModel for graphs, nan, and kinds that are not read."""
    what = f"attribute '{attribute.name}'"
    kinds = AttributeProto
    if attribute.ref_attr_name:
        raise InvalidModel(f"{what} refers to a function's attribute; inline the functions first", node)
    if attribute.type == kinds.TENSOR:
        return decode(attribute.t, f"{what} of node '{node}'", limits)
    if attribute.type == kinds.STRING:
        return attribute.s.decode(errors="replace")
    if attribute.type not in (kinds.INT, kinds.INTS, kinds.FLOAT, kinds.FLOATS):
        raise InvalidModel(f"{what} is of a kind that is not read ({kinds.AttributeType.Name(attribute.type)})", node)
    value = onnx.helper.get_attribute_value(attribute)
    numbers = value if isinstance(value, float) else 0.0
    if not isfinite(numbers) or not all(isfinite(v) for v in (value if attribute.type == kinds.FLOATS else ())):
        raise InvalidModel(f"{what} is nan or infinite; give a finite number", node)
    return list(value) if attribute.type in (kinds.INTS, kinds.FLOATS) else value


def tensors(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every tensor that the graph stores."""
    yield from model.graph.initializer
    for node in model.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def embed(model: onnx.ModelProto, files: Mapping[str, bytes], limits: Limits) -> bool:
    """Copies external data out of the bundle `files` into the initializers; whether there were any.

    Raises: InvalidModel for a name that is absolute, leads upwards or is not in the bundle, or for a range of bytes
    outside its file; ResourceLimit if everything together is too large.
    """
    external = [t for t in tensors(model) if t.data_location == TensorProto.EXTERNAL or t.external_data]
    total = model.ByteSize()
    for tensor in external:
        data = _external(tensor, files)
        total += len(data)
        limits.require_bytes(total, "the model with its external data")
        tensor.ClearField("external_data")
        tensor.data_location = TensorProto.DEFAULT
        tensor.raw_data = data
    return bool(external)


def _external(tensor: TensorProto, files: Mapping[str, bytes]) -> bytes:
    what = f"initializer '{tensor.name}'"
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")
    parts = location.split("/")
    if not PLAIN_NAME.fullmatch(location) or {".", ".."} & set(parts):
        raise InvalidModel(f"{what}: external data at '{location}' is refused: only names within the uploaded bundle")
    if location not in files:
        known = ", ".join(f"'{name}'" for name in sorted(files)[:10]) or "no files"
        raise InvalidModel(f"{what}: its data file '{location}' was not uploaded with the model (uploaded: {known})")
    whole = files[location]
    offset, length = (entries.get(key, default) for key, default in (("offset", "0"), ("length", "")))
    if not all(re.fullmatch(r"[0-9]{1,18}", n) for n in (offset, length or "0")):
        raise InvalidModel(f"{what}: external offset '{offset}' and length '{length}' must be numbers of bytes")
    begin = int(offset)
    end = begin + int(length) if length else len(whole)
    if not begin <= end <= len(whole):
        raise InvalidModel(f"{what}: bytes {begin} to {end} of '{location}' do not exist, it has {len(whole)}")
    return whole[begin:end]
