"""Preprocessing as nodes: every reader, the kernel and onnxruntime see the composition, and nothing else changes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx_kit import mlp_model, model

from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT
from provenn.models.onnx_reader import read
from provenn.models.preprocessing import Preprocessing, preprocessed, read_preprocessing
from provenn.verifier.check import read_network
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.errors import InvalidModel, ResourceLimit

IMPLICIT = (2).to_bytes(8, "little") + b"{}"
"""How a safetensors file begins."""
BOTH = Preprocessing(255, (0.4914, 0.4822, 0.4465), (0.247, -0.243, 0.261))


def scaled_relu(shape: Sequence[int | str], opset: int = 17) -> onnx.ModelProto:
    """relu(w x + b), entry by entry."""
    own = [n if isinstance(n, int) else 1 for n in shape]
    generator = np.random.default_rng(len(shape))
    constants = {"w": generator.standard_normal(own).astype(np.float32), "b": np.float32(0.1)}
    nodes = [
        helper.make_node("Mul", ["x", "w"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["s"]),
        helper.make_node("Relu", ["s"], ["y"]),
    ]
    return model(nodes, shape, constants, opset=opset)


def composed(x: np.ndarray, how: Preprocessing, rank: int) -> np.ndarray:
    """(x / divide - mean) / std in float64, of the numbers as float32, with channels on axis 1 (0 at rank 1)."""
    divide, mean, std = (np.array(n, np.float32).astype(np.float64) for n in (how.divide, how.mean, how.std))
    moved = np.moveaxis(x, -1, 1) if how.layout == "hwc" else x
    beside = (-1, *(1,) * (rank - 2)) if rank > 1 else (-1,)
    return (moved / divide - mean.reshape(beside)) / std.reshape(beside)


SHAPES: list[tuple[int | str, ...]] = [(3,), ("n", 3), ("batch", 3, 4), (1, 3, 4, 5), ("batch", 3, 2, 2, 2)]
HOW = [
    BOTH,
    Preprocessing(divide=255),
    Preprocessing(mean=(0.5,)),
    Preprocessing(std=(0.25,)),
    Preprocessing(2, (0.1, 0.2, 0.3), (3,)),
    Preprocessing(255, (0.5,), (0.5, 0.25, 2), "hwc"),
    Preprocessing(layout="hwc"),
]


@pytest.mark.parametrize(("shape", "how"), [(s, h) for s in SHAPES for h in HOW if len(s) > 2 or h.layout == "chw"])
def test_every_reader_sees_the_composition(shape: tuple[int | str, ...], how: Preprocessing) -> None:
    original = scaled_relu(shape)
    data = preprocessed(original.SerializeToString(), how)
    graph, executor, network = read(data), OnnxExecutor(data), read_network(data)
    held = graph.input_shape
    x = np.random.default_rng(0).uniform(-255, 255, (4, *held)).astype(np.float32)
    before = composed(x.astype(np.float64), how, len(shape))
    w = onnx.numpy_helper.to_array(original.graph.initializer[0]).astype(np.float64)
    b = float(np.float32(0.1))
    expected = np.maximum(before * w + b, 0)
    np.testing.assert_allclose(graph.forward(torch.from_numpy(x).double()).numpy(), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(executor.run(x), expected, rtol=2e-4, atol=2e-4)
    for point, exact in zip(x.astype(np.float64), expected, strict=True):
        bound = Bounds(network, Box(point.ravel(), point.ravel())).box(network.output)
        assert (bound.lower <= exact.ravel() + 1e-12).all()
        assert (exact.ravel() - 1e-12 <= bound.upper).all()
        assert (bound.upper - bound.lower).max() < 1e-9


def declared(data: bytes) -> tuple[str, list[Any]]:
    value = onnx.ModelProto.FromString(data).graph.input[0]
    return value.name, [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]


def test_the_input_keeps_its_name_and_its_batch() -> None:
    data = scaled_relu(("batch", 3, 4, 5)).SerializeToString()
    assert declared(preprocessed(data, BOTH)) == ("x", ["batch", 3, 4, 5])
    moved = preprocessed(data, Preprocessing(layout="hwc"))
    assert declared(moved) == ("x", ["batch", 4, 5, 3])
    onnx.checker.check_model(moved, full_check=True)


def test_the_rest_of_the_file_is_as_it_was() -> None:
    before = mlp_model()
    after = onnx.ModelProto.FromString(preprocessed(before.SerializeToString(), Preprocessing(255, (0.5,))))
    assert [n.op_type for n in after.graph.node] == ["Div", "Sub", *(n.op_type for n in before.graph.node)]
    assert after.graph.output == before.graph.output
    assert list(after.graph.initializer)[: len(before.graph.initializer)] == list(before.graph.initializer)
    assert list(after.graph.node)[3:] == list(before.graph.node)[1:]


def test_nothing_to_do_leaves_the_file_alone() -> None:
    data = mlp_model().SerializeToString()
    assert preprocessed(data, Preprocessing()) is data
    assert preprocessed(gzip.compress(data), Preprocessing()) == data


def test_it_may_be_done_twice() -> None:
    data = mlp_model().SerializeToString()
    twice = preprocessed(preprocessed(data, Preprocessing(2, (0.5,))), Preprocessing(4, (0.25,)))
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    inner = OnnxExecutor(data).run(((x / 4 - 0.25) / 2 - 0.5).astype(np.float32))
    np.testing.assert_allclose(OnnxExecutor(twice).run(x), inner, atol=1e-5)
    assert read_network(twice).steps[0].length == 4


def test_an_old_file_whose_initializers_are_inputs_too() -> None:
    old = scaled_relu((1, 3), opset=8)
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    data = preprocessed(old.SerializeToString(), Preprocessing(2, (1.0,)))
    x = np.array([[3.0, -1.0, 2.0]], np.float32)
    expected = OnnxExecutor(old.SerializeToString()).run(x / 2 - 1)
    np.testing.assert_allclose(OnnxExecutor(data).run(x), expected, atol=1e-6)
    assert read_network(data).steps[0].length == 3


def test_a_network_in_float64_keeps_the_numbers_of_float64() -> None:
    constants = {"w": np.eye(2)}
    made = model([helper.make_node("MatMul", ["x", "w"], ["y"])], ("n", 2), constants, dtype=onnx.TensorProto.DOUBLE)
    data = preprocessed(made.SerializeToString(), Preprocessing(mean=(0.1,)))
    x = torch.tensor([[0.1, 0.2]], dtype=torch.float64)
    np.testing.assert_array_equal(read(data).forward(x).numpy(), x.numpy() - 0.1)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"std": [0.0]}, "'std' must hold finite numbers other than 0; there is 0.0"),
        ({"std": [0.5, 0]}, "'std'"),
        ({"std": []}, "'std' must hold finite numbers other than 0; there is no number"),
        ({"divide": 0}, "'divide'"),
        ({"divide": "255"}, "'divide' holds '255'; a number is expected"),
        ({"divide": True}, "'divide' holds True"),
        ({"divide": 10**400}, "too large"),
        ({"mean": [float("nan")]}, "'mean' must hold finite numbers; there is nan"),
        ({"mean": 0.5}, "give a list"),
        ({"mean": ["a"]}, "'mean' holds 'a'"),
        ({"layout": "nchw"}, "must be chw or hwc, not 'nchw'"),
        ({"layout": None}, "must be chw or hwc"),
        ({"scale": 255}, "has no member 'scale'; it has divide, mean, std, layout"),
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        Preprocessing.of(members)


@pytest.mark.parametrize(
    ("shape", "how", "message"),
    [
        (
            ("n", 3, 4, 4),
            Preprocessing(mean=(0.1, 0.2)),
            "'mean' holds 2 numbers; the network's inputs have 3 channels",
        ),
        (("n", 4), Preprocessing(std=(0.1, 0.2)), "'std' holds 2 numbers; the network's inputs have 4 channels"),
        ((4,), Preprocessing(std=(0.1, 0.2)), "'std' holds 2 numbers; the network's inputs have 4 channels"),
        (("n", 4), Preprocessing(layout="hwc"), r"layout hwc needs .* the network takes \[4\]: use chw"),
        ((4,), Preprocessing(layout="hwc"), "layout hwc needs"),
        (("n", 3), Preprocessing(std=(1e-60,)), "'std' holds a number too large or too small for float32"),
        (("n", 3), Preprocessing(divide=1e60), "'divide' holds a number too large or too small for float32"),
    ],
)
def test_what_does_not_fit_the_network_is_refused(
    shape: tuple[int | str, ...], how: Preprocessing, message: str
) -> None:
    with pytest.raises(InvalidModel, match=message):
        preprocessed(scaled_relu(shape).SerializeToString(), how)


def test_only_onnx_files_get_preprocessing() -> None:
    with pytest.raises(InvalidModel, match=f"this is a {FORMAT}"):
        preprocessed(IMPLICIT, BOTH)
    with pytest.raises(InvalidModel, match="not an ONNX file"):
        preprocessed(b"nonsense", BOTH)


def test_an_output_that_is_the_input_is_refused() -> None:
    """No node reads it, so none could be made to read something else."""
    made = model([helper.make_node("Relu", ["x"], ["r"])], ("n", 3))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3]))
    with pytest.raises(InvalidModel, match="output is its input"):
        preprocessed(made.SerializeToString(), BOTH)


def test_an_input_without_axes() -> None:
    made = model([helper.make_node("Relu", ["x"], ["y"])], ())
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, []))
    data = preprocessed(made.SerializeToString(), Preprocessing(2, (0.5,)))
    assert OnnxExecutor(data).run(np.full((1, *read(data).input_shape), 3, np.float32)).item() == 1


def test_json() -> None:
    text = json.dumps({"divide": 255, "mean": [0.5, 0.25, 1], "std": [0.5], "layout": "hwc"})
    assert read_preprocessing(text.encode()) == Preprocessing(255, (0.5, 0.25, 1), (0.5,), "hwc")
    assert read_preprocessing(b"{}") == Preprocessing()
    for bad in (b"[]", b"{", b'{"mean": [NaN]}', b'{"divide": 1, "divide": 2}', b"\xff"):
        with pytest.raises(InvalidModel, match="the preprocessing"):
            read_preprocessing(bad)
    with pytest.raises(ResourceLimit):
        read_preprocessing(b" " * (1 << 21))
