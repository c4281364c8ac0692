"""Average pooling, and how pooling windows lie on an axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape
from provenn.verifier.ops.conv import split_padding
from provenn.verifier.ops.monotone import Monotone
from provenn.verifier.ops.window import padded

_AVERAGE = (torch.nn.functional.avg_pool1d, torch.nn.functional.avg_pool2d, torch.nn.functional.avg_pool3d)

Ints = tuple[int, ...]


@dataclass(frozen=True)
class Axis:
    """The windows along one axis: `size` input cells, `begin` and `end` padding cells, windows of `kernel` cells."""

    size: int
    kernel: int
    stride: int
    begin: int
    end: int
    dilation: int
    ceil: bool

    @property
    def span(self) -> int:
        """Cells from a window's first to its last."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def windows(self) -> int:
        """How many. ceil: a last window may hang over the end, unless it would start beyond the input and `begin`.

        Source: ONNX MaxPool-22.   Raises: InvalidModel if the kernel is longer than the padded axis.
        """
        free = self.size + self.begin + self.end - self.span
        if free < 0:
            raise InvalidModel(f"a pooling window spans {self.span} cells, the padded axis has {free + self.span}")
        count = (-(-free // self.stride) if self.ceil else free // self.stride) + 1
        return count - 1 if self.ceil and (count - 1) * self.stride >= self.size + self.begin else count

    @property
    def overhang(self) -> int:
        """Cells to add at the end for the last window to be whole (to crop, where negative)."""
        return (self.windows - 1) * self.stride + self.span - self.begin - self.size

    def cells(self, window: int) -> range:
        """The cells of one window, counted from the input's first."""
        start = window * self.stride - self.begin
        return range(start, start + self.span, self.dilation)

    def starts(self, like: Tensor) -> Tensor:
        """First cell of every window, counted from the input's first: [windows], on the device of `like`."""
        return torch.arange(self.windows, device=like.device) * self.stride - self.begin


@lru_cache(maxsize=256)
def axes_of(size: Shape, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool) -> tuple[Axis, ...]:
    """One `Axis` for each spatial axis.   Raises: InvalidModel if a window lies in the padding entirely."""
    begin, end = split_padding(padding)
    rows = zip(size, kernel, stride, begin, end, dilation, strict=True)
    axes = tuple(Axis(n, k, s, b, e, d, ceil) for n, k, s, b, e, d in rows)
    for axis in axes:
        if not all(any(0 <= cell < axis.size for cell in axis.cells(window)) for window in range(axis.windows)):
            raise InvalidModel(f"a pooling window lies in the padding entirely: {axis}")
    return axes


@dataclass(frozen=True)
class AveragePool(Monotone):
    """Mean over windows of x [channels, *size];  padding: ONNX's, all beginnings then all ends.

    count_include_pad: whether the padding's zeros count as cells of the mean; the overhang of ceil_mode never does.
    """

    kernel: Ints
    stride: Ints
    padding: Ints
    ceil_mode: bool
    count_include_pad: bool

    onnx = ("AveragePool",)

    def apply(self, *inputs: Tensor) -> Tensor:
        """Sum of each window over its number of cells."""
        x = inputs[0]
        ones = (1,) * len(self.kernel)
        axes = axes_of(tuple(x.shape[2:]), self.kernel, self.stride, self.padding, ones, self.ceil_mode)
        framed = padded(x, tuple(a.begin for a in axes), tuple(a.overhang for a in axes))
        mean = _AVERAGE[len(axes) - 1](framed, self.kernel, self.stride)
        for index, axis in enumerate(axes):
            before, after = (axis.begin, axis.end) if self.count_include_pad else (0, 0)
            if axis.begin > before or axis.overhang > after:
                starts = axis.starts(x)
                cells = (starts + axis.kernel).clamp(max=axis.size + after) - starts.clamp(min=-before)
                share = axis.kernel / cells.to(x.dtype)
                mean = mean * share.reshape(-1, *(1,) * (len(axes) - 1 - index))
        return mean
