"""Powers with a constant exponent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from math import inf

import numpy as np
import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.exponential import EVERYWHERE
from provenn.verifier.ops.univariate import ULPS, Form, Univariate


def smallest(dtype: torch.dtype) -> float:
    """The least tangent point where slopes grow without bound at 0: tangents further left are of no use."""
    return 2.0 ** (-48 if dtype == torch.float32 else -100)


@dataclass(frozen=True)
class Sqrt(Univariate):
    """The square root."""

    onnx = ("Sqrt", "ReduceL2")
    domain = "numbers that are not negative"

    def form(self) -> Form:
        """Concave."""
        return _SQRT

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Negative numbers."""
        return ~(lower >= 0)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The root, exactly rounded; of 0, 0."""
        return torch.sqrt(inputs[0])

    @property
    def vertical(self) -> bool:
        """At 0."""
        return True

    def value(self, z: Tensor) -> Tensor:
        """The root, held off 0, where it has no derivative."""
        return torch.sqrt(z.clamp(min=torch.finfo(z.dtype).tiny))

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """That of rounding, and of holding off."""
        return super().value_error(z, value) + math.sqrt(torch.finfo(z.dtype).tiny)

    def slope(self, z: Tensor) -> Tensor:
        """1 / (2 sqrt(z))."""
        return 0.5 / torch.sqrt(z.clamp(min=torch.finfo(z.dtype).tiny))

    def derivative(self, box: Interval) -> Interval:
        """Falls from infinity at 0.   Raises: Unbounded for negative numbers."""
        self.require_domain(box.lower, box.upper)
        unit = ULPS * torch.finfo(box.lower.dtype).eps
        return Interval(0.5 / torch.sqrt(box.upper) * (1 - unit), 0.5 / torch.sqrt(box.lower) * (1 + unit))

    def contact(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """A tangent may touch outside the box: at 0 it would be vertical."""
        point = place.clamp(min=smallest(place.dtype))
        return point, self.slope(point)


@dataclass(frozen=True)
class Reciprocal(Univariate):
    """1 / z."""

    onnx = ("Reciprocal",)
    domain = "boxes on one side of 0, no nearer to it than 2^-40 in float32, 2^-300 in float64"

    def form(self) -> Form:
        """Convex right of 0, concave left of it."""
        return _RECIPROCAL

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Boxes that reach 0."""
        least = 2.0 ** (-40 if lower.dtype == torch.float32 else -300)
        return ~((lower >= least) | (upper <= -least))

    def value(self, z: Tensor) -> Tensor:
        """1 / z."""
        return 1 / z

    def slope(self, z: Tensor) -> Tensor:
        """-1 / z^2."""
        return -1 / (z * z)


@dataclass(frozen=True)
class Pow(Univariate):
    """z to the power of a constant, which is not 0 or 1.   Raises: InvalidModel if it is, or is not finite."""

    exponent: float

    onnx = ("Pow", "ReduceSumSquare", "ReduceL2")

    def __post_init__(self) -> None:
        if not math.isfinite(self.exponent) or self.exponent in (0, 1):
            raise InvalidModel(f"Pow: exponent {self.exponent} must be a finite number other than 0 and 1")

    @property
    def domain(self) -> str:  # type: ignore[override]
        """In words."""
        numbers = "every number" if self.whole else "numbers that are not negative"
        away = " except near 0" if self.exponent < 0 else ""
        return f"{numbers}{away} whose power {self.exponent:g} does not overflow"

    def form(self) -> Form:
        """Whole exponents take both signs, others none below 0."""
        return _power(self.exponent)

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Where it has no value, or where the value or a slope overflows."""
        size, numbers = abs(self.exponent), torch.finfo(lower.dtype)
        # Lines take a slope times z, and gradients the slope's slope, which grows fastest toward a pole at 0.
        largest = numbers.max / (8 * (2 + size) ** 2)
        most = (
            math.pow(numbers.max, 1 / (size + 1.5)) if self.exponent < 0 else math.pow(largest, 1 / max(size + 0.5, 1))
        )
        least = math.pow(largest, -1 / (size + 2.5)) if self.exponent < 0 else 0.0
        good = (lower >= -most) & (upper <= most)
        if not self.whole:
            good = good & (lower >= least)
        elif self.exponent < 0:
            good = good & ((lower >= least) | (upper <= -least))
        return ~good

    @property
    def vertical(self) -> bool:
        """At 0, for exponents between 0 and 1."""
        return 0 < self.exponent < 1

    @property
    def whole(self) -> bool:
        """Whether the exponent is a whole number."""
        return self.exponent == round(self.exponent)

    def value(self, z: Tensor) -> Tensor:
        """The power."""
        return torch.pow(z if self.whole else z.clamp(min=torch.finfo(z.dtype).tiny), self.exponent)

    def slope(self, z: Tensor) -> Tensor:
        """E z^(e - 1); where e - 1 could round, from z^e."""
        if self.whole:
            return self.exponent * torch.pow(z, self.exponent - 1)
        held = z.clamp(min=torch.finfo(z.dtype).tiny)
        return self.exponent * torch.pow(held, self.exponent) / held

    def value_error(self, z: Tensor, value: Tensor) -> Tensor:
        """What holding z off 0 changes is added."""
        held = 0.0 if self.whole or self.exponent < 0 else torch.finfo(z.dtype).tiny ** self.exponent
        return self._magnified(z.dtype) * super().value_error(z, value) + held

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """As the value's."""
        return self._magnified(z.dtype) * super().slope_error(z, slope)

    def _magnified(self, dtype: torch.dtype) -> float:
        """An exponent that the number format rounds counts with the logarithm of z, which is below 90 in float32."""
        rounds = dtype == torch.float32 and float(np.float32(self.exponent)) != self.exponent
        return 2.0 + (12 * abs(self.exponent) if rounds else 0.0)

    def derivative(self, box: Interval) -> Interval:
        """A fractional power's derivative is a power of one sign on positive numbers, infinite at 0 below power 1."""
        if self.whole:
            return super().derivative(box)
        self.require_domain(box.lower, box.upper)
        ends = torch.stack([box.lower, box.upper])
        slope = self.exponent * torch.pow(ends, self.exponent - 1)
        error = torch.where(slope.isfinite(), 10 * self.slope_error(ends, slope), 0.0)
        return Interval((slope - error).amin(0), (slope + error).amax(0))

    def contact(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Tangents of fractional powers keep off 0, where a derivative is infinite."""
        point = place if self.whole else place.clamp(min=smallest(place.dtype))
        return point, self.slope(point)


_SQRT = Form(concave=(EVERYWHERE,), image=(0.0, inf))
_RECIPROCAL = Form(convex=((0.0, inf),), concave=((-inf, 0.0),))


@cache
def _power(e: float) -> Form:
    if e != round(e):
        return (
            Form(concave=(EVERYWHERE,), image=(0.0, inf)) if 0 < e < 1 else Form(convex=(EVERYWHERE,), image=(0.0, inf))
        )
    if e % 2 == 0:
        return Form(convex=(EVERYWHERE,), turns=(0.0,) if e > 0 else (), image=(0.0, inf))
    return Form(convex=((0.0, inf),), concave=((-inf, 0.0),))
