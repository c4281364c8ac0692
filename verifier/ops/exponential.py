"""Functions made of the exponential and its inverse."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import inf

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Relaxation
from provenn.verifier.ops.univariate import Form, Kink, Univariate

EVERYWHERE = (-inf, inf)


def largest_exponent(dtype: torch.dtype) -> float:
    """The largest z whose exp(z), times anything a line needs, is finite."""
    return 0.75 * math.log(torch.finfo(dtype).max)


@dataclass(frozen=True)
class Exp(Univariate):
    """exp(z)."""

    onnx = ("Exp",)
    domain = "numbers up to 66 in float32, 532 in float64"

    def form(self) -> Form:
        """Convex."""
        return _EXP

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Where it overflows."""
        return ~(upper <= largest_exponent(upper.dtype))

    def value(self, z: Tensor) -> Tensor:
        """exp(z)."""
        return torch.exp(z)

    def slope(self, z: Tensor) -> Tensor:
        """exp(z)."""
        return torch.exp(z)


@dataclass(frozen=True)
class Log(Univariate):
    """The natural logarithm."""

    onnx = ("Log", "ReduceLogSum")
    domain = "numbers from 2^-100 in float32, 2^-900 in float64"

    def form(self) -> Form:
        """Concave."""
        return _LOG

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Where a box reaches 0, or a slope could overflow."""
        return ~(lower >= 2.0 ** (-100 if lower.dtype == torch.float32 else -900))

    def value(self, z: Tensor) -> Tensor:
        """log(z)."""
        return torch.log(z)

    def slope(self, z: Tensor) -> Tensor:
        """1 / z."""
        return 1 / z


@dataclass(frozen=True)
class Softplus(Univariate):
    """log(1 + exp(z)); z itself above `threshold`, as torch computes it.   Raises: InvalidModel if that is below 1.

    At the threshold the value falls by log(1 + exp(-threshold)), which bounds the difference above it.
    """

    threshold: float = inf

    onnx = ("Softplus",)

    def __post_init__(self) -> None:
        if not self.threshold >= 1:
            raise InvalidModel(f"Softplus: its threshold {self.threshold} must be 1 or more")

    def form(self) -> Form:
        """Convex, but for the fall."""
        return _EXP

    def forward(self, *inputs: Tensor) -> Tensor:
        """The function with its fall."""
        return torch.where(inputs[0] > self.threshold, inputs[0], self.value(inputs[0]))

    def interval(self, *inputs: Interval) -> Interval:
        """That of the function without the fall, lowered by it where the box passes the threshold."""
        smooth = super().interval(*inputs)
        return Interval(smooth.lower - self._fall(inputs[0].upper), smooth.upper)

    def derivative(self, box: Interval) -> Interval:
        """Infinite below where the box has the threshold, 1 beyond it."""
        smooth = super().derivative(box)
        passed = box.upper >= self.threshold
        upper = torch.where(passed, smooth.upper.clamp(min=1), smooth.upper)
        return Interval(torch.where(passed & (box.lower <= self.threshold), -inf, smooth.lower), upper)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """The lower line lowered by the fall where the box passes the threshold; z itself where it lies beyond."""
        smooth, fall = super().relaxer(lower, upper), self._fall(upper)
        beyond = (lower > self.threshold).to(lower.dtype)
        within = 1 - beyond

        def lines(parameters: Tensor | None) -> Relaxation:
            found = smooth(parameters)
            assert found.lower_intercept is not None
            low, high = within * found.lower_slope + beyond, within * found.upper_slope + beyond
            return Relaxation(low, within * (found.lower_intercept - fall), high, within * found.upper_intercept)

        return lines

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Nowhere beyond the threshold."""
        return tuple(m if m is None else m & (inputs[0].lower <= self.threshold) for m in super().improvable(*inputs))

    def value(self, z: Tensor) -> Tensor:
        """log(1 + exp(z)), without overflow and without loss for negative z."""
        return torch.logaddexp(z, torch.zeros_like(z))

    def slope(self, z: Tensor) -> Tensor:
        """The logistic function."""
        return torch.sigmoid(z)

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """Where exp(-z) overflows the slope comes out as 0."""
        return super().slope_error(z, slope) + torch.finfo(z.dtype).tiny

    def _fall(self, upper: Tensor) -> Tensor:
        depth = math.log1p(math.exp(-self.threshold)) * (1 + 1e-6)
        return torch.where(upper > self.threshold, depth, torch.zeros_like(upper))


@dataclass(frozen=True)
class Elu(Univariate):
    """scale z where z > 0, scale alpha (exp(z / width) - 1) elsewhere; Celu has width = alpha, Selu its two constants.

    Raises: InvalidModel unless all three are positive and finite.
    """

    alpha: float
    scale: float = 1.0
    width: float = 1.0

    onnx = ("Elu", "Selu", "Celu")

    def __post_init__(self) -> None:
        if not all(0 < number < inf for number in (self.alpha, self.scale, self.width)):
            raise InvalidModel(
                f"Elu: alpha {self.alpha}, scale {self.scale}, width {self.width} must be positive numbers"
            )

    def form(self) -> Form:
        """Convex up to the kink; the kink itself bends up where alpha < width, down where alpha > width."""
        return _elu(self.alpha / self.width * self.scale, self.scale)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where the box has negative numbers: elsewhere the function is its own line."""
        return ((inputs[0].lower < 0) & (inputs[0].lower < inputs[0].upper),)

    def value(self, z: Tensor) -> Tensor:
        """The function."""
        return self.scale * torch.where(z > 0, z, self.alpha * torch.expm1(z.clamp(max=0) / self.width))

    def slope(self, z: Tensor) -> Tensor:
        """The slope, at 0 the one on the left."""
        steepest = self.alpha / self.width
        return self.scale * torch.where(z > 0, 1.0, steepest * torch.exp(z.clamp(max=0) / self.width))

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """The rounding of z / width is magnified by its size: y exp(y) is at most 1 / e."""
        steepest = self.scale * self.alpha / self.width
        unsure = torch.where(z < 0, steepest * torch.finfo(z.dtype).eps * (self.width != 1), 0.0)
        return super().slope_error(z, slope) + unsure


@dataclass(frozen=True)
class Sinh(Univariate):
    """The hyperbolic sine."""

    onnx = ("Sinh",)
    domain = "numbers up to 66 in float32, 532 in float64, of either sign"

    def form(self) -> Form:
        """Concave, then convex."""
        return _SINH

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Where it overflows."""
        return ~(torch.maximum(lower.abs(), upper.abs()) <= largest_exponent(upper.dtype))

    def value(self, z: Tensor) -> Tensor:
        """sinh(z)."""
        return torch.sinh(z)

    def slope(self, z: Tensor) -> Tensor:
        """cosh(z)."""
        return torch.cosh(z)


@dataclass(frozen=True)
class Cosh(Univariate):
    """The hyperbolic cosine."""

    onnx = ("Cosh",)
    domain = Sinh.domain

    def form(self) -> Form:
        """Convex."""
        return _COSH

    def outside(self, lower: Tensor, upper: Tensor) -> Tensor | None:
        """Where it overflows."""
        return Sinh().outside(lower, upper)

    def value(self, z: Tensor) -> Tensor:
        """cosh(z)."""
        return torch.cosh(z)

    def slope(self, z: Tensor) -> Tensor:
        """sinh(z)."""
        return torch.sinh(z)


_EXP = Form(convex=(EVERYWHERE,), image=(0.0, inf))
_LOG = Form(concave=(EVERYWHERE,))
_SINH = Form(convex=((0.0, inf),), concave=((-inf, 0.0),))
_COSH = Form(convex=(EVERYWHERE,), turns=(0.0,), image=(1.0, inf))


@cache
def _elu(left: float, right: float) -> Form:
    if left == right:
        return Form(convex=(EVERYWHERE,))
    kinks = (Kink(0.0, left, right),)
    if left < right:
        return Form(convex=(EVERYWHERE,), kinks=kinks)
    return Form(convex=((-inf, 0.0),), concave=((0.0, inf),), kinks=kinks)
