"""Sine, cosine and tangent."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Relaxation
from provenn.verifier.ops.univariate import ULPS, Form, Pieces, Univariate

HALF, PERIOD = math.pi, 2 * math.pi


@dataclass(frozen=True)
class Wave(Univariate):
    """A sine, shifted so that it is convex on [bottom - pi / 2, bottom + pi / 2]."""

    bottom: ClassVar[float]
    """Where it is -1."""

    def form(self) -> Form:
        """Both ways; the pieces depend on the box."""
        return _WAVE

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """Turning points and inflections are known to a few ulp of z."""
        unit = torch.finfo(z.dtype).eps
        return super().value_error(z, value) + (4 * unit * z).clamp(-1, 1) ** 2 + unit * unit

    def interval(self, *inputs: Interval) -> Interval:
        """Values at the ends; -1 and 1 where the box may reach them."""
        lower, upper = inputs[0].lower, inputs[0].upper
        ends = torch.stack([lower, upper])
        value = self.value(ends)
        error = self.value_error(ends, value)
        low = torch.where(_reaches(lower, upper, self.bottom), -1.0, (value - error).amin(0))
        high = torch.where(_reaches(lower, upper, self.bottom + HALF), 1.0, (value + error).amax(0))
        return Interval(low.clamp(-1, 1), high.clamp(-1, 1))

    def derivative(self, box: Interval) -> Interval:
        """The slope is the same wave, a quarter of a period earlier."""
        ends = torch.stack([box.lower, box.upper])
        slope = self.slope(ends)
        error = self.value_error(ends, slope)
        low = torch.where(_reaches(box.lower, box.upper, self.bottom - HALF / 2), -1.0, (slope - error).amin(0))
        high = torch.where(_reaches(box.lower, box.upper, self.bottom + HALF / 2), 1.0, (slope + error).amax(0))
        return Interval(low.clamp(-1, 1), high.clamp(-1, 1))

    def pieces(self, lower: Tensor, upper: Tensor) -> Pieces:
        """The first convex and the first concave piece that end right of l, and the next ones."""
        starts = []
        for middle in (self.bottom, self.bottom + HALF):
            count = torch.ceil((lower - (middle + HALF / 2)) / PERIOD)
            starts.append(middle - HALF / 2 + PERIOD * count)
        start = torch.stack(starts)
        sign = torch.tensor([1.0, -1.0], dtype=lower.dtype, device=lower.device).reshape(-1, *(1,) * lower.dim())
        return Pieces(sign, start, start + HALF, start + PERIOD, start + PERIOD + HALF)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """As for any function where the box is shorter than a period and its pieces are known; -1 and 1 elsewhere."""
        unit = torch.finfo(lower.dtype).eps
        largest = torch.maximum(lower.abs(), upper.abs())
        known = (upper - lower < 0.999 * PERIOD) & (largest * unit < 1e-3)
        inner = super().relaxer(torch.where(known, lower, 0.0), torch.where(known, upper, 0.0))

        def lines(parameters: Tensor | None) -> Relaxation:
            found = inner(parameters)
            assert found.lower_intercept is not None
            return Relaxation(
                torch.where(known, found.lower_slope, 0.0),
                torch.where(known, found.lower_intercept, -1.0),
                torch.where(known, found.upper_slope, 0.0),
                torch.where(known, found.upper_intercept, 1.0),
            )

        return lines


@dataclass(frozen=True)
class Sin(Wave):
    """sin(z)."""

    onnx = ("Sin",)
    bottom = -HALF / 2

    def value(self, z: Tensor) -> Tensor:
        """sin(z)."""
        return torch.sin(z)

    def slope(self, z: Tensor) -> Tensor:
        """cos(z)."""
        return torch.cos(z)


@dataclass(frozen=True)
class Cos(Wave):
    """cos(z)."""

    onnx = ("Cos",)
    bottom = HALF

    def value(self, z: Tensor) -> Tensor:
        """cos(z)."""
        return torch.cos(z)

    def slope(self, z: Tensor) -> Tensor:
        """-sin(z)."""
        return -torch.sin(z)


@dataclass(frozen=True)
class Tan(Univariate):
    """tan(z) between two of its poles."""

    onnx = ("Tan",)
    domain = "boxes between two poles, a thousandth away from them, of numbers below 1000"

    def form(self) -> Form:
        """Concave, then convex; where, depends on the box."""
        return _WAVE

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Boxes that reach a pole."""
        branch = torch.round(lower / HALF)
        farthest = torch.maximum((lower - branch * HALF).abs(), (upper - branch * HALF).abs())
        return ~((farthest <= HALF / 2 - 1e-3) & (torch.maximum(lower.abs(), upper.abs()) <= 1000))

    def value(self, z: Tensor) -> Tensor:
        """tan(z)."""
        return torch.tan(z)

    def slope(self, z: Tensor) -> Tensor:
        """1 + tan(z)^2."""
        return 1 + torch.tan(z) ** 2

    def derivative(self, box: Interval) -> Interval:
        """Least at the inflection, where the box has it."""
        self.require_domain(box.lower, box.upper)
        centre = torch.round(box.lower / HALF) * HALF
        z = torch.stack([box.lower, box.upper, torch.minimum(torch.maximum(centre, box.lower), box.upper)])
        slope = self.slope(z)
        error = 2 * self.slope_error(z, slope)
        return Interval((slope - error).amin(0).clamp(min=1), (slope + error).amax(0))

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """The inflection is known to a few ulp of z."""
        return super().value_error(z, value) + (4 * torch.finfo(z.dtype).eps * z) ** 2

    def pieces(self, lower: Tensor, upper: Tensor) -> Pieces:
        """Either side of the branch's inflection."""
        centre = torch.round(lower / HALF) * HALF
        sign = torch.tensor([1.0, -1.0], dtype=lower.dtype, device=lower.device).reshape(-1, *(1,) * lower.dim())
        start = torch.stack([centre, centre - HALF])
        return Pieces(sign, start, start + HALF, None, None)


_WAVE = Form(convex=((0.0, HALF),), concave=((HALF, PERIOD),))
"""Stands for pieces that `pieces` finds."""


def _reaches(lower: Tensor, upper: Tensor, place: float) -> Tensor:
    """Whether the box may contain place + k period for a whole k, rounding counted in."""
    unit = ULPS * torch.finfo(lower.dtype).eps
    first, last = (lower - place) / PERIOD, (upper - place) / PERIOD
    first = first - unit * (first.abs() + 1)
    last = last + unit * (last.abs() + 1)
    return torch.floor(last) >= torch.ceil(first)
