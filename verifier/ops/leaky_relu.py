"""Two half-lines that meet at 0."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

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

    onnx: ClassVar[tuple[str, ...]] = ("LeakyRelu",)
    separable = True
    kink = 0.0

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

    def free(self, *inputs: Interval) -> Tensor | None:
        """The free slope as relu's: 0 stands for `slope`, 1 for 1."""
        return Relu().free(*inputs)

    def derivative(self, box: Interval) -> Interval:
        """`slope` left of the kink, 1 right of it, what lies between across it."""
        left, right = box.upper < 0, box.lower > 0
        low, high = min(self.slope, 1.0), max(self.slope, 1.0)
        lower = torch.full_like(box.lower, low).masked_fill(left, self.slope).masked_fill(right, 1.0)
        upper = torch.full_like(box.upper, high).masked_fill(left, self.slope).masked_fill(right, 1.0)
        return Interval(lower, upper)

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """The lines of relu, lifted:  leaky(z) = s z + (1 - s) relu(z);  for s > 1 the factor 1 - s swaps them.

        Source: as relu's, whose adaptive slope minimises the enclosed area here too.
        """
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes, from relu's."""
        relu, share = Relu().relaxer(lower, upper), negative_share(lower, upper)

        def lines(parameters: Tensor | None) -> Relaxation:
            relaxed = relu(parameters)
            line = relaxed.lower_slope + self.slope * (1 - relaxed.lower_slope)
            line, chord = line.clamp(*sorted((self.slope, 1.0))), relaxed.upper_slope + self.slope * share
            intercept = (1 - self.slope) * relaxed.upper_intercept
            if self.slope <= 1:
                return Relaxation(line, None, chord, intercept)
            return Relaxation(chord, intercept, line, torch.zeros_like(line))

        return lines


def negative_share(lower: Tensor, upper: Tensor) -> Tensor:
    """Which part of the box is negative, -l / (u - l): what the slope of relu's chord lacks to 1, without cancelling.

    Times a steep slope that difference would be wrong by that many roundings of 1.
    """
    negative = -lower.clamp(max=0)
    share = negative / (upper.clamp(min=0) + negative).clamp(min=torch.finfo(upper.dtype).tiny)
    return torch.where(upper <= 0, (lower < 0).to(share.dtype), share)
