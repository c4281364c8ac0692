"""Bytes to an ONNX model, whatever is in it: unpacked, parsed, its names printable. Loads no torch."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from google.protobuf.message import DecodeError
from onnx import ModelProto

from provenn.models.limits import Limits
from provenn.models.tensors import tensors
from provenn.verifier.errors import InvalidModel

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""Characters that a terminal might obey."""

OTHER_FORMATS = {
    b"PK\x03\x04": "a zip archive (a torch or Keras file?)",
    b"\x80": "a Python pickle (a torch file?), which is never opened because it can run code",
    b"\x89HDF": "an HDF5 file (a Keras model?)",
}


def decompressed(data: bytes, limits: Limits) -> bytes:
    """Itself, or the content of a gzip file, inflated no further than the limit.

    Raises: InvalidModel if it is empty, truncated or broken; ResourceLimit if it is too large.
    """
    if not data:
        raise InvalidModel("the file is empty (0 bytes); upload an ONNX file")
    limits.require_bytes(len(data), "the file")
    if data[:2] != b"\x1f\x8b":
        return data
    stream = zlib.decompressobj(wbits=31)
    try:
        content = stream.decompress(data, limits.bytes + 1)
    except zlib.error as error:
        raise InvalidModel(f"the gzip data is broken: {error}") from error
    limits.require_bytes(len(content), "the decompressed file")
    if not stream.eof:
        raise InvalidModel("the gzip data is truncated; upload the file again")
    if stream.unused_data:
        raise InvalidModel("the gzip data is followed by something else; compress one ONNX file alone")
    if not content:
        raise InvalidModel("the gzip file contains nothing; compress an ONNX file")
    return content


def decoded(content: bytes, limits: Limits) -> ModelProto:
    """The model, whatever operators it holds.

    Raises: InvalidModel if the bytes are not an ONNX model, or a name in it is not printable text; ResourceLimit.
    """
    for magic, what in OTHER_FORMATS.items():
        if content.startswith(magic):
            raise InvalidModel(f"not an ONNX file but {what}; export the network to ONNX")
    try:
        model: ModelProto = ModelProto.FromString(content)
    except (DecodeError, ValueError) as error:
        raise InvalidModel(f"not an ONNX file, or a truncated one: {error}") from error
    if not model.HasField("graph") or not model.graph.node:
        raise InvalidModel("not an ONNX file: it has no graph of nodes")
    limits.require_nodes(len(model.graph.node))
    for text in _texts(model):
        if isinstance(text, bytes) or CONTROL.search(text):
            raise InvalidModel(f"not a sound ONNX file: the name {text!r} is not printable text; export it again")
    return model


def _texts(model: ModelProto) -> Iterator[str | bytes]:
    """Every name that is compared, printed or stored; protobuf gives bytes where one is not UTF-8."""
    yield from (model.producer_name, model.producer_version)
    yield from (entry.domain for entry in model.opset_import)
    for value in (*model.graph.input, *model.graph.output):
        yield value.name
        yield from (axis.dim_param for axis in value.type.tensor_type.shape.dim)
    for tensor in tensors(model):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in model.graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (text for a in node.attribute for text in (a.name, a.ref_attr_name))
