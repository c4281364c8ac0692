"""Small models of a query, written down node by node, and what onnxruntime makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import NodeProto, TensorProto, helper, numpy_helper

KINDS = {"f": TensorProto.FLOAT, "d": TensorProto.DOUBLE, "i": TensorProto.INT64, "h": TensorProto.FLOAT16}

Value = tuple[str, str, Sequence[int | str]]
"""A value's name, the letter of its element type, and its shape."""


def node(operator: str, inputs: str, outputs: str, **attributes: Any) -> NodeProto:
    """A node; names apart by spaces."""
    return helper.make_node(operator, inputs.split(), outputs.split(), outputs.split()[0], **attributes)


def network(
    nodes: Sequence[NodeProto],
    inputs: Sequence[Value],
    outputs: Sequence[Value],
    stored: Mapping[str, Any] | None = None,
    opset: int = 17,
) -> bytes:
    """An ONNX file; float64 arrays of Python numbers are stored in float32."""
    constants = [numpy_helper.from_array(_array(values), name) for name, values in (stored or {}).items()]
    ends = [
        [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, kind, shape in values]
        for values in (inputs, outputs)
    ]
    graph = helper.make_graph(list(nodes), "net", *ends, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _array(values: Any) -> np.ndarray:
    return values if isinstance(values, np.ndarray) else np.array(values, np.float32)


def run(content: bytes, feed: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Its outputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return [np.asarray(result) for result in session.run(None, dict(feed))]


LAYER = network(
    [node("Gemm", "x w b", "z", transB=1), node("Relu", "z", "a"), node("Gemm", "a v", "y", transB=1)],
    [("x", "f", ["batch", 2])],
    [("y", "f", ["batch", 2])],
    {"w": [[1, -1], [0.5, 2], [-1, 0.25]], "b": [0, 0.5, -0.25], "v": [[1, -1, 0.5], [0, 1, 1]]},
)
"""y = V relu(W x + b)."""

PAIR = network(
    [node("Sub", "p q", "d"), node("Mul", "p two", "first"), node("Add", "d q", "s"), node("Neg", "s", "second")],
    [("p", "f", [2, 2]), ("q", "f", [2, 1])],
    [("first", "f", [2, 2]), ("second", "f", [2, 2])],
    {"two": [2.0]},
)
"""first = 2 p, second = -((p - q) + q)."""

DOUBLE = network([node("Mul", "x w", "y")], [("x", "d", [3])], [("y", "d", [3])], {"w": np.array([0.1, 1e-20, -3.0])})
"""y = w x in float64."""

SIZES = network(
    [node("Shape", "x", "n"), node("Cast", "x", "k", to=TensorProto.INT64), node("Add", "k one", "m")],
    [("x", "f", [3])],
    [("n", "i", [1]), ("m", "i", [3])],
    {"one": np.array([1], np.int64)},
)
"""n = (3), m = int(x) + 1."""
