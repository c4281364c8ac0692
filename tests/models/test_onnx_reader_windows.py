"""Random windows of convolutions and pools: what is read agrees with onnxruntime, and runs there."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_kit import OneOp, require_agreement

from provenn.models.onnx_reader import read
from provenn.verifier.errors import InvalidModel

AUTOMATIC = ["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]


@st.composite
def windowed(draw: st.DrawFn) -> OneOp:
    op = draw(st.sampled_from(["Conv", "ConvTranspose", "AveragePool", "MaxPool"]))
    axes = draw(st.integers(1, 2))

    def each(low: int, high: int, count: int = axes) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    size, kernel = each(1, 9), each(1, 4)
    attributes: dict[str, Any] = {"strides": each(1, 4)}
    if op != "AveragePool" and draw(st.booleans()):
        attributes["dilations"] = each(1, 3)
    if draw(st.booleans()):
        attributes["pads"] = each(0, 3, 2 * axes)
    else:
        attributes["auto_pad"] = draw(st.sampled_from(AUTOMATIC))
    if op.endswith("Pool"):
        attributes |= {"kernel_shape": kernel, "ceil_mode": draw(st.integers(0, 1))}
        if op == "AveragePool":
            attributes["count_include_pad"] = draw(st.integers(0, 1))
        return OneOp(op, (1, 4, *size), (), attributes, draw(st.sampled_from([11, 18, 19, 22])))
    groups = attributes["group"] = draw(st.integers(1, 2))
    if op == "ConvTranspose":
        attributes["output_padding"] = each(0, 2)
        if "pads" not in attributes and draw(st.booleans()):
            attributes["output_shape"] = each(1, 20)
    shape = (4, 2 if op == "ConvTranspose" else 4 // groups, *kernel)
    weight = np.random.default_rng(sum(kernel)).standard_normal(shape).astype(np.float32)
    return OneOp(op, (1, 4, *size), (weight,), attributes, draw(st.sampled_from([11, 22])))


@settings(max_examples=100, deadline=None)
@given(form=windowed())
def test_what_is_read_agrees_with_onnxruntime(form: OneOp) -> None:
    data = form.model().SerializeToString()
    try:
        read(data)
    except InvalidModel as refusal:
        assert refusal.node == f"{form.op}_0"
        return
    require_agreement(data)
