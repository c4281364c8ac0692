"""Networks that become parts of another: in a newer operator set, and with every value as it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx_kit import Array, model

from provenn.models.admission import admitted
from provenn.models.composition import INPUT, Composition, converted, network
from provenn.models.executor import OnnxExecutor
from provenn.verifier.errors import InvalidModel

IMAGE = (1, 4, 6, 6)
CHANNELS = tuple(np.float32([0.5, 1, 2, 3]) for _ in range(4))


def old(operator: str, constants: Sequence[Array] = (), **attributes: Any) -> onnx.ModelProto:
    """One node of an early operator set, of an image."""
    opset, outputs = attributes.pop("opset", 7), attributes.pop("outputs", 1)
    stored = {f"c{i}": array for i, array in enumerate(constants)}
    values = ["y", *(f"y{i}" for i in range(1, outputs))]
    return model([helper.make_node(operator, ["x", *stored], values, **attributes)], IMAGE, stored, opset=opset)


CHANGED: Mapping[str, onnx.ModelProto] = {
    "slice": old("Slice", axes=[2, -1], starts=[1, 0], ends=[-1, 100]),
    "clip": old("Clip", min=-0.5, max=0.5),
    "clip from below": old("Clip", min=0.0),
    "pad": old("Pad", pads=[0, 0, 1, 1, 0, 0, 2, 2], value=1.5),
    "crop": old("Pad", pads=[0, 0, -1, 1, 0, 0, 0, -2]),
    "squeeze": old("Squeeze", axes=[0]),
    "squeeze all": old("Squeeze"),
    "unsqueeze": old("Unsqueeze", axes=[1, 5]),
    "sum": old("ReduceSum", axes=[1, 2], keepdims=0),
    "sum all": old("ReduceSum"),
    "mean": old("ReduceMean", axes=[2, 3], keepdims=0),
    "max": old("ReduceMax", axes=[1]),
    "split": old("Split", axis=1, split=[1, 3], outputs=2),
    "halves": old("Split", axis=1, outputs=2),
    "top": old("TopK", k=2, axis=-1, outputs=2),
    "upsample": old("Upsample", scales=[1.0, 1, 2, 2], mode="nearest"),
    "resize": old("Resize", (np.float32([1, 1, 2, 0.5]),), mode="nearest", opset=10),
    "batch normalization": old("BatchNormalization", CHANNELS, epsilon=1e-3, momentum=0.8),
    "dropout": old("Dropout", ratio=0.3),
    "softmax": old("Softmax"),
    "softmax of all": old("Softmax", axis=0),
    "log softmax": old("LogSoftmax", axis=2),
    "power": old("Pow", (np.float32(2),)),
}
"""Operators that are written otherwise in newer sets, or mean something else there where nothing is said."""


@pytest.mark.parametrize("form", CHANGED)
def test_what_newer_sets_write_otherwise_is_converted(form: str) -> None:
    """In onnxruntime also at ties, at limits and at zeros; that it is read alike everywhere is what `converted` asks"""
    given = admitted(CHANGED[form].SerializeToString())
    result = converted(given, 22, "network")
    assert result.file.opset == 22
    one, other = OnnxExecutor(given.file.content), OnnxExecutor(result.file.content)
    ladder = np.arange(np.prod(IMAGE), dtype=np.float32).reshape(one.input_shape) / 2 - 36
    points = np.stack([0 * ladder, 0 * ladder + 0.5, ladder, np.round(ladder % 3) - 1, 1e5 * ladder])
    np.testing.assert_allclose(one.run(points), other.run(points), rtol=1e-5, atol=1e-6)


def test_a_value_without_axes_stays_without() -> None:
    """-z becomes (-1) z; how many axes z has can be read, and become a number of the network's."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Neg", ["sum"], ["negative"]),
        helper.make_node("Shape", ["negative"], ["shape"]),
        helper.make_node("Size", ["shape"], ["axes"]),
        helper.make_node("Cast", ["axes"], ["number"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Add", ["negative", "number"], ["total"]),
        helper.make_node("Reshape", ["total", "row"], ["y"]),
    ]
    given = model(nodes, (1, 3), {"row": np.array([1, 1])}).SerializeToString()
    made = Composition(3, 17)
    composed = made.file([made.through(network(given, "network"), "part/", INPUT)])
    x = np.float32([[1, 2, 3]])
    np.testing.assert_array_equal(OnnxExecutor(given).run(x), [[-6]])
    np.testing.assert_array_equal(OnnxExecutor(composed).run(x), [[-6]])


def test_a_network_that_ends_in_another_type_is_refused() -> None:
    given = model([helper.make_node("Cast", ["x"], ["y"], to=onnx.TensorProto.DOUBLE)], (1, 3))
    given.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    part = network(given.SerializeToString(), "network")
    with pytest.raises(InvalidModel, match="network 'part/' ends in float64; export it in float32"):
        Composition(3, 17).through(part, "part/", INPUT)
