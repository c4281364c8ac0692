"""Convolution and its transpose, in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Affine, Shape, WindowLinearization
from provenn.verifier.ops.window import Ints, Window, Windowed, padded

_CONVOLUTION = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)

FEW_CHANNELS, MANY_CHANNELS = 8, 48
"""Input channels below, and from, which other ways of transposing a convolution are the faster ones (measured)."""

SMALL_MATRIX, DENSE = 1 << 17, 8
"""Elements of a convolution's whole matrix, and times its kernel's work, up to which a product with it is faster."""


@dataclass(frozen=True)
class Steps:
    """How a kernel of `extent` cells (dilation included) moves over an axis, for every axis."""

    stride: Ints
    dilation: Ints
    groups: int

    def span(self, weight: Tensor) -> Ints:
        """Cells that the kernel covers along each axis: dilation (k - 1) + 1."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, weight.shape[2:], strict=True))

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None, begin: Ints, end: Ints) -> Tensor:
        """Convolution of x padded with `begin` and `end` zeros (cropped where negative)."""
        convolution = _CONVOLUTION[len(begin) - 1]
        if begin != end or min(begin) < 0:
            x, begin = padded(x, begin, end), (0,) * len(begin)
        return convolution(x, weight, bias, self.stride, begin, self.dilation, self.groups)

    def transpose(self, x: Tensor, weight: Tensor, begin: Ints, end: Ints) -> Tensor:
        """Transposed convolution of x with `begin` and `end` cells cropped (zeros added where negative).

        torch crops p at both ends and adds o zeros at the far end: p = begin, o = begin - end where it allows that.
        """
        if len(begin) == 2 and self.groups == 1 and max(self.dilation) == 1 and len(set(self.stride)) == 1:
            quick = self._quick(x, weight)
            if quick is not None:
                return padded(quick, tuple(-b for b in begin), tuple(-e for e in end))
        transposed = _TRANSPOSED[len(begin) - 1]
        added = tuple(b - e for b, e in zip(begin, end, strict=True))
        limits = [max(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        if min(begin) >= 0 and all(0 <= a < limit for a, limit in zip(added, limits, strict=True)):
            return transposed(x, weight, None, self.stride, begin, added, self.groups, self.dilation)
        zeros = (0,) * len(begin)
        whole = transposed(x, weight, None, self.stride, zeros, zeros, self.groups, self.dilation)
        return padded(whole, tuple(-b for b in begin), tuple(-e for e in end))

    def _quick(self, x: Tensor, weight: Tensor) -> Tensor | None:
        """The whole result where there is a faster way on a processor (measured, often 2 times); else None."""
        stride, size, inner = self.stride[0], tuple(weight.shape[2:]), weight.shape[1]
        whole = [stride * (n - 1) + k for n, k in zip(x.shape[2:], size, strict=True)]
        if size == (1, 1) or (stride > 1 and inner < FEW_CHANNELS and any(k % stride for k in size)):
            products = torch.matmul(weight.flatten(1).T, x.flatten(2))
            return torch.nn.functional.fold(products, tuple(whole), size, stride=stride)
        if any(k % stride for k in size) or (stride == 1 and inner >= MANY_CHANNELS):
            return None
        # Cell s m + a of the result reads only the kernel's cells a, a + s, ..: one kernel of stride 1 a phase a.
        cells = [k // stride for k in size]
        phases = weight.reshape(-1, inner, cells[0], stride, cells[1], stride).permute(1, 3, 5, 0, 2, 4)
        flipped = phases.reshape(inner * stride**2, -1, *cells).flip(2, 3)
        product = torch.conv2d(x, flipped, None, 1, [k - 1 for k in cells])
        return torch.nn.functional.pixel_shuffle(product, stride)


@dataclass(frozen=True)
class Conv(Affine):
    """Convolution: x [in, *size] -> [out, *size'];  weight [out, in / groups, *kernel], bias [out] (zeros for none).

    padding: ONNX's, all beginnings then all ends; zeros are padded, and cells cropped where it is negative.
    """

    weight: Tensor
    bias: Tensor
    stride: Ints
    padding: Ints
    dilation: Ints
    groups: int

    onnx = ("Conv",)
    has_offset = True

    @property
    def _steps(self) -> Steps:
        return Steps(self.stride, self.dilation, self.groups)

    def apply(self, *inputs: Tensor) -> Tensor:
        """W * x + b."""
        return self._steps.convolve(inputs[0], self.weight, self.bias, *split_padding(self.padding))

    def magnitude(self, *radii: Tensor) -> Tensor:
        """|W| * r."""
        return self._steps.convolve(radii[0], self.weight.abs(), None, *split_padding(self.padding))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The transposed convolution, cropped to the input: cells that no window reaches get zero."""
        begin, _ = split_padding(self.padding)
        return (self._transposed(coefficients, tuple(shapes[0]), begin),)

    def _transposed(self, coefficients: Tensor, shape: Shape, begin: Ints) -> Tensor:
        """Of [rows, out, *size] over an input of that shape, whose first windows begin `begin` cells before it."""
        if coefficients.shape[0] == 1 or not self._is_small(tuple(coefficients.shape[1:]), shape):
            return self._convolved(coefficients, shape, begin)
        key = (tuple(coefficients.shape[1:]), shape, begin)
        matrix = self._matrices.get(key)
        if matrix is None:
            size = coefficients[0].numel()
            unit = torch.eye(size, dtype=self.weight.dtype, device=self.weight.device)
            matrix = self._convolved(unit.reshape(size, *coefficients.shape[1:]), shape, begin).flatten(1)
            self._matrices[key] = matrix
        return (coefficients.flatten(1) @ matrix).reshape(-1, *shape)

    @cached_property
    def _matrices(self) -> dict[tuple[Shape, Shape, Ints], Tensor]:
        """The whole matrix of a small convolution, by its output's and input's shape and where it begins: as needed."""
        return {}

    def _is_small(self, output: Shape, shape: Shape) -> bool:
        """Whether a product with the whole matrix is faster (measured): it is little larger than the kernel's work."""
        elements = prod(output) * prod(shape)
        little = elements <= DENSE * prod(output) * self.weight[0].numel()
        return little and elements <= max(SMALL_MATRIX, self.weight.numel())

    def _convolved(self, coefficients: Tensor, shape: Shape, begin: Ints) -> Tensor:
        # The last of o windows of span k, s apart, ends at s (o - 1) + k of the padded axis, where the input ends
        # at begin + n: the difference is cropped, or filled with zeros.
        axes = zip(self.stride, coefficients.shape[2:], self._steps.span(self.weight), strict=True)
        reached = [s * (o - 1) + k for s, o, k in axes]
        end = tuple(r - b - n for r, b, n in zip(reached, begin, shape[1:], strict=True))
        return self._steps.transpose(coefficients, self.weight, begin, end)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor:
        """b, at every output cell."""
        begin, end = split_padding(self.padding)
        spans = zip(shapes[0][1:], begin, end, self.stride, self._steps.span(self.weight), strict=True)
        size = [(n + b + e - k) // s + 1 for n, b, e, s, k in spans]
        return per_channel(self.bias, len(size)).expand(1, -1, *size)

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The cells under the kernel, for every cell of the window."""
        begin, _ = split_padding(self.padding)
        span = self._steps.span(self.weight)
        stride = tuple(s * t for s, t in zip(self.stride, window.stride, strict=True))
        offset = tuple(s * o + b for s, o, b in zip(self.stride, window.offset, begin, strict=True))
        extent = tuple(s * (e - 1) + k for s, e, k in zip(self.stride, window.extent, span, strict=True))
        return (Window(window.grid, stride, offset, extent),)

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """The transposed convolution of every row's window; cells in the padding are cleared by who reads them."""
        shapes = [tuple(inputs[0].lower.shape[1:])]
        size = tuple(self.offset(shapes, self.bias).shape[2:])

        def pull(rows: Windowed) -> tuple[tuple[Windowed, ...], Tensor | None]:
            rows = rows.cleared(size)
            reached = self.reach(rows.window, shapes)
            assert reached is not None
            extent = (shapes[0][0], *reached[0].extent)
            values = self._transposed(rows.values.flatten(0, 1), extent, (0,) * len(self.stride))
            values = values.reshape(*rows.values.shape[:2], *values.shape[1:])
            constant = rows.values.flatten(3).sum(3) @ self.bias
            return (Windowed(reached[0], rows.cells, values, inside=False),), constant

        return pull


@dataclass(frozen=True)
class ConvTranspose(Affine):
    """Transposed convolution: x [in, *size] -> [out, *size'];  weight [in, out / groups, *kernel], bias [out].

    size' = stride (size - 1) + output_padding + dilation (kernel - 1) + 1 - padding's beginning and end; padding is
    ONNX's, all beginnings then all ends, and crops the output.
    """

    weight: Tensor
    bias: Tensor
    stride: Ints
    padding: Ints
    output_padding: Ints
    dilation: Ints
    groups: int

    onnx = ("ConvTranspose",)
    has_offset = True

    @property
    def _steps(self) -> Steps:
        return Steps(self.stride, self.dilation, self.groups)

    @property
    def _crops(self) -> tuple[Ints, Ints]:
        begin, end = split_padding(self.padding)
        return begin, tuple(e - o for e, o in zip(end, self.output_padding, strict=True))

    def apply(self, *inputs: Tensor) -> Tensor:
        """W^T * x + b."""
        product = self._steps.transpose(inputs[0], self.weight, *self._crops)
        return product + per_channel(self.bias, len(self.stride))

    def magnitude(self, *radii: Tensor) -> Tensor:
        """|W|^T * r."""
        return self._steps.transpose(radii[0], self.weight.abs(), *self._crops)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The convolution of coefficients padded with zeros where the output was cropped."""
        return (self._steps.convolve(coefficients, self.weight, None, *self._crops),)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor:
        """b, at every output cell."""
        return per_channel(self.bias, len(self.stride)).expand(1, -1, *self._size(shapes[0]))

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The cells whose kernels reach the window; only windows that move by multiples of the stride have a rule."""
        if any(t % s for t, s in zip(window.stride, self.stride, strict=True)):
            return None
        firsts, extents = [], []
        for axis, (s, before) in enumerate(self._before(window)):
            end = self._crops[0][axis] - window.offset[axis] + window.extent[axis] - 1
            firsts.append(before // s)
            extents.append(max(1, end // s - before // s + 1))
        stride = tuple(t // s for t, s in zip(window.stride, self.stride, strict=True))
        return (Window(window.grid, stride, tuple(-first for first in firsts), tuple(extents)),)

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """The convolution of every row's window; cells beyond the output are cleared first."""
        shapes = [tuple(inputs[0].lower.shape[1:])]

        def pull(rows: Windowed) -> tuple[tuple[Windowed, ...], Tensor | None]:
            rows = rows.cleared(self._size(shapes[0]))
            reached = self.reach(rows.window, shapes)
            assert reached is not None
            begin = [self._gap(rows.window, axis) for axis in range(len(self.stride))]
            whole = zip(self.stride, reached[0].extent, self._steps.span(self.weight), strict=True)
            lengths = [s * (e - 1) + k for s, e, k in whole]
            end = tuple(n - b - e for n, b, e in zip(lengths, begin, rows.window.extent, strict=True))
            values = self._steps.convolve(rows.values.flatten(0, 1), self.weight, None, tuple(begin), end)
            values = values.reshape(*rows.values.shape[:2], *values.shape[1:])
            constant = rows.values.flatten(3).sum(3) @ self.bias
            return (Windowed(reached[0], rows.cells, values, inside=False),), constant

        return pull

    def _before(self, window: Window) -> list[tuple[int, int]]:
        """By axis the stride, and a number of cells whose stride-th part, rounded down, is where the reach begins."""
        spans, crops = self._steps.span(self.weight), self._crops[0]
        axes = zip(self.stride, crops, window.offset, spans, strict=True)
        return [(s, b - o - (k - 1) + s - 1) for s, b, o, k in axes]

    def _gap(self, window: Window, axis: int) -> int:
        """Cells from where the first kernel begins to where the window does."""
        s, before = self._before(window)[axis]
        return self._crops[0][axis] - window.offset[axis] - s * (before // s)

    def _size(self, shape: Shape) -> Ints:
        """Of the output, its channels left out."""
        begin, end = self._crops
        axes = zip(self.stride, shape[1:], self._steps.span(self.weight), begin, end, strict=True)
        return tuple(s * (n - 1) + k - b - e for s, n, k, b, e in axes)


def split_padding(padding: Ints) -> tuple[Ints, Ints]:
    """(beginnings, ends) of ONNX's list of both."""
    half = len(padding) // 2
    return padding[:half], padding[half:]


def per_channel(bias: Tensor, axes: int) -> Tensor:
    """[channels] -> [channels, 1, ..]: the same at every cell."""
    return bias.reshape(-1, *(1,) * axes)
