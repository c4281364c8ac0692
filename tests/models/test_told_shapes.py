"""Shapes that a file says, or that a runtime infers, and that values do not have."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_kit import Array, model, refused

from provenn.models.admission import admit


def told(shape: list[int | str], opset: int = 17) -> onnx.ModelProto:
    """relu(x) times the first length of its shape, which onnxruntime takes from the file."""
    nodes = [
        helper.make_node("Relu", ["x"], ["z"]),
        helper.make_node("Shape", ["z"], ["lengths"]),
        helper.make_node("Gather", ["lengths", "first"], ["length"]),
        helper.make_node("Cast", ["length"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["z", "factor"], ["y"]),
    ]
    made = model(nodes, ("n", 4), {"first": np.array(0)}, opset=opset)
    made.graph.value_info.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, shape))
    return made


@pytest.mark.parametrize("shape", [[3, 4], [0, 4], [1, 4, 1], ["n", 5]])
def test_a_shape_that_a_value_has_not_is_refused(shape: list[int | str]) -> None:
    refused(told(shape), r"says that 'z' has the shape \[.*\]; at batch 1 it has \[1, 4\]")


@pytest.mark.parametrize("shape", [["n", 4], [1, 4], ["a", "b"]])
def test_a_shape_that_a_value_has_is_not(shape: list[int | str]) -> None:
    admit(told(shape).SerializeToString())


WEIGHT = np.ones((4, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("operator", "shape", "constants", "attributes"),
    [
        ("MaxPool", (1, 1, 2), (), {"kernel_shape": [1], "strides": [2], "ceil_mode": 1}),
        ("AveragePool", (1, 1, 2), (), {"kernel_shape": [1], "strides": [2], "ceil_mode": 1}),
        ("ConvTranspose", (1, 4, 2), (WEIGHT,), {"strides": [4], "auto_pad": "SAME_LOWER", "output_padding": [2]}),
        ("ConvTranspose", (1, 4, 9), (WEIGHT,), {"strides": [4], "output_shape": [7]}),
    ],
)
def test_what_runtimes_infer_another_shape_of_is_refused(
    operator: str, shape: tuple[int, ...], constants: tuple[Array, ...], attributes: dict[str, Any]
) -> None:
    stored = {f"c{i}": array for i, array in enumerate(constants)}
    node = helper.make_node(operator, ["x", *stored], ["y"], **attributes)
    refused(model([node], shape, stored), "ceil_mode|runtimes infer")
