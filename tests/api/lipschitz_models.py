"""Networks whose Lipschitz constants are known by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save


def implicit(weight: Sequence[Sequence[float]]) -> bytes:
    """y = z_0 - z_1 with z = relu(W z + x), two inputs: a provenn-network/1 file."""
    layers = [
        {"kind": "implicit", "function": "relu", "weight": "W", "input": "U"},
        {"kind": "linear", "weight": "V"},
    ]
    described = json.dumps({"format": "provenn-network/1", "input": [2], "layers": layers})
    tensors = {"W": np.array(weight, float), "U": np.eye(2), "V": np.array([[1.0, -1.0]])}
    return bytes(save(tensors, {"provenn": described}))


POSED = implicit([[0.5, 1.0], [-1.0, 0.5]])
"""2 T - T W - W'T = 1 for T = 1, so there is one fixed point."""

ILL_POSED = implicit([[2.0, 0.0], [0.0, 0.0]])
"""z = relu(2 z + x) has two solutions, or none."""


def pointwise(*operators: str, residual: bool = False, inputs: int = 2) -> bytes:
    """x -> operators one after the other (or x + that), as an ONNX file."""
    nodes, value = [], "x"
    for number, operator in enumerate(operators):
        nodes.append(helper.make_node(operator, [value], [f"v{number}"], operator.lower()))
        value = f"v{number}"
    nodes.append(helper.make_node("Add" if residual else "Gemm", [value, "x" if residual else "w"], ["y"], "last"))
    constants = [] if residual else [numpy_helper.from_array(np.eye(inputs, dtype=np.float32), "w")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", inputs])
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def convolution(pooled: bool = True) -> bytes:
    """A convolution, relu, max pooling (or not), and a linear map, on 1 x 6 x 6."""
    generator = np.random.default_rng(0)
    sizes = {"k": (2, 1, 3, 3), "w": (18 if pooled else 72, 3)}
    constants = [numpy_helper.from_array(generator.standard_normal(s).astype(np.float32), n) for n, s in sizes.items()]
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], "conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], "relu"),
        *([helper.make_node("MaxPool", ["r"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2])] if pooled else []),
        helper.make_node("Flatten", ["p" if pooled else "r"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w"], ["y"], "linear"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 6, 6])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])
    graph = helper.make_graph(nodes, "net", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
