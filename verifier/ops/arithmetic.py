"""Sums, differences, scaling by constants, and sums or means over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Affine, Shape, WindowLinearization
from provenn.verifier.ops.monotone import Monotone, aligned, require_axes, summed_to
from provenn.verifier.ops.window import Window, Windowed


@dataclass(frozen=True)
class Add(Monotone):
    """x_1 + .. + x_k with numpy broadcasting over the nodes' axes."""

    onnx = ("Add", "Sum", "Mean")

    def apply(self, *inputs: Tensor) -> Tensor:
        """x_1 + .. + x_k."""
        rank = max(x.dim() for x in inputs) - 1
        total = aligned(inputs[0], rank)
        for x in inputs[1:]:
            total = total + aligned(x, rank)
        return total

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A for every input, summed over what was repeated."""
        return tuple(summed_to(coefficients, shape) for shape in shapes)

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The same window of every input, where none is repeated."""
        return (window,) * len(shapes) if len(set(shapes)) == 1 else None

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """The rows themselves, for every input."""
        return lambda rows: ((rows,) * len(inputs), None)


@dataclass(frozen=True)
class Sub(Affine):
    """x_1 - x_2 with numpy broadcasting over the nodes' axes."""

    onnx = ("Sub",)

    def apply(self, *inputs: Tensor) -> Tensor:
        """x_1 - x_2."""
        rank = max(x.dim() for x in inputs) - 1
        return aligned(inputs[0], rank) - aligned(inputs[1], rank)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """r_1 + r_2."""
        return Add().apply(*radii)

    def interval(self, *inputs: Interval) -> Interval:
        """[l_1 - u_2, u_1 - l_2]."""
        x, y = inputs
        return Interval(self.apply(x.lower, y.upper), self.apply(x.upper, y.lower))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A and -A, summed over what was repeated."""
        return summed_to(coefficients, shapes[0]), -summed_to(coefficients, shapes[1])


@dataclass(frozen=True)
class Scale(Affine):
    """y = x * weight + bias with constants that broadcast against the node (which they may enlarge)."""

    weight: Tensor
    bias: Tensor

    onnx = ("Mul", "Div", "Add", "Sub", "Neg", "BatchNormalization", "Where", "Trilu", "Concat")
    has_offset = True
    separable = True

    def apply(self, *inputs: Tensor) -> Tensor:
        """X * weight + bias."""
        return self._aligned(inputs[0]) * self.weight + self.bias

    def magnitude(self, *radii: Tensor) -> Tensor:
        """R * |weight|."""
        product = self._aligned(radii[0]) * self.weight.abs()
        return product + torch.zeros_like(self.bias)

    def interval(self, *inputs: Interval) -> Interval:
        """The ends in the order that the weight's sign gives them."""
        first, second = self.apply(inputs[0].lower), self.apply(inputs[0].upper)
        return Interval(torch.minimum(first, second), torch.maximum(first, second))

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A * weight, summed over what was repeated."""
        return (summed_to(coefficients * self.weight, shapes[0]),)

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The same window, where the constants are the same at every cell of a channel and enlarge nothing."""
        channels = shapes[0][0]
        for constant in (self.weight, self.bias):
            sizes = (1,) * (len(shapes[0]) - constant.dim()) + tuple(constant.shape)
            if sizes[0] not in (1, channels) or len(sizes) > len(shapes[0]) or any(n != 1 for n in sizes[1:]):
                return None
        return (window,)

    def linearize_window(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> WindowLinearization:
        """Every channel times its constant."""
        size = tuple(inputs[0].lower.shape[2:])

        def pull(rows: Windowed) -> tuple[tuple[Windowed, ...], Tensor | None]:
            rows = rows.cleared(size)
            constant = (rows.values * self.bias).flatten(2).sum(2)
            return (replace(rows, values=rows.values * self.weight),), constant

        return pull

    def _aligned(self, x: Tensor) -> Tensor:
        return aligned(x, max(self.weight.dim(), self.bias.dim()))


@dataclass(frozen=True)
class ReduceSum(Monotone):
    """Sum over node axes."""

    axes: tuple[int, ...]
    keepdims: bool

    onnx: ClassVar[tuple[str, ...]] = ("ReduceSum",)

    def __post_init__(self) -> None:
        require_axes(self.axes, type(self).__name__)

    def apply(self, *inputs: Tensor) -> Tensor:
        """Sum of x over the axes."""
        return inputs[0].sum(self._dims, keepdim=self.keepdims) if self.axes else inputs[0]

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, repeated along the axes that were summed."""
        for dim in () if self.keepdims else sorted(self._dims):
            coefficients = coefficients.unsqueeze(dim)
        return (coefficients.expand(coefficients.shape[0], *shapes[0]),)

    @property
    def _dims(self) -> tuple[int, ...]:
        return tuple(axis + 1 for axis in self.axes)


@dataclass(frozen=True)
class ReduceMean(ReduceSum):
    """Mean over node axes."""

    onnx = ("ReduceMean", "GlobalAveragePool")

    def apply(self, *inputs: Tensor) -> Tensor:
        """Mean of x over the axes."""
        return inputs[0].mean(self._dims, keepdim=self.keepdims) if self.axes else inputs[0]

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A over the number of cells, repeated along the axes that were averaged."""
        count = torch.Size(shapes[0][axis] for axis in self.axes).numel()
        return super().adjoint(coefficients / count, shapes)
