"""Closed loops of one state whose regions of attraction are known by hand, as ONNX files of a few nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper


def node(operator: str, inputs: str, output: str, **attributes: Any) -> NodeProto:
    """A node; inputs: their names, apart from each other by spaces."""
    return helper.make_node(operator, inputs.split(), [output], **attributes)


def net(nodes: Sequence[NodeProto], inputs: int, outputs: int, constants: Mapping[str, Any]) -> bytes:
    """A network from x [N, inputs] to y [N, outputs]; constants are float32, or int64 where they are ints."""
    stored = []
    for name, values in constants.items():
        array = np.asarray(values)
        stored.append(numpy_helper.from_array(array if array.dtype == np.int64 else array.astype(np.float32), name))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", inputs])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", outputs])
    graph = helper.make_graph(list(nodes), "net", [x], [y], stored)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


def linear(matrix: Sequence[Sequence[float]]) -> bytes:
    """The network y = W x; matrix: the rows of W."""
    array = np.array(matrix, np.float32)
    return net([node("Gemm", "x w", "y", transB=1)], array.shape[1], array.shape[0], {"w": array})


def bent(a: float, b: float, c: float) -> bytes:
    """(x, u) -> a x + b u + c (relu(x - 1) - relu(-x - 1))."""
    nodes = [
        node("Gemm", "x w s", "z", transB=1),
        node("Relu", "z", "h"),
        node("Gemm", "h v", "k", transB=1),
        node("Gemm", "x l", "p", transB=1),
        node("Add", "k p", "y"),
    ]
    constants = {"w": [[1.0, 0], [-1, 0]], "s": [-1.0, -1], "v": [[c, -c]], "l": [[a, b]]}
    return net(nodes, 2, 1, constants)


ABSOLUTE = net([node("Abs", "x", "y")], 1, 1, {})
SQUARE = net([node("Mul", "x x", "y")], 1, 1, {})
TANH = net([node("Tanh", "x", "t"), node("Mul", "t t", "y")], 1, 1, {})
HALF = linear([[-0.5]])
"""The controller u = -x / 2."""
DISCRETE = bent(1.0, 1.0, 1.5)
"""With HALF x' = x / 2 for |x| <= 1, and 2 x - 3 / 2 beyond: the states that come to 0 are those of |x| < 3 / 2."""
CONTINUOUS = bent(-0.5, 1.0, 2.0)
"""With HALF x' = -x for |x| <= 1, and x - 2 for x >= 1: the states that come to 0 are those of |x| < 2."""
UNSTABLE = linear([[1.6, 1.0]])
"""With HALF x' = 1.1 x."""
SWUNG = net([node("Gather", "x i", "a", axis=1), node("Gather", "x j", "u", axis=1), node("Sin", "a", "s"),
             node("Mul", "s g", "m"), node("Add", "a m", "b"), node("Mul", "u k", "v"), node("Add", "b v", "y")],
            2, 1, {"i": np.array([0]), "j": np.array([1]), "g": [[0.25]], "k": [[1.0]]})  # fmt: skip
"""(x, u) -> x + sin(x) / 4 + u: with HALF |x| < 2 comes to 0, in steps of x / 2 - sin(x) / 4 or more."""


def document(**members: Any) -> dict[str, Any]:
    """Of kind lyapunov, over [-3, 3], whose dynamics are "f" and whose candidate is "V"."""
    return {
        "format": "provenn-specification/1",
        "kind": "lyapunov",
        "time": "discrete",
        "dynamics": "f",
        "candidate": "V",
        "lower": [-3],
        "upper": [3],
        "small": ["1/10"],
        "decrease": "1/100",
        **members,
    }
