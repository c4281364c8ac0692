"""Scalar functions, each enclosed by one rule: breakpoints, values, a radius.

For phi on [l, u] a function declares points z_0 = l .. z_n = u, values p_k and a radius delta with
    |phi(z) - p(z)| <= delta on [l, u],   p the piecewise-linear interpolation of (z_k, p_k)                      (1a)
(exact kinks for piecewise-linear functions; for smooth ones delta = max|phi''| h^2 / 8 + the error of libm). A line
minus p is extreme at a breakpoint, so for EVERY slope a
    phi(z) >= a z + min_k (p_k - a z_k) - delta   and   phi(z) <= a z + max_k (p_k - a z_k) + delta.             (1b)
The slope is a free choice; only the intercept is proved.

Lipschitz claims ask for less: floats a <= b such that for all y < z of [l, u] (of all reals: l = -inf, u = inf)
    a <= (phi(z) - phi(y)) / (z - y) <= b,   so   (dw - a dv)(b dv - dw) >= 0 for dw = phi(z) - phi(y), dv = z - y  (1c)
By the mean value theorem bounds of phi' between its kinks are such. Some functions are read with these alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np

from provenn.verifier.check.rounding import Array, CertificateRejected, down, up

GRID, LIBM = 64, 2.0**-48  # cells of an interpolation; assumed error of np.tanh, sigmoid: 16 ulp of 1 (measured < 2)


class Enclosure(NamedTuple):
    """(1a): points z_k and values p_k, each [n]; radius delta [n]; slopes worth trying, each [n].

    signs: where given, phi is extreme at some z_k, and these are the signs of the real phi(z_k).
    """

    points: list[Array]
    values: list[Array]
    radius: Array
    slopes: list[Array]
    signs: list[Array] | None = None

    def range(self) -> tuple[Array, Array]:
        """Bounds of phi on [l, u]."""
        low, high = np.minimum.reduce(self.values), np.maximum.reduce(self.values)
        lower, upper = down(low - self.radius), up(high + self.radius)
        if self.signs is not None:
            lower = np.where(np.minimum.reduce(self.signs) >= 0, np.maximum(lower, 0.0), lower)
            upper = np.where(np.maximum.reduce(self.signs) <= 0, np.minimum(upper, 0.0), upper)
        return lower, upper

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


Slopes = tuple[Array, Array]


@dataclass(frozen=True, eq=False)
class Function:
    """Of (lower, upper), each [n], lower <= upper: (1a) if `enclose` is given, and slopes (1c); where these jump."""

    slopes: Callable[[Array, Array], Slopes]
    enclose: Callable[[Array, Array], Enclosure] | None = None
    kinks: tuple[float, ...] = ()

    def __call__(self, lower: Array, upper: Array) -> Enclosure:
        """(1a).   Raises: CertificateRejected for a function that only Lipschitz claims may meet."""
        if self.enclose is None:
            raise CertificateRejected("model", "one of its functions is read for its slopes only: no bounds are proved")
        return self.enclose(lower, upper)


def piecewise_linear(kinks: tuple[float, ...], slopes: tuple[float, ...], value: Callable[[Array], Array]) -> Function:
    """Continuous, with these slopes between the kinks and beyond (exact floats); `value` errs by one rounding."""

    def enclosure(lower: Array, upper: Array) -> Enclosure:
        points = [lower, *(np.clip(kink, lower, upper) for kink in kinks), upper]
        values = [value(z) for z in points]
        radius = 2.0**-52 * np.maximum.reduce([np.abs(p) for p in values]) + 2.0**-1000
        ends = combinations(zip(points, values, strict=True), 2)
        return Enclosure(points, values, radius, [_secant(*start, *end) for start, end in ends])

    def pieces(lower: Array, upper: Array) -> Slopes:
        ends = list(pairwise((-np.inf, *kinks, np.inf)))
        met = [(lower < end) & (upper > start) | (lower == upper) for start, end in ends]
        least = np.minimum.reduce([np.where(on, slope, np.inf) for on, slope in zip(met, slopes, strict=True)])
        return least, np.maximum.reduce([np.where(on, slope, -np.inf) for on, slope in zip(met, slopes, strict=True)])

    return Function(pieces, enclosure, kinks)


def smooth(value: Callable[[Array], Array], derivative: Callable[[Array], Array], curvature: float) -> Function:
    """Linear interpolation on cells of width <= h errs by curvature h^2 / 8.

    derivative: even, largest at 0 where it is exact, falling to 0, computed within 2^-45 (from what is within LIBM);
    for (1a) it only proposes slopes.
    """

    def enclosure(lower: Array, upper: Array) -> Enclosure:
        inner = [np.clip(lower + (upper - lower) * (k / GRID), lower, upper) for k in range(1, GRID)]
        points = [lower, *inner, upper]
        values = [value(z) for z in points]
        widest = up(np.maximum.reduce([b - a for a, b in pairwise(points)]))
        radius = curvature * widest * widest / 8 * (1 + 2.0**-40) + 2 * LIBM
        chord = _secant(lower, values[0], upper, values[-1])
        return Enclosure(points, values, radius, [chord, *(derivative(z) for z in points[:: GRID // 16])])

    def between(lower: Array, upper: Array) -> Slopes:
        nearest, farthest = np.clip(0.0, lower, upper), np.maximum(np.abs(lower), np.abs(upper))
        least = np.maximum(derivative(farthest) - 2.0**-45, 0.0)
        return least, np.minimum(derivative(nearest) + 2.0**-45, derivative(np.zeros(())))

    return Function(between, enclosure)


def gain(a: Array, b: Array, level: bool = False) -> Function:
    """Multiplication of x by some d in [a, b], each [n]: which one is not known, so what is proved holds for all.

    (1b) with the corners (x, d) of [l, u] x [a, b] for breakpoints: d x - slope x is extreme at one, being linear in x
    and in d. The lower envelope is b x below 0, a x above, concave, so its chord is the best line; above likewise.
    level: the slope 0 instead for x on both sides of 0 and a < b (RecurJac).
    """

    def enclosure(lower: Array, upper: Array) -> Enclosure:
        points, values = [lower, lower, upper, upper], [b * lower, a * lower, a * upper, b * upper]
        radius = 2.0**-52 * np.maximum.reduce([np.abs(p) for p in values]) + 2.0**-1000
        chords = [_secant(lower, values[k], upper, values[k + 2]) for k in (0, 1)]
        slopes = [a, b, *chords]
        if level:
            slopes = [np.where((lower < 0) & (upper > 0) & (a < b), 0.0, slope) for slope in slopes]
        signs = [np.sign(d) * np.sign(x) for x, d in ((lower, b), (lower, a), (upper, a), (upper, b))]
        return Enclosure(points, values, radius, slopes, signs)

    return Function(lambda lower, upper: (a, b), enclosure)


def between(least: float, most: float) -> Function:
    """Slopes only, the same everywhere."""
    return Function(lambda lower, upper: (np.full(lower.shape, least), np.full(lower.shape, most)))


def _secant(z: Array, p: Array, y: Array, q: Array) -> Array:
    """Slope from (z, p) to (y, q), rounded; 0 where y = z."""
    return np.divide(q - p, y - z, out=np.zeros_like(z), where=y > z)


def _sigmoid(z: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-z)))


RELU = piecewise_linear((0.0,), (0.0, 1.0), lambda z: np.maximum(z, 0.0))
ABS = piecewise_linear((0.0,), (-1.0, 1.0), np.abs)
TANH = smooth(np.tanh, lambda z: 1 - np.tanh(z) ** 2, 0.77)  # max |tanh''| = 4 / (3 sqrt 3) < 0.76981
SIGMOID = smooth(_sigmoid, lambda z: _sigmoid(z) * (1 - _sigmoid(z)), 0.0963)  # 1 / (6 sqrt 3) < 0.096226

# With F, f the normal distribution and density and s the sigmoid, phi'' = 0 where phi' is extreme:
# gelu' = F(x) + x f(x) at x^2 = 2: 1.12890414518515..; (x s(k x))' at k x tanh(k x / 2) = 2: 1.09983932012886..; gelu's
# tanh form at +-1.41850400879..: 1.12899306865877..; these three have phi'(x) + phi'(-x) = 1. mish' at 1.49057117948..
# and -2.25637639636..: 1.08849816125172.., -0.11252612238946..; erf'(0) = 2 / sqrt(pi) = 1.12837916709551..;
# hard swish x clip(x / 6 + 1/2, 0, 1) at the ends of its middle piece.
GELU, GELU_TANH = between(-0.12890414519, 1.12890414519), between(-0.12899306866, 1.12899306866)
SWISH, RISING, WAVE = between(-0.09983932013, 1.09983932013), between(0.0, 1.0), between(-1.0, 1.0)
SLOPES = {"Atan": RISING, "Cos": WAVE, "Erf": between(0.0, 1.12837916710), "HardSwish": between(-0.5, 1.5), "Sin": WAVE}
SLOPES |= {"Mish": between(-0.11252612240, 1.08849816126), "Softplus": RISING, "Softsign": RISING, "Swish": SWISH}
