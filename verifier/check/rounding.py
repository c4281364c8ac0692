"""What float64 round-to-nearest loses, and that this machine has it.

u = 2^-53. A sum of n products a.b, in any order, with or without fused multiply-add, is computed as fl with
    |fl(a.b) - a.b| <= gamma_n |a|.|b| + n 2^-1074,   gamma_n = n u / (1 - n u)         (Higham, ASNA, section 3.1)
and j roundings of a number in a row multiply it by 1 + d, |d| <= gamma_j.
"""

from fractions import Fraction
from math import nextafter

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LARGEST = float(np.finfo(np.float64).max)
UNDERFLOW = 2.0**-900  # above every sum of underflow errors: each is at most 2^-1074, and there are below 2^150


class CertificateRejected(Exception):
    """The certificate proves nothing: `claim` is the id or the part of the bundle that failed, `reason` says why."""

    def __init__(self, claim: int | str, reason: str) -> None:
        self.claim, self.reason = claim, reason
        super().__init__(f"claim {claim}: {reason}" if isinstance(claim, int) else f"{claim}: {reason}")


def require(condition: object, claim: int | str, reason: str) -> None:
    """Raises: CertificateRejected unless the condition is true."""
    if not condition:
        raise CertificateRejected(claim, reason)


def unit(n: int) -> float:
    """A float >= gamma_n (1 + gamma_2n)(1 + 16 u): n u is exact, and the slack is 2^-20 of it."""
    require(n <= 2**29, "model", "it is too large for the error bounds")
    return n * 2.0**-53 * (1 + 2.0**-20)


def down(x: Array) -> Array:
    """Below the real result that x is the nearest float of; -inf where x is not finite."""
    return np.where(np.isfinite(x), np.nextafter(x, -np.inf), -np.inf)


def up(x: Array) -> Array:
    """Above the real result that x is the nearest float of; inf where x is not finite."""
    return np.where(np.isfinite(x), np.nextafter(x, np.inf), np.inf)


def float_below(x: Fraction) -> float:
    """A float64 <= x, the largest or the one before it; -inf below all."""
    try:
        near = float(x)
    except OverflowError:
        return LARGEST if x > 0 else -np.inf
    numerator, denominator = near.as_integer_ratio()
    return near if numerator * x.denominator <= x.numerator * denominator else nextafter(near, -np.inf)


def require_float64() -> None:
    """Tries this machine: rounding to nearest, gradual underflow, products in BLAS within gamma_n.

    Raises: CertificateRejected if the arithmetic is not the one that the bounds are derived for.
    """
    one, u, tiny = np.array([1.0]), np.array([2.0**-53]), np.array([2.0**-1074])
    nearest = (one + u)[0] == 1.0 and (one + 3 * u)[0] == 1.0 + 2.0**-51 and (one - u)[0] < 1.0
    gradual = (tiny / one)[0] != 0.0 and (tiny * one)[0] != 0.0 and (tiny.reshape(1, 1) @ one)[0] != 0.0
    require(nearest and gradual, "environment", "float64 does not round to nearest, or flushes small numbers to zero")
    generator = np.random.default_rng(0)
    a, b = (generator.integers(-(2**53), 2**53, size=(12, 12)) for _ in range(2))
    error = np.frompyfunc(int, 1, 1)(a.astype(np.float64) @ b.astype(np.float64)) - a.astype(object) @ b.astype(object)
    size = np.abs(a).astype(object) @ np.abs(b).astype(object)
    share, whole = unit(12).as_integer_ratio()
    within = bool((np.abs(error) * whole <= share * size).all())
    require(within, "environment", "a matrix product lies outside the rounding-error bound")
