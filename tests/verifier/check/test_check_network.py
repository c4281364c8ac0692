"""The kernel's own ONNX reader: against onnxruntime on random inputs, and against files it must refuse."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from check_kit import Random, forward, model
from onnx import TensorProto, helper, numpy_helper

from provenn.verifier.check import CertificateRejected, read_network
from provenn.verifier.check.network import Affine

Array = np.ndarray


def run(data: bytes, x: Array) -> Array:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def agree(data: bytes, shape: Sequence[int], scale: float = 1.0, bits: type = np.float32) -> None:
    """Both give the same value within float32's rounding."""
    network = read_network(data)
    generator = np.random.default_rng(1)
    for _ in range(3):
        x = (scale * generator.normal(size=shape)).astype(bits)
        expected = run(data, x).astype(np.float64).ravel()
        found = forward(network, x)
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= 2e-5 * max(1.0, np.abs(expected).max())


def one(
    op: str, shape: Sequence[int | str], *constants: Array | None, opset: int = 17, place: int = 0, **attributes: Any
) -> bytes:
    """One node; `x` is its input at `place`."""
    stored = {f"c{i}": array for i, array in enumerate(constants) if array is not None}
    inputs = ["" if array is None else f"c{i}" for i, array in enumerate(constants)]
    inputs.insert(place, "x")
    return model([helper.make_node(op, inputs, ["y"], **attributes)], shape, stored, opset)


def r(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def i(*values: int) -> Array:
    return np.array(values, np.int64)


CASES: dict[str, tuple[bytes, Sequence[int]]] = {
    "gemm": (one("Gemm", [1, 4], r(4, 3), r(3)), [1, 4]),
    "gemm transB": (one("Gemm", [1, 4], r(3, 4), r(1, 3), transB=1), [1, 4]),
    "gemm transA": (one("Gemm", [4, 1], r(4, 3), transA=1), [4, 1]),
    "gemm alpha beta": (one("Gemm", [1, 4], r(4, 3), r(3), alpha=0.3, beta=-1.7), [1, 4]),
    "gemm rows": (one("Gemm", [5, 4], r(4, 3), r(5, 3)), [5, 4]),
    "matmul": (one("MatMul", ["n", 4], r(4, 3)), [1, 4]),
    "matmul rows": (one("MatMul", [1, 5, 4], r(4, 3)), [1, 5, 4]),
    "add": (one("Add", [1, 3, 4], r(4)), [1, 3, 4]),
    "add grows": (one("Add", [1, 1, 4], r(3, 1)), [1, 1, 4]),
    "add left": (one("Add", [1, 4], r(4), place=1), [1, 4]),
    "sub": (one("Sub", [1, 4], r(4)), [1, 4]),
    "sub left": (one("Sub", [1, 4], r(4), place=1), [1, 4]),
    "mul": (one("Mul", [1, 3, 2], r(3, 1)), [1, 3, 2]),
    "div": (one("Div", [1, 4], r(4)), [1, 4]),
    "batchnorm": (one("BatchNormalization", [1, 3, 4, 4], r(3), r(3), r(3), np.abs(r(3)), epsilon=1e-3), [1, 3, 4, 4]),
    "batchnorm flat": (one("BatchNormalization", [1, 3], r(3), r(3), r(3), np.abs(r(3))), [1, 3]),
    "conv": (one("Conv", [1, 3, 7, 6], r(4, 3, 3, 2), r(4)), [1, 3, 7, 6]),
    "conv strides pads": (
        one("Conv", [1, 3, 7, 6], r(4, 3, 3, 2), strides=[2, 3], pads=[1, 0, 2, 1], kernel_shape=[3, 2]),
        [1, 3, 7, 6],
    ),
    "conv groups dilations": (one("Conv", [1, 4, 9, 9], r(6, 2, 3, 3), r(6), group=2, dilations=[2, 3]), [1, 4, 9, 9]),
    "conv depthwise": (one("Conv", [1, 4, 5, 5], r(8, 1, 3, 3), group=4), [1, 4, 5, 5]),
    "conv valid": (one("Conv", [1, 1, 5, 5], r(2, 1, 3, 3), auto_pad="VALID"), [1, 1, 5, 5]),
    "conv 1d": (one("Conv", [1, 2, 9], r(3, 2, 4), strides=[2], pads=[1, 2]), [1, 2, 9]),
    "maxpool": (one("MaxPool", [1, 2, 6, 5], kernel_shape=[2, 3], strides=[2, 1], pads=[1, 1, 0, 1]), [1, 2, 6, 5]),
    "maxpool dilated": (one("MaxPool", [1, 2, 9], kernel_shape=[3], dilations=[2]), [1, 2, 9]),
    "averagepool": (
        one("AveragePool", [1, 2, 6, 5], kernel_shape=[2, 3], strides=[2, 2], pads=[1, 0, 0, 1]),
        [1, 2, 6, 5],
    ),
    "averagepool pad": (
        one("AveragePool", [1, 2, 6, 5], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        [1, 2, 6, 5],
    ),
    "global": (one("GlobalAveragePool", [1, 3, 4, 5]), [1, 3, 4, 5]),
    "mean": (one("ReduceMean", [1, 3, 4, 5], axes=[-1, 2], keepdims=0), [1, 3, 4, 5]),
    "mean 18": (one("ReduceMean", [1, 3, 4, 5], i(2, 3), opset=18, noop_with_empty_axes=0), [1, 3, 4, 5]),
    "flatten": (one("Flatten", [1, 2, 3, 4], axis=-2), [1, 2, 3, 4]),
    "reshape": (one("Reshape", [1, 2, 6], i(0, -1, 3)), [1, 2, 6]),
    "transpose": (one("Transpose", [1, 2, 3, 4], perm=[0, 2, 3, 1]), [1, 2, 3, 4]),
    "transpose all": (one("Transpose", [1, 2, 3]), [1, 2, 3]),
    "squeeze": (one("Squeeze", [1, 3, 1], i(2)), [1, 3, 1]),
    "unsqueeze": (one("Unsqueeze", [1, 3], i(1, -1)), [1, 3]),
    "unsqueeze 11": (one("Unsqueeze", [1, 3], axes=[0, 3], opset=11), [1, 3]),
    "gather": (one("Gather", [1, 5], i(4, -2, 0), axis=1), [1, 5]),
    "gather twice": (one("Gather", [1, 5], i(1, 1, 0), axis=1), [1, 5]),
    "gather one": (one("Gather", [1, 5, 2], np.array(3), axis=1), [1, 5, 2]),
    "identity": (one("Identity", [1, 5]), [1, 5]),
    "relu": (one("Relu", [1, 9]), [1, 9]),
    "leaky": (one("LeakyRelu", [1, 9]), [1, 9]),
    "leaky steep": (one("LeakyRelu", [1, 9], alpha=-0.7), [1, 9]),
    "clip": (one("Clip", [1, 9], np.float32(-0.5), np.float32(0.25)), [1, 9]),
    "clip above": (one("Clip", [1, 9], None, np.float32(0.25)), [1, 9]),
    "clip 6": (one("Clip", [1, 9], min=-0.5, opset=9), [1, 9]),
    "sigmoid": (one("Sigmoid", [1, 9]), [1, 9]),
    "tanh": (one("Tanh", [1, 9]), [1, 9]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_operator_agrees_with_onnxruntime(name: str) -> None:
    agree(*CASES[name])


def test_movements_between_layers() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Transpose", ["a"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("Relu", ["t"], ["b"]),
        helper.make_node("Gather", ["b", "g"], ["c"], axis=3),
        helper.make_node("Concat", ["c", "t"], ["d"], axis=3),
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", "zeros"], ["n1"]),
        helper.make_node("Concat", ["n1", "minus"], ["shape"], axis=0),
        helper.make_node("Reshape", ["d", "shape"], ["e"]),
        helper.make_node("Sub", ["e", "e"], ["f"]),
        helper.make_node("Add", ["f", "e"], ["y"]),
    ]
    constants = {"w": r(3, 2, 3, 3), "g": i(2, 0), "zero": np.array(0), "zeros": i(0), "minus": i(-1)}
    agree(model(nodes, ["batch", 2, 4, 4], constants), [1, 2, 4, 4])


def test_a_constant_node_and_an_added_bias() -> None:
    tensor = numpy_helper.from_array(r(3), "t")
    nodes = [
        helper.make_node("Constant", [], ["b"], value=tensor),
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Add", ["m", "b"], ["y"]),
    ]
    data = model(nodes, [1, 4], {"w": r(4, 3)})
    agree(data, [1, 4])
    steps = [step for step in read_network(data).steps if step.name == "y"]
    assert isinstance(steps[0], Affine)
    assert steps[0].sources == (0,)


def test_float64_and_gzip() -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    data = model(nodes, [1, 4], {"w": np.random.default_rng(0).normal(size=(4, 3))}, kind=TensorProto.DOUBLE)
    network = read_network(gzip.compress(data))
    assert network.sha256 == read_network(data).sha256
    x = np.random.default_rng(1).normal(size=(1, 4))
    assert np.abs(forward(network, x) - run(data, x).ravel()).max() < 1e-14


@pytest.mark.parametrize("kinds", [["relu", "residual"], ["pool", "clip"], ["leaky", "tanh"], ["sigmoid", "relu"]])
def test_random_networks_agree(kinds: list[str]) -> None:
    agree(Random(1, [5, 8, 7, 3], kinds).file(), [1, 5])


@pytest.mark.shared
def test_reference_networks_agree(shared: Path) -> None:
    families = ("acasxu", "mnist_fc", "oval21", "rl_benchmarks")
    files = [sorted((shared / "vnncomp2022" / f / "onnx").glob("*.gz"))[0] for f in families]
    files += sorted((shared / "vnncomp2022" / "rl_benchmarks" / "onnx").glob("*.gz"))
    files += sorted((shared / "vnncomp2022" / "sri_resnet_a" / "onnx").glob("*.gz"))
    files += sorted((shared / "lipschitz" / "local").glob("*.onnx"))
    for path in files:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.suffix == ".gz" else data
        extents = onnx.ModelProto.FromString(data).graph.input[0].type.tensor_type.shape.dim
        agree(data, [axis.dim_value or 1 for axis in extents])


def graph_with(change: Callable[[onnx.ModelProto], None]) -> bytes:
    proto = onnx.ModelProto.FromString(Random(0, [2, 3, 2], ["relu"]).file())
    change(proto)
    return proto.SerializeToString()


def external(proto: onnx.ModelProto) -> None:
    tensor = proto.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def weights(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        array = numpy_helper.to_array(proto.graph.initializer[0]).copy()
        array.flat[0] = value
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(array, proto.graph.initializer[0].name))

    return change


BROKEN: Mapping[str, tuple[bytes, str]] = {
    "nothing": (b"", "operator set"),
    "text": (b"not a network", "not an ONNX file"),
    "truncated": (Random(0, [2, 3, 2], ["relu"]).file()[:-40], "model"),
    "truncated gzip": (gzip.compress(Random(0, [2, 3, 2], ["relu"]).file())[:-9], "gzip"),
    "gzip of text": (gzip.compress(b"x"), "not an ONNX file"),
    "external data": (graph_with(external), "its data is not read"),
    "nan weight": (graph_with(weights(np.nan)), "not finite"),
    "inf weight": (graph_with(weights(np.inf)), "not finite"),
    "unknown operator": (one("Softmax", [1, 3]), "Softmax"),
    "other domain": (
        model([helper.make_node("Relu", ["x"], ["y"], domain="ai.other")], [1, 3], {}),
        "ai.other",
    ),
    "product": (model([helper.make_node("Mul", ["x", "x"], ["y"])], [1, 3], {}), "not linear"),
    "division by zero": (one("Div", [1, 2], np.zeros(2, np.float32)), "division"),
    "division by value": (one("Div", [1, 2], r(2), place=1), "division"),
    "unknown attribute": (one("Relu", [1, 3], odd=1), "odd inputs or attributes"),
    "ceil_mode": (one("MaxPool", [1, 1, 5], kernel_shape=[2], strides=[2], ceil_mode=1), "ceil_mode"),
    "same padding": (one("Conv", [1, 1, 5], r(1, 1, 3), auto_pad="SAME_UPPER"), "its geometry"),
    "indices": (model([helper.make_node("MaxPool", ["x"], ["y", "z"], kernel_shape=[2])], [1, 1, 5], {}), "its form"),
    "batch of two": (one("Conv", [2, 1, 5], r(1, 1, 3)), "batch 1"),
    "training": (
        one("BatchNormalization", [1, 3], r(3), r(3), r(3), np.abs(r(3)), training_mode=1),
        "training mode",
    ),
    "negative variance": (one("BatchNormalization", [1, 3], r(3), r(3), r(3), -np.abs(r(3))), "variance"),
    "shape mismatch": (one("MatMul", [1, 4], r(3, 2)), "do not fit"),
    "bad reshape": (one("Reshape", [1, 4], i(3, -1)), "reshape"),
    "index out of range": (one("Gather", [1, 4], i(9), axis=1), "out of bounds"),
    "clip reversed": (one("Clip", [1, 4], np.float32(1), np.float32(0)), "lower limit"),
    "dynamic axis": (one("Relu", [1, "n"]), "no fixed length"),
    "integer input": (model([helper.make_node("Relu", ["x"], ["y"])], [1, 3], {}, kind=TensorProto.INT64), "floats"),
    "old operator set": (one("Relu", [1, 3], opset=6), "operator set"),
    "new operator set": (one("Relu", [1, 3], opset=99), "operator set"),
    "cycle": (
        model([helper.make_node("Relu", ["b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])], [1, 3], {}),
        "KeyError",
    ),
    "defined twice": (model([helper.make_node("Relu", ["x"], ["y"])] * 2, [1, 3], {}), "twice|called"),
    "constant output": (model([helper.make_node("Identity", ["c"], ["y"])], [1, 3], {"c": r(3)}), "not computed"),
    "too large": (
        model(
            [helper.make_node("Gather", ["x", "c"], ["y"], axis=1)],
            [1, 4096],
            {"c": np.zeros((2, 9000, 1000), np.int64)},
        ),
        "too large",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_not_understood_is_refused_with_the_reason(name: str) -> None:
    data, reason = BROKEN[name]
    with pytest.raises(CertificateRejected, match=reason) as refusal:
        read_network(data)
    assert refusal.value.claim == "model"
