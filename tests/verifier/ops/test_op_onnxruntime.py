"""Every op computes what onnxruntime computes for the ONNX node it is read from."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from table import CASES, Case, OnnxNode


def constant(value: Any) -> np.ndarray:
    array = value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def model(node: OnnxNode, shapes: tuple[tuple[int, ...], ...], batch: int) -> bytes:
    names, initializers, inputs = [], [], []
    free = iter(shapes)
    for index, operand in enumerate(node.operands):
        names.append("" if isinstance(operand, str) else f"x{index}")
        if operand is None:
            shape = (batch, *next(free))
            inputs.append(helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, shape))
        elif names[-1]:
            initializers.append(numpy_helper.from_array(np.ascontiguousarray(constant(operand)), names[-1]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    outputs = ["y", "places"] if node.op_type == "TopK" else ["y"]
    made = helper.make_node(node.op_type, names, outputs, **node.attributes)
    graph = helper.make_graph([made], "one", inputs, [output], initializers)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return built.SerializeToString()


@pytest.mark.parametrize("case", [c for c in CASES if c.node is not None], ids=lambda case: case.name)
def test_agrees_with_onnxruntime(case: Case) -> None:
    assert case.node is not None
    session = onnxruntime.InferenceSession(model(case.node, case.shapes, 3), providers=["CPUExecutionProvider"])
    x = [3 * v for v in case.inputs(3, 7, torch.float32)]
    feeds = {i.name: v.numpy() for i, v in zip(session.get_inputs(), x, strict=True)}
    expected = torch.from_numpy(session.run(None, feeds)[0])
    single = case.op.to("cpu", torch.float32).forward(*x)
    double = case.op.forward(*(v.double() for v in x))
    torch.testing.assert_close(single, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(double.float(), expected, rtol=1e-5, atol=1e-5)
