"""Two networks as one: what a second version computes otherwise than the first."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import GraphProto, NodeProto, helper
from onnx.version_converter import ConvertError, convert_version

from provenn.models.admission import Admitted, admitted
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT, is_implicit_file
from provenn.models.limits import Limits
from provenn.models.onnx_bytes import decompressed
from provenn.models.preprocessing import INITIALIZERS_ALONE
from provenn.verifier.errors import InvalidModel

INPUT, FIRST, SECOND, RESULT = "input", "first/", "second/", "difference"
POINTS, CLOSE = 4, 1e-4
"""Inputs at which a network of another operator set is run beside what became of it; how close they must be."""


def difference(first: bytes, second: bytes, limits: Limits | None = None) -> bytes:
    """The ONNX file (self-contained) of x -> f(x) - g(x); a bound of it bounds how far the networks are apart.

    The names of f begin with first/, those of g with second/; the input is `input`, declared as that of f.
    If the operator sets differ, the older file is converted to the newer one by ONNX's converter.
    Raises: InvalidModel if one is no ONNX file, if inputs, outputs or types differ, or for a conversion that fails or
    computes something else; UnsupportedOp, ResourceLimit as for any network.
    """
    f, g = (_admitted(data, what, limits) for data, what in ((first, "first"), (second, "second")))
    _require_alike(f, g)
    opset = max(f.file.opset, g.file.opset)
    f, g = _converted(f, opset, "first", limits), _converted(g, opset, "second", limits)
    nodes = [*_renamed(f, FIRST), *_renamed(g, SECOND)]
    last = helper.make_node("Sub", [FIRST + f.output_name, SECOND + g.output_name], [RESULT], RESULT)
    declared = next(i for i in f.file.model.graph.input if i.name == f.input_name)
    input = onnx.ValueInfoProto(name=INPUT, type=declared.type)
    output = onnx.ValueInfoProto(name=RESULT, type=f.file.model.graph.output[0].type)
    stored = [t for network in (f, g) for t in network.file.model.graph.initializer]
    graph = helper.make_graph([*nodes, last], "difference", [input], [output], stored)
    ir = max(INITIALIZERS_ALONE, f.file.model.ir_version, g.file.model.ir_version)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def _admitted(data: bytes, what: str, limits: Limits | None) -> Admitted:
    if is_implicit_file(decompressed(data, limits or Limits())):
        raise InvalidModel(f"the {what} network is a {FORMAT}; differences are made of ONNX files alone")
    network = admitted(data, limits=limits)
    if network.output_name == network.input_name:
        raise InvalidModel(f"the {what} network's output is its input")
    return network


def _require_alike(f: Admitted, g: Admitted) -> None:
    """Inputs and outputs of one shape and type each."""
    for what, x, y in (("inputs", f.input, g.input), ("outputs", f.output, g.output)):
        if x.held_shape != y.held_shape or len(x.shape) != len(y.shape):
            raise InvalidModel(
                f"the first network has {what} of shape {list(x.shape)} at batch 1, the second of {list(y.shape)}; "
                "export both with the same"
            )
    if f.input_type != g.input_type:
        raise InvalidModel(
            f"the first network computes in {f.input_type}, the second in {g.input_type}; export both with the same"
        )


def _converted(network: Admitted, opset: int, what: str, limits: Limits | None) -> Admitted:
    """The same network in that operator set."""
    if network.file.opset == opset:
        return network
    change = f"the {what} network could not be converted from operator set {network.file.opset} to {opset}"
    try:
        model = convert_version(network.file.model, opset)
        content = model.SerializeToString(deterministic=True)
        result, before, after = (
            admitted(content, limits=limits),
            OnnxExecutor(network.file.content),
            OnnxExecutor(content),
        )
    except (ConvertError, RuntimeError, ValueError, InvalidModel) as error:
        raise InvalidModel(f"{change}; export both with the same one: {str(error)[:300]}") from error
    points = np.random.default_rng(0).standard_normal((POINTS, *before.input_shape)).astype(np.float32)
    if before.output_shape != after.output_shape or not np.allclose(
        before.run(points), after.run(points), rtol=CLOSE, atol=CLOSE
    ):
        raise InvalidModel(f"{change}: what became of it computes something else; export both with the same one")
    return result


def _renamed(network: Admitted, prefix: str) -> list[NodeProto]:
    """The network's nodes, in whose graph every name but that of the input now begins with the prefix."""
    graph: GraphProto = network.file.model.graph

    def renamed(name: str) -> str:
        return INPUT if name == network.input_name else prefix + name if name else ""

    for tensor in graph.initializer:
        tensor.name = renamed(tensor.name)
    for node in graph.node:
        node.name, node.domain = prefix + node.name if node.name else "", ""
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    return list(graph.node)
