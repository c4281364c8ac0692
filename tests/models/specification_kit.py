"""A small classifier of images, and documents about it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

FORMAT = "provenn-specification/1"
INPUT = [0.1, 0.9, 0.8, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.2, 0.9, 0.9, 0.3]


def classifier(shape: Sequence[int | str] = ("batch", 1, 4, 4), opset: int = 17) -> bytes:
    """16 values to 3 scores, flattened, with 8 hidden neurons: class 0 wins at INPUT by 2.4."""
    weights = {"a": waves(16, 8, 1.1), "b": waves(1, 8, 1.9), "c": waves(8, 3, 1.7)}
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "a"], ["mixed"]),
        helper.make_node("Add", ["mixed", "b"], ["shifted"]),
        helper.make_node("Relu", ["shifted"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "c"], ["scores"]),
    ]
    x = helper.make_tensor_value_info("image", TensorProto.FLOAT, list(shape))
    y = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n", 3])
    stored = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    stored.append(numpy_helper.from_array(np.array([-1, 16]), "flat"))
    graph = helper.make_graph(nodes, "classifier", [x], [y], stored)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return bytes(made.SerializeToString())


def waves(rows: int, columns: int, length: float) -> np.ndarray:
    places = np.arange(rows * columns).reshape(rows, columns)
    return np.round(np.sin(places * length), 2).astype(np.float32)


def perturbation(*perturbations: dict[str, Any], **members: Any) -> dict[str, Any]:
    asked = {"input": INPUT, "label": 0, "perturbations": list(perturbations)}
    return {"format": FORMAT, "kind": "perturbation", **asked, **members}


def text(document: dict[str, Any]) -> bytes:
    return json.dumps(document).encode()
