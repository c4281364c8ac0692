"""f - g as one network: what the two compute, subtracted, whatever they are called inside."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, version_converter
from onnx_kit import mlp_model, model

from provenn.models import composition as module
from provenn.models.difference import difference
from provenn.models.executor import OnnxExecutor
from provenn.models.implicit_file import FORMAT
from provenn.models.onnx_reader import read
from provenn.verifier.check import read_network
from provenn.verifier.errors import InvalidModel

IMPLICIT = (2).to_bytes(8, "little") + b"{}"
"""How a safetensors file begins."""


def affine(shape: Sequence[int | str] = ("n", 4), outputs: int = 3, opset: int = 17, dtype: int = TensorProto.FLOAT,
           name: str = "x") -> onnx.ModelProto:  # fmt: skip
    """W x, flat."""
    kind = np.float32 if dtype == TensorProto.FLOAT else np.float64
    inputs = int(np.prod([n for n in shape[1:] if isinstance(n, int)]))
    weight = np.random.default_rng(opset).standard_normal((inputs, outputs)).astype(kind)
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])]
    made = model(nodes, shape, {"w": weight}, opset=opset, dtype=dtype)
    for value in (made.graph.input[0], made.graph.node[0]):
        if isinstance(value, onnx.NodeProto):
            value.input[0] = name
        else:
            value.name = name
    return made


def cast(made: onnx.ModelProto) -> onnx.ModelProto:
    """The same numbers, as float64."""
    made.graph.node.append(helper.make_node("Cast", ["y"], ["z"], to=TensorProto.DOUBLE))
    made.graph.output[0].CopyFrom(helper.make_tensor_value_info("z", TensorProto.DOUBLE, ["n", 3]))
    return made


def agrees(first: onnx.ModelProto, second: onnx.ModelProto) -> bytes:
    """The difference, held against onnxruntime on both, on the graph and in the kernel."""
    f, g = first.SerializeToString(), second.SerializeToString()
    data = difference(f, g)
    x = np.random.default_rng(0).standard_normal((8, *OnnxExecutor(f).input_shape)).astype(np.float32)
    expected = OnnxExecutor(f).run(x) - OnnxExecutor(g).run(x)
    np.testing.assert_allclose(OnnxExecutor(data).run(x), expected, atol=1e-5)
    np.testing.assert_allclose(read(data).forward(torch.from_numpy(x).double()).numpy(), expected, atol=1e-5)
    assert read_network(data).steps[0].length == x[0].size
    return data


def test_two_networks_with_the_same_names() -> None:
    data = agrees(mlp_model(0), mlp_model(1))
    graph = onnx.ModelProto.FromString(data).graph
    assert {n.split("/")[0] for node in graph.node for n in node.output} == {"first", "second", "difference"}
    assert [i.name for i in graph.input] == ["input"]
    assert graph.input[0].type == mlp_model().graph.input[0].type


def test_a_network_and_itself_are_the_same_exactly() -> None:
    data = difference(mlp_model().SerializeToString(), gzip.compress(mlp_model().SerializeToString()))
    x = np.random.default_rng(0).standard_normal((8, 4)).astype(np.float32)
    assert not OnnxExecutor(data).run(x).any()


@pytest.mark.parametrize("name", ["input", "difference", "first/x", "second/y"])
def test_odd_names_do_not_meet(name: str) -> None:
    agrees(affine(name=name), affine(opset=17))
    agrees(affine(), affine(name=name))


@pytest.mark.parametrize(("first", "second"), [(11, 17), (17, 13), (9, 21)])
def test_older_operator_sets_are_converted(first: int, second: int) -> None:
    data = agrees(affine(opset=first), affine(opset=second))
    assert [o.version for o in onnx.ModelProto.FromString(data).opset_import] == [max(first, second)]


def test_an_old_file_whose_initializers_are_inputs_too() -> None:
    old = affine(opset=8)
    old.ir_version = 3
    for tensor in old.graph.initializer:
        old.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    agrees(old, affine(opset=13))
    agrees(old, affine(opset=8))


def scaled(made: onnx.ModelProto) -> None:
    """All weights are larger by a thousandth."""
    weight = onnx.numpy_helper.to_array(made.graph.initializer[0]) * np.float32(1.001)
    made.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, made.graph.initializer[0].name))


def clipped(made: onnx.ModelProto, limit: float = 20) -> None:
    """Outputs stay within 20, which those of usual inputs do anyway."""
    graph = made.graph
    graph.initializer.extend(
        onnx.numpy_helper.from_array(np.float32(end), name) for name, end in (("low", -limit), ("high", limit))
    )
    graph.node[-1].output[0] = "open"
    graph.node.append(helper.make_node("Clip", ["open", "low", "high"], [graph.output[0].name], "clip"))


def far(made: onnx.ModelProto) -> None:
    """Outputs stay within a million: no input of the guard's is beyond."""
    clipped(made, 1e6)


@pytest.mark.parametrize("change", [scaled, clipped, far])
def test_a_conversion_that_changes_the_network_is_refused(
    change: Callable[[onnx.ModelProto], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A converter with a bug: the guard reads both, and runs both in onnxruntime, at inputs of many sizes."""

    def wrong(given: onnx.ModelProto, version: int) -> onnx.ModelProto:
        made = version_converter.convert_version(given, version)
        change(made)
        return made

    monkeypatch.setattr(module, "convert_version", wrong)
    with pytest.raises(InvalidModel, match="the first network could not be converted from operator set 11 to 17: what"):
        difference(affine(opset=11).SerializeToString(), affine().SerializeToString())


def test_a_conversion_that_changes_the_network_where_it_is_not_run_is_refused() -> None:
    """ONNX's own converter takes asymmetric places for half a pixel's; what is resized is zero below 1000."""
    nodes = [
        helper.make_node("Sub", ["x", "k"], ["s"]),
        helper.make_node("Relu", ["s"], ["r"]),
        helper.make_node("Resize", ["r", "scales"], ["y"], mode="linear"),
    ]
    old = model(nodes, (1, 1, 3), {"k": np.float32(1000), "scales": np.float32([1, 1, 2])}, opset=10)
    first, second = (m.SerializeToString() for m in (old, version_converter.convert_version(old, 17)))
    x = np.float32([[[1000, 1001, 1000]]])
    np.testing.assert_allclose(OnnxExecutor(first).run(x).ravel(), [0, 0.5, 1, 0.5, 0, 0])
    np.testing.assert_allclose(OnnxExecutor(second).run(x).ravel(), [0, 0.25, 0.75, 0.75, 0.25, 0])
    with pytest.raises(InvalidModel, match="what became of it computes something else"):
        difference(first, second)


def test_a_conversion_that_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every operator that is admitted has a way to every later set in this version of ONNX; one to come may not."""

    def none(given: onnx.ModelProto, version: int) -> onnx.ModelProto:
        raise version_converter.ConvertError("No Adapter From Version 12 for Identity")

    monkeypatch.setattr(module, "convert_version", none)
    with pytest.raises(InvalidModel, match=r"not be converted from operator set 11 to 17; export both .*: No Adapter"):
        difference(affine(opset=11).SerializeToString(), affine().SerializeToString())


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (affine(("n", 5)), r"first network has inputs of shape \[1, 4\] at batch 1, the second of \[1, 5\]"),
        (affine(("n", 2, 2)), r"inputs of shape \[1, 4\] at batch 1, the second of \[1, 2, 2\]"),
        (affine(outputs=2), r"first network has outputs of shape \[1, 3\] at batch 1, the second of \[1, 2\]"),
        (affine(dtype=TensorProto.DOUBLE), "first network computes in float32, the second in float64"),
        (cast(affine()), "first network's output is float32, the second's float64"),
    ],
)
def test_networks_that_cannot_be_compared_are_refused(second: onnx.ModelProto, message: str) -> None:
    with pytest.raises(InvalidModel, match=message):
        difference(affine().SerializeToString(), second.SerializeToString())


def test_only_onnx_files_are_compared() -> None:
    with pytest.raises(InvalidModel, match=f"the second network is a {FORMAT}"):
        difference(mlp_model().SerializeToString(), IMPLICIT)
