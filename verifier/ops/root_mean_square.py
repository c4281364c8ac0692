"""The root of the mean of squares over axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization
from provenn.verifier.ops.cells import sets
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.log_sum_exp import lined
from provenn.verifier.ops.monotone import require_axes
from provenn.verifier.ops.relaxed import Relaxed, Relaxer


@dataclass(frozen=True)
class RootMeanSquare(Relaxed):
    """s(x) = sqrt(mean(x^2) + epsilon) along node axes, which stay as axes of length 1.

    s is a norm of (x, sqrt(epsilon)), so that by the Cauchy-Schwarz inequality for every point z

        s(x) >= (mean(z x) + epsilon) / s(z);

    each square lies below its chord, x^2 <= (l + u) x - l u, and the root below its tangent at every w > 0:

        s(x) <= (mean((l + u) x - l u) + epsilon + w) / (2 sqrt(w)).

    Free are z for every cell and w for every set.   Raises: InvalidModel for axes that are not some, each once, and
    an epsilon that is not positive: at 0 the root has no tangent.
    """

    axes: tuple[int, ...]
    epsilon: float

    onnx = ("LayerNormalization", "RMSNormalization", "InstanceNormalization", "GroupNormalization")

    def __post_init__(self) -> None:
        require_axes(self.axes, "RootMeanSquare")
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise InvalidModel(f"RootMeanSquare: axes {self.axes} must be some, each named once")
        if not (self.epsilon > 0 and isfinite(self.epsilon)):
            raise InvalidModel(f"RootMeanSquare: epsilon {self.epsilon} must be a positive number")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The root."""
        return torch.sqrt(self._mean(inputs[0] * inputs[0]) + self.epsilon)

    def interval(self, *inputs: Interval) -> Interval:
        """From the least and the largest squares, widened by rounding."""
        least, most = (self._mean(square) + self.epsilon for square in squares(inputs[0]))
        # A sum of squares that overflows is larger than the largest number: that much is known of the root.
        least = least.clamp(max=torch.finfo(least.dtype).max / self._cells(inputs[0]))
        unit = self._unit(inputs[0])
        return Interval(torch.sqrt(least) * (1 - unit), torch.sqrt(most) * (1 + unit))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """A mean of cells with weights in the range of x / s(x):  s(x) - s(y) = mean((x + y)(x - y)) / (s(x) + s(y)).

        For (x_i + y_i) / (s(x) + s(y)) is the mean of x_i / s(x) and y_i / s(y) with weights s(x) and s(y).
        """
        (box,) = scope.boxes()
        root, unit = self.interval(box), 4 * torch.finfo(box.lower.dtype).eps
        least = torch.where(box.lower < 0, box.lower / root.lower, box.lower / root.upper)
        most = torch.where(box.upper > 0, box.upper / root.lower, box.upper / root.upper)
        # The square of every cell is at most n s^2.
        end = self._cells(box) ** 0.5 * (1 + unit)
        lower, upper = (least - unit * least.abs()).clamp(min=-end), (most + unit * most.abs()).clamp(max=end)
        return scope.units(inputs[0], lower, upper).through(self._mean)

    def free(self, *inputs: Interval) -> Tensor | None:
        """Where z lies in the box, and w between its ends: in the middle. [1, batch, *rest, cells + 1]."""
        box = sets(inputs[0], self.axes)
        return torch.full_like(torch.nn.functional.pad(box.lower, (0, 1)), 0.5).unsqueeze(0)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The tangent plane below, the root's tangent over the chords above."""
        shape, box, unit = inputs[0].lower.shape[1:], sets(inputs[0], self.axes), self._unit(inputs[0])
        low, high = box.lower, box.upper
        farthest, count = torch.maximum(low.abs(), high.abs()), low.shape[-1]
        least, most = (square.mean(-1, keepdim=True) + self.epsilon for square in squares(box))
        both, product = (low + high) / count, self.epsilon - (low * high).mean(-1, keepdim=True)

        def lines(parameters: Tensor | None) -> Linearization:
            place, height = (0.5, 0.5) if parameters is None else (parameters[..., :-1], parameters[..., -1:])
            z = low + place * (high - low)
            value = torch.sqrt((z * z).mean(-1, keepdim=True) + self.epsilon)
            slope = z / (value * count)
            below = self.epsilon / value * (1 - unit) - unit * (slope.abs() * farthest).sum(-1, keepdim=True)
            w = least + height * (most - least)
            double = 2 * torch.sqrt(w)
            above = (product + w) / double + unit * (w + 2 * most) / double
            return lined((slope, below), (both / double, above), self.axes, shape)

        return lines

    def _mean(self, x: Tensor) -> Tensor:
        return x.mean(tuple(axis + 1 for axis in self.axes), keepdim=True)

    def _cells(self, box: Interval) -> int:
        return torch.Size(box.lower.shape[axis + 1] for axis in self.axes).numel()

    def _unit(self, box: Interval) -> float:
        """The relative rounding of a mean of squares."""
        return (self._cells(box) + 8) * torch.finfo(box.lower.dtype).eps


def squares(box: Interval) -> tuple[Tensor, Tensor]:
    """The least and the largest squares over a box."""
    nearest = torch.maximum(box.lower, -box.upper).clamp(min=0)
    farthest = torch.maximum(box.lower.abs(), box.upper.abs())
    return nearest * nearest, farthest * farthest
