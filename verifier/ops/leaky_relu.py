"""Two half-lines that meet at 0."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.relu import Relu


@dataclass(frozen=True)
class LeakyRelu(Elementwise):
    """z where z >= 0, slope * z elsewhere, for any slope: convex up to slope 1, concave above it.

    Raises: InvalidModel if the slope is not finite.
    """

    slope: float

    onnx = ("LeakyRelu",)
    separable = True

    def __post_init__(self) -> None:
        if not math.isfinite(self.slope):
            raise InvalidModel(f"LeakyRelu: slope {self.slope} is not a finite number")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Z or slope * z."""
        return torch.where(inputs[0] >= 0, inputs[0], self.slope * inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """Exact: the ends, and 0 where the box contains it (a negative slope turns there)."""
        lower, upper = inputs[0].lower, inputs[0].upper
        first, second = self.forward(lower), self.forward(upper)
        if self.slope >= 0:
            return Interval(first, second)
        turn = self.forward(torch.minimum(lower.clamp(min=0), upper))
        return Interval(torch.minimum(turn, second), torch.maximum(first, second))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The unstable neurons: a stable one has its exact line already."""
        return (inputs[0].unstable,)

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """The lines of relu, lifted:  leaky(z) = s z + (1 - s) relu(z);  for s > 1 the factor 1 - s swaps them.

        Source: as relu's, whose adaptive slope minimises the enclosed area here too.
        """
        relu = Relu().relax(lower, upper)
        assert relu.lower_intercept is None
        line, chord = self._lifted(relu.lower_slope), self._lifted(relu.upper_slope)
        intercept = (1 - self.slope) * relu.upper_intercept
        if self.slope <= 1:
            return Relaxation(line, None, chord, intercept)
        return Relaxation(chord, intercept, line, torch.zeros_like(intercept))

    def _lifted(self, slope: Tensor) -> Tensor:
        """S + (1 - s) slope, exactly 1 where the slope is 1."""
        return torch.where(slope == 1, 1.0, self.slope + (1 - self.slope) * slope)
