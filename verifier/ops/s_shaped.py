"""Increasing functions that are convex below 0 and concave above it: tanh, and the sigmoid, which is tanh scaled."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.ops.base import Elementwise, Relaxation

NEWTON_STEPS = 4
"""After 4 the tangent point is at most 4e-6 of itself right of the root, for any box (a test holds it to that)."""

ULPS = 8
"""Roundings that the intercepts allow for: two function values of at most 2 ulp each, a slope, a product, a sum."""


@dataclass(frozen=True)
class SShaped(Elementwise):
    """phi(z) = a + b tanh(z / width), b > 0: odd about 0 up to a constant, concave for z >= 0."""

    width: ClassVar[float]
    separable = True

    @abstractmethod
    def derivative(self, z: Tensor) -> Tensor:
        """phi'(z), even in z, with a relative error of a few ulp however small it is."""

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Tangent or chord on either side, intercepts widened by the rounding of their own terms.

        The lower line is the upper line of -phi(-z) over [-u, -l], negated; both are found in one pass.
        Source: Zhang et al. 2018 (CROWN), table 2; the tangent at the midpoint encloses the least area.
        """
        signs = 1 - 2 * torch.arange(2, dtype=lower.dtype, device=lower.device)
        mirror = signs.reshape(2, *(1,) * lower.dim())
        slope, intercept = self._upper_line(torch.stack([lower, -upper]), torch.stack([upper, -lower]), mirror)
        return Relaxation(slope[1], -intercept[1], slope[0], intercept[0])

    def _upper_line(self, lower: Tensor, upper: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
        """(slope, intercept) above psi(z) = mirror phi(mirror z) on [lower, upper].

        Tangent at t: above psi where psi is concave, and left of 0 if and only if it is above psi(l); so any t right of
        the root d of psi(t) + psi'(t) (l - t) = psi(l) will do, and t = max(d, midpoint) encloses the least area.
        t = u fails that test if and only if d > u, and then the chord is above psi.
        """
        first, second = mirror * self.forward(mirror * lower), mirror * self.forward(mirror * upper)
        middle = torch.minimum(torch.maximum(lower / 2 + upper / 2, lower), upper)
        root = torch.where(lower < 0, self.width * tangent_point(-lower.clamp(max=0) / self.width), lower)
        point = torch.maximum(middle, torch.minimum(root, upper))
        tangent = self.derivative(point)
        # By the mean value theorem the chord's slope lies between the extremes of psi', whatever the rounding of
        # a difference quotient over a tiny interval.
        steepest = self.derivative(torch.minimum(lower.clamp(min=0), upper))
        last = self.derivative(upper)
        flattest = torch.minimum(self.derivative(lower), last)
        quotient = (second - first) / (upper - lower).clamp(min=torch.finfo(lower.dtype).tiny)
        chord = torch.minimum(torch.maximum(quotient, flattest), steepest)
        touches = (lower >= 0) | ((upper > 0) & (second + last * (lower - upper) >= first))
        slope = torch.where(touches, tangent, chord)
        through = torch.where(touches, point, lower)
        value = torch.where(touches, mirror * self.forward(mirror * point), first)
        largest = torch.maximum(lower.abs(), upper.abs())
        # Values below the smallest normal number may come out as zero.
        unit, least = torch.finfo(lower.dtype).eps, torch.finfo(lower.dtype).tiny
        slack = ULPS * (unit * (first.abs() + second.abs() + slope * largest) + least)
        return slope, value - slope * through + slack


def tangent_point(a: Tensor) -> Tensor:
    """The d >= 0 where  tanh(d) + tanh'(d) (-a - d) = tanh(-a), a >= 0, or a point right of it by a few roundings.

    Dividing by tanh'(d) = sech^2(d) the condition becomes  G(d) = K(d) - d - a >= 0,  with T = tanh(a) and
    K(d) = sinh(d) cosh(d) + T cosh(d)^2 = (sinh 2d + T cosh 2d + T) / 2.  G is convex and increasing on d >= 0
    (G' = cosh 2d + T sinh 2d - 1, G'' >= 0), so Newton's method from the right of its root stays to the right of it.
    Start: the root is at most r = min(a, 1 + log(1 + a)), hence K(root) = root + a <= r + a, and K is increasing: the
    solution of K(d) = r + a, a quadratic equation in exp(2d), is a start, and min with r keeps it one.
    """
    reach = torch.minimum(a, 1 + torch.log1p(a))
    T = torch.tanh(a)
    target = 2 * (reach + a) - T
    d = torch.minimum(torch.log((target + torch.hypot(target, torch.sqrt(1 - T * T))) / (1 + T)) / 2, reach)
    for _ in range(NEWTON_STEPS):
        sinh, cosh = torch.sinh(2 * d), torch.cosh(2 * d)
        excess = (sinh + T * cosh + T) / 2 - d - a
        growth = cosh + T * sinh - 1
        d = d - (excess / growth.clamp(min=torch.finfo(a.dtype).tiny)).clamp(min=0)
    return torch.where(d > 0, torch.minimum(d * (1 + 4 * torch.finfo(a.dtype).eps), reach), reach)
