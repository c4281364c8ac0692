"""Convolution and its transpose, in one, two or three dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.ops.base import Affine, Shape

_CONVOLUTION = (torch.conv1d, torch.conv2d, torch.conv3d)
_TRANSPOSED = (torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d)

Ints = tuple[int, ...]


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
        if self.groups == 1 and max(self.dilation) == 1 and max(self.stride) > 1:
            return self._polyphase(x, weight, begin, end)
        transposed = _TRANSPOSED[len(begin) - 1]
        added = tuple(b - e for b, e in zip(begin, end, strict=True))
        limits = [max(s, d) for s, d in zip(self.stride, self.dilation, strict=True)]
        if min(begin) >= 0 and all(0 <= a < limit for a, limit in zip(added, limits, strict=True)):
            return transposed(x, weight, None, self.stride, begin, added, self.groups, self.dilation)
        zeros = (0,) * len(begin)
        whole = transposed(x, weight, None, self.stride, zeros, zeros, self.groups, self.dilation)
        return padded(whole, tuple(-b for b in begin), tuple(-e for e in end))

    def _polyphase(self, x: Tensor, weight: Tensor, begin: Ints, end: Ints) -> Tensor:
        """The same with stride s as s phases of stride 1 that interleave: about 2 to 3 times faster on a processor.

        Cell s m + a of the result reads only the kernel's cells a, a + s, ..: one kernel a phase a.
        """
        rank, missing = len(begin), [-k % s for k, s in zip(weight.shape[2:], self.stride, strict=True)]
        weight = padded(weight, (0,) * rank, tuple(missing))
        inner, sizes = weight.shape[1], [n // s for n, s in zip(weight.shape[2:], self.stride, strict=True)]
        cells = [n for pair in zip(sizes, self.stride, strict=True) for n in pair]
        evens, odds = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
        phases = weight.reshape(*weight.shape[:2], *cells).permute(0, *odds, 1, *evens)
        product = _TRANSPOSED[rank - 1](x, phases.reshape(weight.shape[0], -1, *sizes))
        apart = product.reshape(x.shape[0], *self.stride, inner, *product.shape[2:])
        order = [axis for i in range(rank) for axis in (rank + 2 + i, 1 + i)]
        size = [n * s for n, s in zip(product.shape[2:], self.stride, strict=True)]
        whole = apart.permute(0, rank + 1, *order).reshape(x.shape[0], inner, *size)
        return padded(whole, tuple(-b for b in begin), tuple(-e - m for e, m in zip(end, missing, strict=True)))


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
        # The last of o windows of span k, s apart, ends at s (o - 1) + k of the padded axis, where the input ends
        # at begin + n: the difference is cropped, or filled with zeros.
        axes = zip(self.stride, coefficients.shape[2:], self._steps.span(self.weight), strict=True)
        reached = [s * (o - 1) + k for s, o, k in axes]
        end = tuple(r - b - n for r, b, n in zip(reached, begin, shapes[0][1:], strict=True))
        return (self._steps.transpose(coefficients, self.weight, begin, end),)

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor:
        """b, at every output cell."""
        begin, end = split_padding(self.padding)
        spans = zip(shapes[0][1:], begin, end, self.stride, self._steps.span(self.weight), strict=True)
        size = [(n + b + e - k) // s + 1 for n, b, e, s, k in spans]
        return per_channel(self.bias, len(size)).expand(1, -1, *size)


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


def split_padding(padding: Ints) -> tuple[Ints, Ints]:
    """(beginnings, ends) of ONNX's list of both."""
    half = len(padding) // 2
    return padding[:half], padding[half:]


def padded(x: Tensor, begin: Ints, end: Ints, value: float = 0.0) -> Tensor:
    """The tensor x with `begin` and `end` cells of `value` added around its last axes (cropped where negative)."""
    pairs = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
    return torch.nn.functional.pad(x, pairs, value=value) if any(pairs) else x


def per_channel(bias: Tensor, axes: int) -> Tensor:
    """[channels] -> [channels, 1, ..]: the same at every cell."""
    return bias.reshape(-1, *(1,) * axes)
