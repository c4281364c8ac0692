"""Products with weights: linear layers, matrix products, convolutions."""

from __future__ import annotations

from provenn.models import onnx_layers as layers
from provenn.models import onnx_shapes as shapes
from provenn.models.onnx_writer import Value, Writer
from provenn.models.pt2.call import Call


def linear(w: Writer, call: Call) -> list[Value]:
    """Input weight' + bias."""
    return [layers.linear(w, call.tensor("input"), call.tensor("weight"), call.optional("bias"))]


def matmul(w: Writer, call: Call) -> list[Value]:
    """Self other."""
    return [layers.matmul(w, call.tensor("self"), call.tensor("other"))]


def mm(w: Writer, call: Call) -> list[Value]:
    """Self mat2."""
    return [layers.matmul(w, call.tensor("self"), call.tensor("mat2"))]


def addmm(w: Writer, call: Call) -> list[Value]:
    """Beta self + alpha mat1 mat2."""
    bias, x, y = call.tensor("self"), call.tensor("mat1"), call.tensor("mat2")
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    w.require(alpha == beta == 1, f"addmm with alpha {alpha}, beta {beta}; only 1 is read")
    w.require(len(x.shape) == len(y.shape) == 2, "addmm of values that are not matrices")
    if bias.shape == y.shape[1:] and y.numbers is not None:
        return [layers.linear(w, x, shapes.transpose(w, y, (1, 0)), bias)]
    return [layers.arithmetic(w, "Add", layers.matmul(w, x, y), bias)]


def convolution(w: Writer, call: Call) -> list[Value]:
    """conv1d, conv2d, conv3d with padding in numbers, and the general one that they are decomposed into."""
    if call.node.target.endswith("aten.convolution.default"):
        w.require(not call.flag("transposed"), "a transposed convolution is not read")
        w.require(not any(call.integers("output_padding", ())), "output_padding belongs to a transposed convolution")
    return [_convolution(w, call, call.integers("padding", (0,)))]


def padded_convolution(w: Writer, call: Call) -> list[Value]:
    """conv1d, conv2d, conv3d with padding "same" or "valid"."""
    return [_convolution(w, call, call.text("padding", "valid"))]


def _convolution(w: Writer, call: Call, padding: tuple[int, ...] | str) -> Value:
    x, weights = call.tensor("input"), (call.tensor("weight"), call.optional("bias"))
    stride, dilation = call.integers("stride", (1,)), call.integers("dilation", (1,))
    return layers.convolution(w, x, weights, stride, padding, dilation, call.integer("groups", 1))


TABLE = {
    "linear.default": linear,
    "matmul.default": matmul,
    "mm.default": mm,
    "bmm.default": mm,
    "addmm.default": addmm,
    "convolution.default": convolution,
    **{f"conv{n}d.default": convolution for n in (1, 2, 3)},
    **{f"conv{n}d.padding": padded_convolution for n in (1, 2, 3)},
}
