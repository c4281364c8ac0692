"""One row an op instance: joining this table covers a new op by every test of this folder."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from cases_affine import AFFINE_CASES
from cases_maxima import MAXIMA_CASES
from cases_products import PRODUCT_CASES
from cases_univariate import UNIVARIATE_CASES
from hypothesis import settings
from op_case import Case, OnnxNode, integers, numbers, scalar
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add, ReduceMean, ReduceSum, Scale, Sub
from provenn.verifier.ops.base import Affine, Elementwise
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import LeftLinear, Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.pool import AveragePool
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Expand, Pad, Reshape, Select, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

INFINITY = float("inf")

few, fewer = (settings(max_examples=int(os.environ.get("PROVENN_EXAMPLES", n)), deadline=None) for n in ("2", "1"))
"""Examples a row of a cross product; the products are large, so each row is drawn a few times in every run;
fewer where soundness is not what is asked."""


def conv(name: str, size: tuple[int, ...], weight: tuple[int, ...], **how: Any) -> Case:
    d = len(size)
    stride, padding = how.get("stride", (1,) * d), how.get("padding", (0,) * 2 * d)
    dilation, groups = how.get("dilation", (1,) * d), how.get("groups", 1)
    w, b = numbers(*weight), numbers(weight[0])
    attributes = {"strides": stride, "pads": padding, "dilations": dilation, "group": groups}
    node = OnnxNode("Conv", (None, w, b), attributes)
    return Case(f"conv{d}d-{name}", Conv(w, b, stride, padding, dilation, groups), ((weight[1] * groups, *size),), node)


def transposed(name: str, size: tuple[int, ...], weight: tuple[int, ...], **how: Any) -> Case:
    d = len(size)
    stride, padding = how.get("stride", (1,) * d), how.get("padding", (0,) * 2 * d)
    added, dilation = how.get("output_padding", (0,) * d), how.get("dilation", (1,) * d)
    groups = how.get("groups", 1)
    w, b = numbers(*weight), numbers(weight[1] * groups)
    attributes = {
        "strides": stride,
        "pads": padding,
        "output_padding": added,
        "dilations": dilation,
        "group": groups,
    }
    op = ConvTranspose(w, b, stride, padding, added, dilation, groups)
    return Case(
        f"conv-transpose{d}d-{name}", op, ((weight[0], *size),), OnnxNode("ConvTranspose", (None, w, b), attributes)
    )


def average(name: str, size: tuple[int, ...], kernel: tuple[int, ...], **how: Any) -> Case:
    d = len(kernel)
    stride, padding = how.get("stride", kernel), how.get("padding", (0,) * 2 * d)
    ceil, counted = how.get("ceil", False), how.get("counted", False)
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": padding}
    attributes |= {"ceil_mode": int(ceil), "count_include_pad": int(counted)}
    op = AveragePool(kernel, stride, padding, ceil, counted)
    return Case(f"average-pool-{name}", op, ((2, *size),), OnnxNode("AveragePool", (None,), attributes))


def maximum(name: str, size: tuple[int, ...], kernel: tuple[int, ...], **how: Any) -> Case:
    d = len(kernel)
    stride, padding = how.get("stride", kernel), how.get("padding", (0,) * 2 * d)
    dilation, ceil = how.get("dilation", (1,) * d), how.get("ceil", False)
    attributes = {"kernel_shape": kernel, "strides": stride, "pads": padding}
    attributes |= {"dilations": dilation, "ceil_mode": int(ceil)}
    op = MaxPool(kernel, stride, padding, dilation, ceil)
    return Case(f"max-pool-{name}", op, ((2, *size),), OnnxNode("MaxPool", (None,), attributes))


def batch_normalization() -> Case:
    scale, bias, mean = numbers(3), numbers(3) + 1, numbers(3) / 2
    variance = numbers(3) ** 2 + 0.5
    weight = scale / torch.sqrt(variance + 1e-5)
    shape = (3, 1, 1)
    op = Scale(weight.reshape(shape), (bias - mean * weight).reshape(shape))
    node = OnnxNode("BatchNormalization", (None, scale, bias, mean, variance), {"epsilon": 1e-5})
    return Case("scale-batch-normalization", op, ((3, 2, 4),), node)


def clip(name: str, minimum: float, maximum: float) -> Case:
    limits = [np.float32(v) if np.isfinite(v) else "" for v in (minimum, maximum)]
    return Case(f"clip-{name}", Clip(minimum, maximum), ((3, 5),), OnnxNode("Clip", (None, *limits)))


def leaky(name: str, slope: float) -> Case:
    node = OnnxNode("LeakyRelu", (None,), {"alpha": slope})
    return Case(f"leaky-relu-{name}", LeakyRelu(slope), ((3, 5),), node)


def linear_cases() -> list[Case]:
    w, b, m = numbers(4, 6), numbers(4), numbers(5, 3)
    return [
        Case("linear-gemm", Linear(w, b), ((6,),), OnnxNode("Gemm", (None, w, b), {"transB": 1})),
        Case("linear-matmul", Linear(w, torch.zeros(4).double()), ((3, 6),), OnnxNode("MatMul", (None, w.T))),
        Case("left-linear", LeftLinear(m), ((3, 4),), OnnxNode("MatMul", (m, None))),
    ]


def conv_cases() -> list[Case]:
    return [
        conv("plain", (7,), (4, 3, 3)),
        conv("uneven", (9,), (4, 3, 2), stride=(3,), padding=(2, 1), dilation=(2,)),
        conv("same", (6, 5), (4, 3, 3, 3), padding=(1, 1, 1, 1)),
        conv("strided", (8, 7), (4, 2, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
        conv("unread", (8, 6), (3, 2, 2, 3), stride=(3, 2), padding=(0, 1, 0, 1)),
        conv("uneven", (6, 7), (4, 2, 3, 2), stride=(2, 3), padding=(0, 2, 1, 1), dilation=(1, 2)),
        conv("grouped", (5, 5), (4, 1, 3, 3), padding=(1, 1, 1, 1), groups=4),
        conv("two-groups", (5, 4), (6, 2, 2, 2), stride=(2, 1), padding=(0, 0, 1, 0), groups=2),
        conv("kernel-1", (4, 4), (5, 3, 1, 1), stride=(2, 2)),
        conv("plain", (4, 3, 5), (2, 2, 2, 2, 3), stride=(2, 1, 2), padding=(1, 0, 1, 0, 1, 0)),
        transposed("plain", (5,), (3, 2, 3)),
        transposed("uneven", (4,), (3, 2, 4), stride=(2,), padding=(2, 1), output_padding=(1,)),
        transposed("even", (4, 3), (3, 2, 4, 4), stride=(2, 2), padding=(1, 1, 1, 1)),
        transposed("added", (4, 3), (3, 2, 3, 3), stride=(2, 2), padding=(1, 1, 1, 1), output_padding=(1, 1)),
        transposed("uneven", (3, 4), (4, 2, 3, 2), stride=(2, 3), padding=(0, 1, 1, 0), dilation=(2, 1), groups=2),
        transposed("plain", (2, 3, 2), (2, 2, 2, 2, 2), stride=(2, 1, 2), padding=(1, 0, 0, 0, 1, 0)),
    ]


def pool_cases() -> list[Case]:
    return [
        average("1d", (7,), (2,), stride=(2,), padding=(1, 0)),
        average("plain", (6, 6), (2, 2)),
        average("border", (5, 6), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1)),
        average("border-counted", (5, 6), (3, 3), stride=(2, 2), padding=(1, 1, 1, 1), counted=True),
        average("uneven", (6, 5), (3, 2), stride=(2, 1), padding=(0, 1, 2, 0)),
        average("uneven-counted", (6, 5), (3, 2), stride=(2, 1), padding=(0, 1, 2, 0), counted=True),
        average("ceil", (6, 5), (3, 2), stride=(2, 2), ceil=True),
        average("ceil-border", (7, 6), (3, 3), stride=(2, 2), padding=(1, 0, 1, 1), ceil=True),
        average("ceil-counted", (7, 6), (3, 3), stride=(3, 2), padding=(1, 0, 1, 1), ceil=True, counted=True),
        average("ceil-beyond", (5, 5), (2, 2), stride=(3, 3), padding=(0, 0, 1, 1), ceil=True),
        average("3d", (4, 3, 4), (2, 2, 2), stride=(2, 1, 2), padding=(0, 1, 0, 0, 0, 1)),
        maximum("1d", (7,), (3,), stride=(2,), padding=(1, 1)),
        maximum("plain", (6, 4), (2, 2)),
        maximum("overlapping", (5, 5), (3, 3), stride=(1, 1)),
        maximum("uneven", (6, 5), (3, 2), stride=(2, 1), padding=(0, 1, 2, 0)),
        maximum("dilated", (7, 6), (2, 3), stride=(2, 1), padding=(1, 0, 0, 1), dilation=(3, 2)),
        maximum("ceil", (6, 5), (3, 2), stride=(2, 2), ceil=True),
        maximum("kernel-1", (4, 4), (1, 1), stride=(2, 2)),
        maximum("3d", (4, 3, 4), (2, 2, 2), stride=(2, 1, 2), padding=(0, 1, 0, 0, 0, 1)),
    ]


def shape_cases() -> list[Case]:
    sliced = OnnxNode("Slice", (None, integers(0), integers(5), integers(2), integers(2)))
    reverse = OnnxNode("Slice", (None, integers(3), integers(0), integers(1), integers(-1)))
    gathered = OnnxNode("Gather", (None, integers(2, 0, 2)), {"axis": 1})
    padded = OnnxNode("Pad", (None, integers(0, 1, 0, 0, 2, 3), np.float32(0.5)))
    cropped = OnnxNode("Pad", (None, integers(0, -1, 2, 0, 1, -2), np.float32(0.0)))
    return [
        Case("reshape", Reshape((4, 3)), ((2, 6),), OnnxNode("Reshape", (None, integers(-1, 4, 3)))),
        Case("reshape-flatten", Reshape((12,)), ((2, 3, 2),), OnnxNode("Flatten", (None,), {"axis": 1})),
        Case("transpose", Transpose((2, 0, 1)), ((2, 3, 4),), OnnxNode("Transpose", (None,), {"perm": (0, 3, 1, 2)})),
        Case("select-slice", Select(1, (0, 2, 4)), ((2, 5),), sliced),
        Case("select-reverse", Select(0, (3, 2, 1)), ((4, 3),), reverse),
        Case("select-repeated", Select(0, (2, 0, 2)), ((3, 4),), gathered),
        Case("pad", Pad((1, 0, 2, 3), 0.5), ((2, 3),), padded),
        Case("pad-crop", Pad((-1, 2, 1, -2), 0.0), ((3, 4),), cropped),
        Case("concat", Concat(1), ((2, 3), (2, 1), (2, 2)), OnnxNode("Concat", (None, None, None), {"axis": 2})),
        Case("expand", Expand((3, 4)), ((3, 1),), OnnxNode("Expand", (None, integers(1, 3, 4)))),
    ]


def arithmetic_cases() -> list[Case]:
    enlarging = numbers(3, 4)
    zero, one = scalar(0.0), scalar(1.0)
    mixed = numbers(3, 1)
    mixed[1] = 0
    sums = OnnxNode("ReduceSum", (None, integers(2)), {"keepdims": 0})
    means = OnnxNode("ReduceMean", (None, integers(2, 3)), {"keepdims": 1})
    return [
        Case("add", Add(), ((3, 4), (3, 4)), OnnxNode("Add", (None, None))),
        Case("add-broadcast", Add(), ((3, 1), (2, 3, 4)), None),
        Case("add-three", Add(), ((4,), (4,), (4,)), OnnxNode("Sum", (None, None, None))),
        Case("sub", Sub(), ((3, 4), (3, 4)), OnnxNode("Sub", (None, None))),
        Case("sub-broadcast", Sub(), ((3, 1), (1, 4)), OnnxNode("Sub", (None, None))),
        Case("scale-mul", Scale(mixed, zero), ((3, 4),), OnnxNode("Mul", (None, mixed))),
        Case("scale-add", Scale(one, numbers(4)), ((3, 4),), OnnxNode("Add", (None, numbers(4)))),
        Case("scale-sub-from", Scale(-one, numbers(4)), ((3, 4),), OnnxNode("Sub", (numbers(4), None))),
        Case("scale-enlarging", Scale(enlarging, zero), ((3, 1),), OnnxNode("Mul", (None, enlarging))),
        Case("scale-bias-enlarging", Scale(-one, enlarging), ((1, 4),), OnnxNode("Sub", (enlarging, None))),
        batch_normalization(),
        Case("reduce-sum", ReduceSum((1,), False), ((3, 4),), sums),
        Case("reduce-mean", ReduceMean((1, 2), True), ((3, 4, 2),), means),
        Case("global-average", ReduceMean((1, 2), True), ((3, 4, 5),), OnnxNode("GlobalAveragePool")),
    ]


def elementwise_cases() -> list[Case]:
    return [
        Case("relu", Relu(), ((3, 5),), OnnxNode("Relu")),
        leaky("usual", 0.01),
        leaky("identity", 1.0),
        leaky("flat", 0.0),
        leaky("concave", 2.5),
        leaky("negative", -0.5),
        clip("relu6", 0.0, 6.0),
        clip("narrow", -0.25, 0.5),
        clip("below", -0.5, INFINITY),
        clip("above", -INFINITY, 0.75),
        clip("never", -INFINITY, INFINITY),
        clip("constant", 0.5, 0.5),
        Case("sigmoid", Sigmoid(), ((3, 5),), OnnxNode("Sigmoid")),
        Case("tanh", Tanh(), ((3, 5),), OnnxNode("Tanh")),
    ]


CASES = linear_cases() + conv_cases() + pool_cases() + shape_cases() + arithmetic_cases() + elementwise_cases()
CASES += AFFINE_CASES
CASES += MAXIMA_CASES
CASES += UNIVARIATE_CASES
CASES += PRODUCT_CASES
AFFINE = [case for case in CASES if isinstance(case.op, Affine)]
NONLINEAR = [case for case in CASES if not isinstance(case.op, Affine)]
ELEMENTWISE = [case for case in CASES if isinstance(case.op, Elementwise)]

BOXES = ("wide", "point", "huge", "tiny", "positive", "negative", "touching-below", "touching-above", "skewed", "mixed")


def box(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> Interval:
    """A box [2, *shape] of one kind; "mixed" draws the kind of every coordinate on its own."""

    def uniform() -> Tensor:
        return torch.rand((2, *shape), generator=generator, dtype=torch.float64)

    if kind == "mixed":
        parts = [box(k, shape, generator) for k in BOXES[:-1]]
        which = torch.randint(len(parts), (2, *shape), generator=generator)
        lower = torch.stack([p.lower for p in parts]).gather(0, which[None])[0]
        upper = torch.stack([p.upper for p in parts]).gather(0, which[None])[0]
        return Interval(lower, upper)
    centre, radius = 4 * uniform() - 2, 3 * uniform()
    if kind == "point":
        return Interval(centre, centre)
    if kind == "huge":
        return Interval(1e6 * (centre - radius), 1e6 * (centre + radius))
    if kind == "tiny":
        return Interval(centre - 1e-12 * radius, centre + 1e-12 * radius)
    if kind == "positive":
        return Interval(1e-3 + radius, 1e-3 + radius + uniform())
    if kind == "negative":
        return Interval(-1e-3 - radius - uniform(), -1e-3 - radius)
    if kind == "touching-below":
        return Interval(torch.zeros_like(radius), radius)
    if kind == "touching-above":
        return Interval(-radius, torch.zeros_like(radius))
    if kind == "skewed":
        return Interval(-(10 ** (6 * uniform() - 4)), 10 ** (6 * uniform() - 4))
    return Interval(centre - radius, centre + radius)


def points(x: Interval, count: int, generator: torch.Generator) -> Tensor:
    """[count, batch, *node] inside the box: corners and inner points, the ends of every coordinate often hit."""
    shape = (count, *x.lower.shape)
    place = torch.rand(shape, generator=generator, dtype=torch.float64)
    place = torch.where(torch.rand(shape, generator=generator) < 0.5, place.round(), place)
    return torch.minimum(torch.maximum(x.lower + place * (x.upper - x.lower), x.lower), x.upper)
