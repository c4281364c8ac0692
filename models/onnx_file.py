"""Bytes to an ONNX model whose form is sound: one graph, known operators, in order, self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx
import onnx.defs
from google.protobuf.message import DecodeError, EncodeError
from onnx import AttributeProto, ModelProto, NodeProto

from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decoded, decompressed
from provenn.models.onnx_ops import OPERATORS, REASONS
from provenn.models.operator_names import OPSETS
from provenn.models.tensors import embed
from provenn.verifier.errors import InvalidModel, UnsupportedOp

STANDARD = ("", "ai.onnx")

onnx.defs.has("Add")  # ONNX registers its operators now, for about 20 ms, rather than when the first model is read


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A model, and the self-contained ONNX bytes that a runtime may be given."""

    model: ModelProto
    content: bytes
    opset: int


def parse(data: bytes, files: Mapping[str, bytes], limits: Limits) -> OnnxFile:
    """The model of an ONNX file (gzip or not), external data copied in from the bundle `files`.

    Raises: InvalidModel, UnsupportedOp or ResourceLimit, each naming the cause.
    """
    content = decompressed(data, limits)
    model = decoded(content, limits)
    _require_plain(model)
    opset = _opset(model)
    for index, node in enumerate(model.graph.node):
        _require_known(node, node_name(node, index))
    if embed(model, files, limits):
        content = model.SerializeToString()
    _require_order(model)
    _require_checked(content)
    return OnnxFile(model, content, opset)


def node_name(node: NodeProto, index: int) -> str:
    """The node's name, or its operator and position where it has none."""
    return node.name or f"{node.op_type}_{index}"


def _require_plain(model: ModelProto) -> None:
    """Nothing but one graph of nodes and dense tensors."""
    if model.functions:
        names = ", ".join(f"{f.name!r}" for f in model.functions[:3])
        raise InvalidModel(f"{len(model.functions)} local functions ({names}): inline them (onnx.inliner) first")
    if model.training_info:
        raise InvalidModel("it carries training information; export the network in inference mode")
    if model.graph.sparse_initializer:
        raise InvalidModel("it stores sparse initializers; export them as dense tensors")


def _opset(model: ModelProto) -> int:
    """The version of the standard operator set."""
    versions = [entry.version for entry in model.opset_import if entry.domain in STANDARD]
    if len(versions) != 1:
        raise InvalidModel(f"it must import the standard operator set once, not {len(versions)} times")
    if versions[0] not in OPSETS:
        raise InvalidModel(
            f"operator set {versions[0]} is not supported; export with one from {OPSETS[0]} to {OPSETS[-1]}"
        )
    return int(versions[0])


def _require_known(node: NodeProto, name: str) -> None:
    """The operator is one of ours, and holds no graphs."""
    if node.domain not in STANDARD:
        raise UnsupportedOp(name, f"{node.domain}.{node.op_type}", "only the standard ONNX domain is read")
    if node.op_type not in OPERATORS:
        raise UnsupportedOp(name, node.op_type, REASONS.get(node.op_type, ""), OPERATORS)
    for attribute in node.attribute:
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) or attribute.HasField("g"):
            raise UnsupportedOp(name, node.op_type, "it holds a graph of its own")


def _require_order(model: ModelProto) -> None:
    """Every tensor is defined once, before it is read.   Raises: InvalidModel naming the node."""
    graph = model.graph
    defined = {""} | {t.name for t in graph.initializer}
    if len(defined) != len(graph.initializer) + 1:
        raise InvalidModel("two initializers have one name, or one has none")
    defined |= {i.name for i in graph.input}
    computed = {o for node in graph.node for o in node.output}
    for index, node in enumerate(graph.node):
        name = node_name(node, index)
        for source in node.input:
            if source not in defined and source in computed:
                raise InvalidModel(f"reads '{source}' before it is computed: a cycle, or nodes out of order", name)
            if source not in defined:
                raise InvalidModel(f"reads '{source}', which nothing computes", name)
        for output in filter(None, node.output):
            if output in defined:
                raise InvalidModel(f"computes '{output}', which is defined already", name)
            defined.add(output)


def _require_checked(content: bytes) -> None:
    """ONNX's own checker accepts it."""
    try:
        onnx.checker.check_model(content)
    except (onnx.checker.ValidationError, DecodeError, EncodeError, ValueError, RuntimeError, TypeError) as error:
        first = str(error).strip().split("\n\n")[0][:500]
        raise InvalidModel(f"ONNX's checker refuses it: {first}") from error
