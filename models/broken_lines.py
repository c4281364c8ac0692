"""Broken lines with known errors in the place of sin, cos, squares and 1/z: exact bounds of phi(z) - line(z).

Between neighbouring knots t, t' the chord of phi differs from it by at most (t' - t)^2 / 8 max |phi''|, and lies above
it where phi is convex; the line differs from the chord by what lies between its errors at the two knots, since both
are affine there. The numbers of the line are float32 numbers, taken exactly; sines at the knots come from their Taylor
series in rational arithmetic. So the bounds are proved, not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.errors import Unbounded

Span = tuple[Fraction, Fraction]

GRAIN = 2**60
"""Errors are rounded outward to multiples of 1/GRAIN."""

LARGEST = Fraction(2**100)
"""Arguments stay below it, so that float32 numbers hold them."""

TERM = Fraction(1, 2**80)
"""Taylor series end where their terms are below this, in magnitude."""


@dataclass(frozen=True, eq=False)
class BrokenLine:
    """line(z) = slope z + offset + sum over k of bends[k] relu(z - knots[k]), float32 numbers all.

    ends: of the interval where lower <= phi(z) - line(z) <= upper.
    """

    slope: np.float32
    offset: np.float32
    knots: NDArray[np.float32]
    bends: NDArray[np.float32]
    ends: tuple[Fraction, Fraction]
    lower: Fraction
    upper: Fraction

    def at(self, z: Fraction) -> Fraction:
        """The line's exact value."""
        total = Fraction(float(self.slope)) * z + Fraction(float(self.offset))
        for knot, bend in zip(self.knots.tolist(), self.bends.tolist(), strict=True):
            total += Fraction(bend) * max(z - Fraction(knot), Fraction(0))
        return total


@dataclass(frozen=True)
class Curve:
    """phi: value at a rational number, as an interval that contains it; curvature: bounds of phi'' between two.

    curvature is None where phi is not defined everywhere between them.
    """

    value: Callable[[Fraction], Span]
    curvature: Callable[[Fraction, Fraction], Span | None]


def broken_line(curve: Curve, lower: Fraction, upper: Fraction, pieces: int) -> BrokenLine:
    """Of about that many pieces over an interval that contains [lower, upper], lower < upper.

    The same numbers on every machine: rational arithmetic, rounded.
    Raises: Unbounded where phi has a pole, or arguments are huge.
    """
    if max(abs(lower), abs(upper)) > LARGEST:
        raise Unbounded(f"the argument of a function is beyond {float(LARGEST):g}; use a smaller box")
    places = [float(lower + (upper - lower) * i / pieces) for i in range(pieces + 1)]
    knots = np.array(places, np.float32)
    knots[0], knots[-1] = _outward(lower, -np.inf), _outward(upper, np.inf)
    knots = np.unique(knots)
    exact = [Fraction(t) for t in knots.tolist()]
    if curve.curvature(exact[0], exact[-1]) is None:
        raise Unbounded(f"a function has a pole between {knots[0]:.6g} and {knots[-1]:.6g}; use a smaller box")
    spans = [curve.value(t) for t in exact]
    values = [(low + high) / 2 for low, high in spans]
    steep = [(b - a) / (t - s) for (a, b), (s, t) in zip(pairwise(values), pairwise(exact), strict=True)]
    slopes = np.array([float(slope) for slope in steep], np.float32)
    bends = np.diff(slopes.astype(np.float64)).astype(np.float32)
    offset = np.float32(float(values[0] - Fraction(float(slopes[0])) * exact[0]))
    line = BrokenLine(slopes[0], offset, knots[1:-1], bends, (exact[0], exact[-1]), Fraction(0), Fraction(0))
    errors = [(low - y, high - y) for y, (low, high) in zip(_heights(line, exact), spans, strict=True)]
    low, high = _bounds(curve, exact, errors)
    return replace(line, lower=low, upper=high)


def _heights(line: BrokenLine, knots: Sequence[Fraction]) -> list[Fraction]:
    """The line's exact values at all knots, ends included."""
    found, slope = [line.at(knots[0])], Fraction(float(line.slope))
    bends = [*map(Fraction, line.bends.tolist()), Fraction(0)]
    for (t, beyond), bend in zip(pairwise(knots), bends, strict=True):
        found.append(found[-1] + slope * (beyond - t))
        slope += bend
    return found


def _bounds(curve: Curve, knots: Sequence[Fraction], errors: Sequence[Span]) -> Span:
    """The least and the largest phi - line, from those at the knots."""
    low = high = Fraction(0)
    for i, (t, beyond) in enumerate(pairwise(knots)):
        sag, bent = (beyond - t) ** 2 / 8, curve.curvature(t, beyond)
        assert bent is not None
        low = min(low, min(errors[i][0], errors[i + 1][0]) - sag * max(bent[1], Fraction(0)))
        high = max(high, max(errors[i][1], errors[i + 1][1]) + sag * max(-bent[0], Fraction(0)))
    return Fraction(floor(low * GRAIN), GRAIN), Fraction(ceil(high * GRAIN), GRAIN)


def _outward(value: Fraction, way: float) -> np.float32:
    """A float32 beyond the value."""
    near = np.float32(float(value))
    exact = Fraction(float(near))
    beyond = exact <= value if way < 0 else exact >= value
    return near if beyond else np.nextafter(near, np.float32(way))


def _series(t: Fraction, first: Fraction, order: int) -> Span:
    """The series first (1 - t^2 / ((n + 1)(n + 2)) + ..), n the order: sin or cos.

    It alternates; from where t^2 < (n + 1)(n + 2) on its terms fall, so the rest is no larger than its first one.
    """
    total, term, n = Fraction(0), first, order
    while True:
        total += term
        following = -term * t * t / ((n + 1) * (n + 2))
        if t * t < (n + 1) * (n + 2) and abs(following) < TERM:
            return total - abs(following), total + abs(following)
        term, n = following, n + 2


def _sine(t: Fraction) -> Span:
    return _series(t, t, 1)


def _cosine(t: Fraction) -> Span:
    return _series(t, Fraction(1), 0)


def _square(t: Fraction) -> Span:
    return t * t, t * t


def _inverse(t: Fraction) -> Span:
    return 1 / t, 1 / t


def _inverse_bent(low: Fraction, high: Fraction) -> Span | None:
    """2 / z^3 falls on both sides of 0."""
    return (2 / high**3, 2 / low**3) if low > 0 or high < 0 else None


CURVES = {
    "Sin": Curve(_sine, lambda low, high: (Fraction(-1), Fraction(1))),
    "Cos": Curve(_cosine, lambda low, high: (Fraction(-1), Fraction(1))),
    "Square": Curve(_square, lambda low, high: (Fraction(2), Fraction(2))),
    "Reciprocal": Curve(_inverse, _inverse_bent),
}
"""By operator; Square is Pow with exponent 2, or Mul of a value with itself; Reciprocal is Div, too."""
