"""Increasing functions that are convex below 0 and concave above it: tanh, and the sigmoid, which is tanh scaled."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.lines import apart, per_row, together

NEWTON_STEPS = 4
"""After 4 the tangent point is at most 4e-6 of itself right of the root, for any box (a test holds it to that)."""

ULPS = 8
"""Roundings that the intercepts allow for: two function values of at most 2 ulp each, a slope, a product, a sum."""


@dataclass(frozen=True)
class SShaped(Elementwise):
    """phi(z) = a + b tanh(z / width), b > 0: odd about 0 up to a constant, concave for z >= 0."""

    width: ClassVar[float]
    image: ClassVar[tuple[float, float]]
    separable = True

    @abstractmethod
    def slope(self, z: Tensor) -> Tensor:
        """phi'(z), even in z, with a relative error of a few ulp however small it is."""

    def interval(self, *inputs: Interval) -> Interval:
        """The values at the ends, widened by their rounding."""
        low, high = self.forward(inputs[0].lower), self.forward(inputs[0].upper)
        unit, tiny = torch.finfo(low.dtype).eps * ULPS / 2, torch.finfo(low.dtype).tiny
        lower, upper = low - (unit * low.abs() + tiny), high + (unit * high.abs() + tiny)
        return Interval(lower.clamp(*self.image), upper.clamp(*self.image))

    def derivative(self, box: Interval) -> Interval:
        """Phi' falls with |z|: its values at the points of the box nearest to 0 and farthest from it."""
        nearest = torch.minimum(box.lower.clamp(min=0), box.upper)
        farthest = torch.maximum(box.lower.abs(), box.upper.abs())
        unit, tiny = ULPS * torch.finfo(box.lower.dtype).eps, torch.finfo(box.lower.dtype).tiny
        least, most = self.slope(farthest) * (1 - unit) - tiny, self.slope(nearest) * (1 + unit) + tiny
        return Interval(least.clamp(min=0), most)

    def free(self, *inputs: Interval) -> Tensor | None:
        """Where the tangent points of the lower and the upper line lie between the first and the last one that will do.

        [1, batch, 2 channels, *size].
        """
        return together(_Tangents(self, inputs[0].lower, inputs[0].upper).midpoint())

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """Tangent or chord on either side, intercepts widened by the rounding of their own terms.

        The upper line is the lower line of -phi(-z) over [-u, -l], negated; both are found in one pass. Parameters
        choose the tangent points, see `free`; the default is the midpoint, or the nearest point that will do.
        Source: Zhang et al. 2018 (CROWN), table 2; the tangent at the midpoint encloses the least area.
        """
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes: the range of the tangent points is found once."""
        tangents = _Tangents(self, lower, upper)

        def lines(parameters: Tensor | None) -> Relaxation:
            if parameters is None:
                slope, intercept = tangents.lines(tangents.midpoint())
            else:
                slope, intercept = per_row(tangents).lines(apart(parameters, lower, 2))
            return Relaxation(slope[0], -intercept[0], slope[1], intercept[1])

        return lines


class _Tangents:
    """Lines above psi(z) = mirror phi(mirror z) on boxes; first the mirrored ones, whose lines are phi's lower ones.

    Tangent at t: above psi where psi is concave, and left of 0 if and only if it is above psi(l); so any t right of
    the root d of psi(t) + psi'(t) (l - t) = psi(l) will do, and t = max(d, midpoint) encloses the least area.
    t = u fails that test if and only if d > u, and then the chord is above psi.
    """

    def __init__(self, op: SShaped, lower: Tensor, upper: Tensor) -> None:
        self.op = op
        self.mirror = torch.tensor([-1.0, 1.0], dtype=lower.dtype, device=lower.device).reshape(2, *(1,) * lower.dim())
        self.lower, self.upper = torch.stack([-upper, lower]), torch.stack([-lower, upper])
        self.at_lower, at_upper = self.psi(self.lower), self.psi(self.upper)
        self.largest = torch.maximum(self.lower.abs(), self.upper.abs())
        self.values = self.at_lower.abs() + at_upper.abs()
        root = self.op.width * moving_tangent_point(-self.lower.clamp(max=0) / self.op.width)
        self.first = torch.minimum(torch.where(self.lower < 0, root, self.lower), self.upper)
        # By the mean value theorem the chord's slope lies between the extremes of psi', whatever the rounding of
        # a difference quotient over a tiny interval.
        steepest = op.slope(torch.minimum(self.lower.clamp(min=0), self.upper))
        last = op.slope(self.upper)
        flattest = torch.minimum(op.slope(self.lower), last)
        width = self.upper - self.lower
        thin = width <= torch.finfo(lower.dtype).tiny
        quotient = torch.where(thin, steepest, (at_upper - self.at_lower) / torch.where(thin, 1.0, width))
        self.chord = torch.minimum(torch.maximum(quotient, flattest), steepest)
        touching = at_upper - last * width >= self.at_lower
        self.touches = (self.lower >= 0) | ((self.upper > 0) & touching)

    def psi(self, z: Tensor) -> Tensor:
        """The function that is concave right of 0."""
        return self.mirror * self.op.forward(self.mirror * z)

    def midpoint(self) -> Tensor:
        """Where between `first` and the upper end the midpoint lies, 0 where it lies before."""
        length = self.upper - self.first
        some = length > torch.finfo(length.dtype).tiny
        middle = self.lower / 2 + self.upper / 2
        place = (middle - self.first) / torch.where(some, length, 1.0)
        return torch.where(some, place, 0.0).clamp(0, 1)

    def lines(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """(slope, intercept) of the lower line, negated in the intercept, and of the upper line."""
        point = torch.maximum(torch.minimum(self.first + place * (self.upper - self.first), self.upper), self.first)
        slope = torch.where(self.touches, self.op.slope(point), self.chord)
        through = torch.where(self.touches, point, self.lower)
        value = torch.where(self.touches, self.psi(point), self.at_lower)
        # Values below the smallest normal number may come out as zero.
        unit, least = torch.finfo(slope.dtype).eps, torch.finfo(slope.dtype).tiny
        slack = ULPS * (unit * (self.values + slope * self.largest) + least)
        return slope, value - slope * through + slack


def moving_tangent_point(a: Tensor) -> Tensor:
    """`tangent_point`, with the root's derivative in a where gradients are taken.

    With K and G as there, G(d; a) = 0 moves d by  (1 - dK/da) / G',  dK/da = (1 - T^2) (1 + cosh 2d) / 2.
    For small a the root is a / 2.
    """
    with torch.no_grad():
        d = tangent_point(a)
    if not (torch.is_grad_enabled() and a.requires_grad):
        return d
    with torch.no_grad():
        T, cosh = torch.tanh(a), torch.cosh(2 * d)
        growth = cosh + T * torch.sinh(2 * d) - 1
        rate = (1 - (1 - T * T) * (1 + cosh) / 2) / growth.clamp(min=torch.finfo(a.dtype).tiny)
        rate = torch.where(growth > torch.finfo(a.dtype).eps ** 0.5, rate, 0.5)
    return d + rate * (a - a.detach())


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
