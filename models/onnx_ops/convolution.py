"""Convolutions, and pools over windows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from provenn.models.onnx_ops.contraction import along
from provenn.models.onnx_ops.plan import Constant, Node, Plan, Value, tensor
from provenn.models.onnx_ops.windows import means, paddings, require_pool, steps, windows
from provenn.models.tensors import Array
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.conv import Conv, ConvTranspose
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.pool import AveragePool

UNSURE = "whose shape runtimes infer otherwise than they compute it, and Shape tells the one they infer"


def conv(plan: Plan, node: Node) -> Sequence[Value]:
    """Conv in one, two or three dimensions."""
    x, weight, bias = _operands(plan, node)
    groups, kernel = node.attribute("group", 1), weight.shape[2:]
    _require_kernel(node, kernel)
    outer, inner = weight.shape[:2]
    node.require(groups > 0 and outer % groups == 0 and inner * groups == x.shape[1], _misfit(x, weight, groups))
    _require_bias(node, bias, outer)
    found = windows(plan, node, x.shape[2:], kernel)

    def make(array: Array, offset: Array | None = None) -> Op:
        form = found.stride, found.padding, found.dilation, groups
        return Conv(tensor(array), _bias(offset, outer), *form)

    parameters = [weight] if bias is None else [weight, bias]
    return [plan.emit(node, make, [x], (1, outer, *found.output), True, parameters)]


def conv_transpose(plan: Plan, node: Node) -> Sequence[Value]:
    """ConvTranspose in one, two or three dimensions."""
    x, weight, bias = _operands(plan, node)
    groups, kernel = node.attribute("group", 1), weight.shape[2:]
    _require_kernel(node, kernel)
    inner, outer = weight.shape[0], weight.shape[1] * groups
    node.require(groups > 0 and inner == x.shape[1] and inner % groups == 0, _misfit(x, weight, groups))
    _require_bias(node, bias, outer)
    rank = len(kernel)
    stride, dilation = steps(node, rank)
    extra = tuple(node.attribute("output_padding") or (0,) * rank)
    fits = len(extra) == rank and all(0 <= e < s for e, s in zip(extra, stride, strict=True))
    node.require(fits, f"output_padding {list(extra)} must be smaller than the strides {list(stride)}")
    rows = zip(x.shape[2:], stride, extra, dilation, kernel, strict=True)
    whole = tuple(s * (n - 1) + e + d * (k - 1) + 1 for n, s, e, d, k in rows)
    plan.limits.require_elements((outer, *whole), f"node '{node.name}': its output before it is cropped")
    padding = _crops(node, x.shape[2:], stride, extra, whole)
    size = tuple(w - b - e for w, b, e in zip(whole, padding[:rank], padding[rank:], strict=True))
    node.require(min(size) > 0, f"its output of spatial shape {list(size)} is empty")

    def make(array: Array, offset: Array | None = None) -> Op:
        return ConvTranspose(tensor(array), _bias(offset, outer), stride, padding, extra, dilation, groups)

    parameters = [weight] if bias is None else [weight, bias]
    return [plan.emit(node, make, [x], (1, outer, *size), True, parameters)]


def max_pool(plan: Plan, node: Node) -> Sequence[Value]:
    """MaxPool; its second output, the indices, is not computed."""
    x, kernel = _pooled(plan, node)
    node.flag("storage_order")
    found = windows(plan, node, x.shape[2:], kernel)
    require_pool(node, found, plan.limits)
    op = MaxPool(kernel, found.stride, found.padding, found.dilation, found.ceil)
    return [plan.emit(node, op, [x], (*x.shape[:2], *found.output), True)]


def global_max_pool(plan: Plan, node: Node) -> Sequence[Value]:
    """Maximum over all axes but the first two."""
    x = plan.held(node, node.input(0), True)
    kernel = x.shape[2:]
    _require_spatial(node, len(kernel))
    ones = (1,) * len(kernel)
    op = MaxPool(kernel, ones, (0,) * 2 * len(kernel), ones, False)
    return [plan.emit(node, op, [x], (*x.shape[:2], *ones), True)]


def average_pool(plan: Plan, node: Node) -> Sequence[Value]:
    """AveragePool; with dilation, the mean along one axis after the other."""
    x, kernel = _pooled(plan, node)
    counted = node.flag("count_include_pad")
    found = windows(plan, node, x.shape[2:], kernel)
    require_pool(node, found, plan.limits)
    if max(found.dilation) > 1:
        for axis, windows_ in enumerate(found.axes(x.shape[2:]), start=2):
            x = along(plan, node, x, axis, (windows_.windows, windows_.size), partial(means, windows_, counted))
        return [x]
    op = AveragePool(kernel, found.stride, found.padding, found.ceil, counted)
    return [plan.emit(node, op, [x], (*x.shape[:2], *found.output), True)]


def _crops(node: Node, size: Shape, stride: Shape, extra: Shape, whole: Shape) -> Shape:
    """What is cropped from the whole output: pads, or what brings it to output_shape or (automatic) to size * stride.

    Source: ONNX ConvTranspose: the odd cell is cropped at the end for SAME_UPPER, else at the beginning.
    """
    rank = len(size)
    target = node.attribute("output_shape")
    pads, automatic = paddings(node, rank)
    if target is None and automatic in ("NOTSET", "VALID"):
        return pads
    node.supported(not any(pads), "output_shape beside pads")
    if target is None:
        node.require(not any(extra), f"{automatic} with output_padding, {UNSURE}")
        target = [n * s for n, s in zip(size, stride, strict=True)]
    node.require(len(target) == rank, f"output_shape {list(target)} does not fit {rank} spatial axes")
    smaller = any(t < n for t, n in zip(target, size, strict=True))
    node.require(not smaller, f"output_shape {list(target)} below the input's {list(size)}, {UNSURE}")
    total = [w - t for w, t in zip(whole, target, strict=True)]
    node.supported(min(total) >= 0, f"output_shape {list(target)} beyond the output {list(whole)}")
    small, large = tuple(t // 2 for t in total), tuple(t - t // 2 for t in total)
    return small + large if automatic == "SAME_UPPER" else large + small


def _operands(plan: Plan, node: Node) -> tuple[Value, Constant, Constant | None]:
    x, weight = plan.held(node, node.input(0), True), node.constant(1, "the weight")
    node.require(len(x.shape) == len(weight.shape), f"a weight of shape {list(weight.shape)} on {list(x.shape)}")
    _require_spatial(node, len(x.shape) - 2)
    return x, weight, None if node.given(2) is None else node.constant(2, "the bias")


def _pooled(plan: Plan, node: Node) -> tuple[Value, Shape]:
    x, kernel = plan.held(node, node.input(0), True), tuple(node.attribute("kernel_shape") or ())
    _require_spatial(node, len(x.shape) - 2)
    node.require(len(kernel) == len(x.shape) - 2, f"kernel_shape {list(kernel)} on an input of shape {list(x.shape)}")
    return x, kernel


def _require_spatial(node: Node, rank: int) -> None:
    node.supported(1 <= rank <= 3, f"{rank} spatial axes; 1, 2 and 3 are read")


def _require_kernel(node: Node, kernel: Shape) -> None:
    given = tuple(node.attribute("kernel_shape") or kernel)
    node.require(given == kernel, f"kernel_shape {list(given)} is not the weight's {list(kernel)}")


def _require_bias(node: Node, bias: Constant | None, channels: int) -> None:
    node.require(bias is None or bias.shape == (channels,), f"the bias must have {channels} numbers")


def _bias(array: Array | None, channels: int) -> torch.Tensor:
    return torch.zeros(channels, dtype=torch.float64) if array is None else tensor(array)


def _misfit(x: Value, weight: Value, groups: int) -> str:
    return f"a weight of shape {list(weight.shape)} in {groups} groups does not fit an input of shape {list(x.shape)}"
