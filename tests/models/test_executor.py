"""onnxruntime as the independent executor."""

from __future__ import annotations

import gzip

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper
from onnx_kit import mlp_model, model, relu_model

from provenn.models.executor import OnnxExecutor
from provenn.verifier.errors import InvalidModel, UnsupportedOp


def test_it_computes_what_a_session_of_its_own_computes() -> None:
    data = mlp_model().SerializeToString()
    x = np.random.default_rng(0).standard_normal((9, 4)).astype(np.float32)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    expected = np.concatenate([session.run(None, {"x": row[None]})[0] for row in x])
    executor = OnnxExecutor(data)
    assert np.array_equal(executor.run(x), expected)
    assert executor.run(x).dtype == np.float32
    assert executor.name == f"onnxruntime {onnxruntime.__version__}"


def test_no_inputs_give_no_outputs() -> None:
    assert OnnxExecutor(mlp_model().SerializeToString()).run(np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_a_gzip_file_runs() -> None:
    assert OnnxExecutor(gzip.compress(mlp_model().SerializeToString())).output_shape == (3,)


def test_a_fixed_batch_of_one_runs_in_batches() -> None:
    executor = OnnxExecutor(relu_model((1, 3)).SerializeToString())
    x = np.float32([[1, -2, 3], [-1, 2, -3], [0, 0.5, 0]])
    assert np.array_equal(executor.run(x), np.maximum(x, 0))


def test_a_network_that_would_mix_its_batch_runs_at_batch_one() -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[0]), helper.make_node("Sub", ["x", "m"], ["y"])]
    executor = OnnxExecutor(model(nodes, ("n", 3)).SerializeToString())
    assert np.array_equal(executor.run(np.float32([[1, 2, 3], [4, 5, 6]])), np.zeros((2, 3), np.float32))


def test_inputs_are_cast_to_the_networks_type() -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], (1, 2), dtype=TensorProto.DOUBLE)
    output = OnnxExecutor(made.SerializeToString()).run(np.float32([[0.1, -1]]))
    assert output[0, 0] == pytest.approx(0.1, abs=1e-7)


def test_inputs_of_another_shape_are_refused() -> None:
    executor = OnnxExecutor(mlp_model().SerializeToString())
    with pytest.raises(InvalidModel, match=r"inputs of shape \(2, 5\) given to a network for \[batch, \*\(4,\)\]"):
        executor.run(np.zeros((2, 5), np.float32))


def test_a_model_that_is_not_admitted_is_not_run() -> None:
    with pytest.raises(UnsupportedOp):
        OnnxExecutor(model([helper.make_node("Hardmax", ["x"], ["y"])], (1, 3)).SerializeToString())


def test_a_model_that_onnxruntime_refuses_is_invalid() -> None:
    made = relu_model((1, 3))
    made.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    with pytest.raises(InvalidModel, match="onnxruntime refuses the model"):
        OnnxExecutor(made.SerializeToString())
