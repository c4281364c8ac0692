"""How the windows of convolutions and pools lie: kernel, strides, dilations and every form of padding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from provenn.models.limits import Limits
from provenn.models.onnx_ops.plan import Node, Plan
from provenn.models.tensors import Array
from provenn.verifier.errors import ResourceLimit
from provenn.verifier.ops.base import Shape
from provenn.verifier.ops.pool import Axis


@dataclass(frozen=True)
class Windows:
    """padding: all beginnings, then all ends; output: how many windows there are along each axis."""

    kernel: Shape
    stride: Shape
    dilation: Shape
    padding: Shape
    ceil: bool
    output: Shape

    def axes(self, size: Shape) -> list[Axis]:
        """The windows along each axis of an input of `size`."""
        rank = len(size)
        ends = zip(self.padding[:rank], self.padding[rank:], strict=True)
        rows = zip(size, self.kernel, self.stride, ends, self.dilation, strict=True)
        return [Axis(n, k, s, begin, end, d, self.ceil) for n, k, s, (begin, end), d in rows]


def windows(plan: Plan, node: Node, size: Shape, kernel: Shape) -> Windows:
    """The windows of `kernel` over the spatial axes `size`; reads strides, dilations, pads, auto_pad, ceil_mode.

    SAME_UPPER and SAME_LOWER: ceil(size / stride) windows, the padding split evenly, the odd cell at the end or at
    the beginning.   Source: ONNX, Conv and MaxPool.
    """
    rank = len(size)
    stride, dilation = steps(node, rank)
    padding, automatic = paddings(node, rank)
    ceil = node.flag("ceil_mode")
    node.require(len(kernel) == rank and min(kernel) > 0, f"kernel {list(kernel)} does not fit {rank} spatial axes")
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        node.supported(max(dilation) == 1, f"{automatic} with dilations, which runtimes pad differently")
        padding = _same(node, size, kernel, stride, automatic)
    found = Windows(kernel, stride, dilation, padding, ceil, ())
    axes = found.axes(size)
    plan.limits.require_elements([a.size + a.begin + a.end for a in axes], f"node '{node.name}': its padded input")
    for axis in axes:
        whole = axis.size + axis.begin + axis.end
        node.require(axis.span <= whole, f"its kernel spans {axis.span} cells, the padded axis has {whole}")
        # onnxruntime leaves such a window out of the result, but not of the shape that Shape and others make of it.
        plain = -(-(whole - axis.span) // axis.stride) + 1
        node.require(not ceil or axis.windows == plain, "ceil_mode, with a last window in the padding alone")
    return Windows(kernel, stride, dilation, padding, ceil, tuple(axis.windows for axis in axes))


def _same(node: Node, size: Shape, kernel: Shape, stride: Shape, automatic: str) -> Shape:
    missing = [(-(-n // s) - 1) * s + k - n for n, k, s in zip(size, kernel, stride, strict=True)]
    # The specification is silent about windows that end before the input does; onnxruntime moves or refuses them.
    least = -1 if node.operator == "Conv" else 0
    node.supported(min(missing) >= least, f"{automatic} with strides {list(stride)} beyond the kernel {list(kernel)}")
    small, large = tuple(max(n, 0) // 2 for n in missing), tuple(-(-max(n, 0) // 2) for n in missing)
    return small + large if automatic == "SAME_UPPER" else large + small


def steps(node: Node, rank: int) -> tuple[Shape, Shape]:
    """(strides, dilations), ones by default."""
    stride, dilation = (tuple(node.attribute(name) or (1,) * rank) for name in ("strides", "dilations"))
    node.require(len(stride) == len(dilation) == rank, f"strides or dilations do not fit {rank} spatial axes")
    node.require(min(*stride, *dilation) > 0, "strides and dilations must be positive")
    return stride, dilation


def paddings(node: Node, rank: int) -> tuple[Shape, str]:
    """(pads, auto_pad): explicit pads are zeros where they are automatic."""
    pads, automatic = tuple(node.attribute("pads") or (0,) * 2 * rank), node.attribute("auto_pad", "NOTSET")
    node.require(len(pads) == 2 * rank and min(pads) >= 0, f"pads {list(pads)} do not fit {rank} spatial axes")
    node.require(automatic in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"), f"auto_pad '{automatic}' is unknown")
    node.require(automatic == "NOTSET" or not any(pads), "it has both pads and auto_pad")
    return pads, automatic


def require_pool(node: Node, found: Windows, limits: Limits) -> None:
    """Raises: InvalidModel for padding as wide as the kernel; ResourceLimit for too many cells along one axis."""
    wide = any(p >= k for p, k in zip(found.padding, found.kernel * 2, strict=True))
    node.require(not wide, f"pads {list(found.padding)} as wide as the kernel {list(found.kernel)}")
    for count, extent in zip(found.output, found.kernel, strict=True):
        if count * extent > limits.cells:
            raise ResourceLimit(f"node '{node.name}': cells of the pooling windows along one axis", str(limits.cells))


def means(axis: Axis, counted: bool) -> Array:
    """The mean over every window of one axis: [windows, cells]; counted: whether the padding's zeros are cells."""
    matrix = np.zeros((axis.windows, axis.size))
    for window in range(axis.windows):
        cells = list(axis.cells(window))
        before, after = (axis.begin, axis.end) if counted else (0, 0)
        count = sum(-before <= cell < axis.size + after for cell in cells)
        inside = [cell for cell in cells if 0 <= cell < axis.size]
        matrix[window, inside] = 1 / count
    return matrix
