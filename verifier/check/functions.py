"""Scalar functions, each enclosed by one rule: breakpoints, values, a radius.

For phi on [l, u] a function declares points z_0 = l .. z_n = u, values p_k and a radius delta with
    |phi(z) - p(z)| <= delta on [l, u],   p the piecewise-linear interpolation of (z_k, p_k)                      (1a)
(exact kinks for piecewise-linear functions; for smooth ones delta = max|phi''| h^2 / 8 + the error of libm). A line
minus p is extreme at a breakpoint, so for EVERY slope a
    phi(z) >= a z + min_k (p_k - a z_k) - delta   and   phi(z) <= a z + max_k (p_k - a z_k) + delta.             (1b)
The slope is a free choice; only the intercept is proved.
"""

from collections.abc import Callable
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from provenn.verifier.check.rounding import Array, down, up

GRID, LIBM = 64, 2.0**-48  # cells of an interpolation; assumed error of np.tanh, sigmoid: 16 ulp of 1 (measured < 2)


class Enclosure(NamedTuple):
    """(1a): points z_k and values p_k, each [n]; radius delta [n]; slopes worth trying, each [n]."""

    points: list[Array]
    values: list[Array]
    radius: Array
    slopes: list[Array]

    def range(self) -> tuple[Array, Array]:
        """Bounds of phi on [l, u]."""
        low, high = np.minimum.reduce(self.values), np.maximum.reduce(self.values)
        return down(low - self.radius), up(high + self.radius)

    def intercept(self, slope: Array, sign: int) -> Array:
        """(1b): k with  phi(z) >= slope z + k  on [l, u] (sign 1), or  phi(z) <= slope z + k  (sign -1).

        One product and one difference lose at most 3 u (|p_k| + |slope z_k|) + 2^-1074, less than the slack.
        """
        gaps = [sign * (p - slope * z) for z, p in zip(self.points, self.values, strict=True)]
        size = np.maximum.reduce([np.abs(p) for p in self.values])
        size = size + np.abs(slope) * np.maximum(np.abs(self.points[0]), np.abs(self.points[-1]))
        slack = (self.radius + (2.0**-51 * size + 2.0**-1000)) * (1 + 2.0**-50)
        return sign * down(np.minimum.reduce(gaps) - slack)

    def line(self, sign: int) -> tuple[Array, Array]:
        """(slope, intercept) of the line below (sign 1) or above (-1) phi that is best in the middle of [l, u]."""
        middle = 0.5 * self.points[0] + 0.5 * self.points[-1]
        slope, intercept = self.slopes[0], self.intercept(self.slopes[0], sign)
        for other in self.slopes[1:]:
            rival = self.intercept(other, sign)
            better = sign * (other * middle + rival) > sign * (slope * middle + intercept)
            slope, intercept = np.where(better, other, slope), np.where(better, rival, intercept)
        return slope, intercept


Function = Callable[[Array, Array], Enclosure]  # (lower, upper), each [n] -> (1a)


def piecewise_linear(kinks: tuple[float, ...], value: Callable[[Array], Array]) -> Function:
    """Continuous, linear between the kinks (exact floats) and beyond; `value` errs by at most one rounding."""

    def enclosure(lower: Array, upper: Array) -> Enclosure:
        points = [lower, *(np.clip(kink, lower, upper) for kink in kinks), upper]
        values = [value(z) for z in points]
        radius = 2.0**-52 * np.maximum.reduce([np.abs(p) for p in values]) + 2.0**-1000
        ends = combinations(zip(points, values, strict=True), 2)
        return Enclosure(points, values, radius, [_secant(*start, *end) for start, end in ends])

    return enclosure


def smooth(value: Callable[[Array], Array], derivative: Callable[[Array], Array], curvature: float) -> Function:
    """Linear interpolation on cells of width <= h errs by curvature h^2 / 8; `derivative` only proposes slopes."""

    def enclosure(lower: Array, upper: Array) -> Enclosure:
        inner = [np.clip(lower + (upper - lower) * (k / GRID), lower, upper) for k in range(1, GRID)]
        points = [lower, *inner, upper]
        values = [value(z) for z in points]
        widest = up(np.maximum.reduce([b - a for a, b in pairwise(points)]))
        radius = curvature * widest * widest / 8 * (1 + 2.0**-40) + 2 * LIBM
        chord = _secant(lower, values[0], upper, values[-1])
        return Enclosure(points, values, radius, [chord, *(derivative(z) for z in points[:: GRID // 16])])

    return enclosure


def _secant(z: Array, p: Array, y: Array, q: Array) -> Array:
    """Slope from (z, p) to (y, q), rounded; 0 where y = z."""
    return np.divide(q - p, y - z, out=np.zeros_like(z), where=y > z)


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


RELU = piecewise_linear((0.0,), lambda z: np.maximum(z, 0.0))
TANH = smooth(np.tanh, lambda z: 1 - np.tanh(z) ** 2, 0.77)  # max |tanh''| = 4 / (3 sqrt 3) < 0.76981
SIGMOID = smooth(_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z)), 0.0963)  # 1 / (6 sqrt 3) < 0.096226
