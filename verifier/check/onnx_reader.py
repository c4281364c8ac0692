"""The kernel's own reading of an ONNX file. What it does not know, it refuses."""

import gzip
import hashlib
import io
import zlib
from math import prod

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx.helper import get_attribute_value

from provenn.verifier.check.layer_reader import is_layers, read_layers
from provenn.verifier.check.network import Network, Step
from provenn.verifier.check.network_ops import OPERATORS, SLOPES_ONLY, Operators
from provenn.verifier.check.rounding import CertificateRejected, require
from provenn.verifier.check.tensors import Entries, Node, Tensor, budget, decode, whole

FILE_LIMIT = 2**30  # bytes of a file after decompression
OPSETS = range(7, 27)  # whose differences the operators here know (numpy's broadcasting begins with 7)


def read_network(data: bytes, slopes: bool = False) -> Network:
    """The network in an ONNX file, at batch 1, or in a file of layer_reader.py; gzip or not.

    slopes: read functions, too, of which slopes alone are known, for Lipschitz claims.
    Raises: CertificateRejected with claim "model" for anything that is not understood.
    """
    data = decompressed(data, "model")
    if is_layers(data):
        return read_layers(data)
    try:
        model = onnx.ModelProto.FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise CertificateRejected("model", f"it is not an ONNX file: {error}") from error
    graph, operators = model.graph, Operators(slopes)
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    require(len(versions) == 1 and versions[0] in OPSETS, "model", f"operator set {versions} is not among {OPSETS}")
    plain = not model.functions and not graph.sparse_initializer and not model.training_info
    require(plain, "model", "functions, sparse tensors and training information are not read")
    names = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in names]
    single = len(inputs) == len(graph.output) == 1 and len(names) == len(graph.initializer)
    require(single, "model", "it must have one input and one output, and one initializer of each name")
    shape, kind = _input_shape(inputs[0]), inputs[0].type.tensor_type.elem_type
    operators.doubts += [] if kind == onnx.TensorProto.FLOAT else ["its input is not float32"]
    operators.add(Step(inputs[0].name, prod(shape), ()))
    values: dict[str, Tensor | None] = {"": None, inputs[0].name: whole(0, shape)[0]}
    try:
        for item in (*graph.initializer, *graph.node):
            if isinstance(item, onnx.TensorProto):
                values[item.name] = decode(item)
            else:
                _run(operators, values, item, versions[0])
    except (ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise CertificateRejected("model", f"{[*getattr(item, 'output', [item.name])]}: {error!r}") from error
    result = values.get(graph.output[0].name)
    if not isinstance(result, Entries):
        raise CertificateRejected("model", f"output {graph.output[0].name} is not computed from the input")
    output = operators.flat(result, "network output")
    return Network(tuple(operators.steps), output, hashlib.sha256(data).hexdigest(), tuple(operators.doubts))


def _input_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The declared shape; a first axis without a number is the batch, here 1."""
    kind = value.type.tensor_type
    require(kind.elem_type in (1, 11) and kind.HasField("shape"), "model", "its input is no tensor of floats")
    shape = [axis.dim_value if axis.HasField("dim_value") else int(i == 0) for i, axis in enumerate(kind.shape.dim)]
    require(all(n > 0 for n in shape), "model", "an axis of its input other than the first has no fixed length")
    budget(shape)
    return tuple(shape)


def _run(operators: Operators, values: dict[str, Tensor | None], proto: onnx.NodeProto, opset: int) -> None:
    """Reads one node."""
    name = proto.output[0] if proto.output else proto.name
    operator = OPERATORS.get(proto.op_type) or (SLOPES_ONLY.get(proto.op_type) if operators.slopes else None)
    known = operator and proto.domain in ("", "ai.onnx") and onnx.defs.has(proto.op_type, opset)
    if operator is None or not known:
        only = " (but in Lipschitz claims)" if proto.op_type in SLOPES_ONLY and not operators.slopes else ""
        reason = f"node {name}: operator {proto.domain} {proto.op_type} is not read by the checker{only}"
        raise CertificateRejected("model", reason)
    schema, given = onnx.defs.get_schema(proto.op_type, opset), {a.name for a in proto.attribute}
    fits = schema.min_input <= len(proto.input) <= schema.max_input and len(given) == len(proto.attribute)
    require(fits and given <= schema.attributes.keys(), "model", f"node {name}: odd inputs or attributes")
    attributes = {a.name: decode(a.t) if a.HasField("t") else get_attribute_value(a) for a in proto.attribute}
    node = Node(name, proto.op_type, [values[i] for i in proto.input] + [None] * 5, len(proto.output), attributes)
    with np.errstate(all="ignore"):
        results = operator(operators, node)
    operators.doubts += node.doubts
    node.require(not node.attributes, f"attribute {', '.join(node.attributes)} is not understood")
    for output, result in zip(proto.output, results, strict=False):
        budget((result.index if isinstance(result, Entries) else result).shape)
        node.require(not output or output not in values, f"{output} is defined twice")
        values[output] = result if output else None


def decompressed(data: bytes, what: str) -> bytes:
    """Itself, or the content of a gzip file.   Raises: CertificateRejected if it is broken or too large."""
    if data[:2] != b"\x1f\x8b":
        return data
    try:
        content = gzip.GzipFile(fileobj=io.BytesIO(data)).read(FILE_LIMIT)
    except (OSError, EOFError, zlib.error) as error:
        raise CertificateRejected(what, f"the gzip data is broken: {error}") from error
    require(len(content) < FILE_LIMIT, what, "it is too large")
    return content
