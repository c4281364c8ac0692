"""What is to be proved, read from the file in the bundle with exact rationals: provenn-specification/1 (JSON).

A case is a set of inputs and clauses; a clause {y : C y >= d} is closed and unsafe. It is excluded over the inputs
when for some row i the margin, the minimum of d_i - C_i y, is above 0. VNN-LIB: vnnlib_text.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from provenn.verifier.check.payload import unique
from provenn.verifier.check.rejected import CertificateRejected, require
from provenn.verifier.check.rounding import float_above, float_below
from provenn.verifier.check.rows import Ball, Box

Vector = tuple[Fraction, ...]

DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]{1,3})?", re.ASCII)
RATIONAL = re.compile(r"-?[0-9]+/[0-9]*[1-9][0-9]*", re.ASCII)
HEXADECIMAL = re.compile(r"-?0x[01]\.?[0-9a-f]*p[+-]?[0-9]{1,4}", re.ASCII)


@dataclass(frozen=True)
class Clause:
    """{y : C y >= d}: rows of C, and d."""

    matrix: tuple[Vector, ...]
    bound: Vector


@dataclass(frozen=True)
class Case:
    """lower <= x <= upper, and |x - centre|_norm <= radius if ball = (centre, radius, norm); clauses to exclude."""

    lower: Vector
    upper: Vector
    clauses: tuple[Clause, ...]
    ball: tuple[Vector, Fraction, int] | None = None

    def region(self) -> tuple[Box, Ball | None]:
        """The inputs in float64, rounded outward (the ball's centre down: Ball allows for it)."""
        box = Box(np.array([float_below(x) for x in self.lower]), np.array([float_above(x) for x in self.upper]))
        if self.ball is None:
            return box, None
        centre, radius, norm = self.ball
        return box, Ball(np.array([-float_above(-c) for c in centre]), float_above(radius), norm)


def number(text: str) -> Fraction:
    """A decimal, rational or hexadecimal float, exactly.   Raises: CertificateRejected for anything else."""
    if (len(text) <= 1000 and DECIMAL.fullmatch(text)) or RATIONAL.fullmatch(text):
        return Fraction(text)
    if HEXADECIMAL.fullmatch(text):
        try:
            return Fraction(float.fromhex(text))
        except OverflowError:
            pass
    raise CertificateRejected("specification", f"{text[:40]!r} is not a number that is read here")


def read_json(text: bytes) -> tuple[Case, ...]:
    """The cases of a provenn-specification/1.   Raises: CertificateRejected for anything not understood."""
    try:
        data = json.loads(text, parse_float=number, parse_int=number, parse_constant=number, object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CertificateRejected("specification", f"it is not JSON: {error}") from error
    require(isinstance(data, dict) and data.pop("format", None) == "provenn-specification/1", "specification", "format")
    kind = data.pop("kind", None)
    if kind == "robustness":
        return (_robustness(data),)
    if kind == "box":
        return (_box(data),)
    require(kind == "cases", "specification", f"kind {kind!r} is not understood")
    listed = _only(data, "cases")[0]
    require(isinstance(listed, list) and listed, "specification", "it has no cases")
    return tuple(_box(case) for case in listed)


def _only(data: Any, *names: str) -> list[Any]:
    """The values of these keys (None where absent), and no others."""
    require(
        isinstance(data, dict) and data.keys() <= set(names), "specification", f"it may have {', '.join(names)} only"
    )
    return [data.get(name) for name in names]


def _rational(value: Any) -> Fraction:
    require(isinstance(value, Fraction | str), "specification", "a number is missing")
    return value if isinstance(value, Fraction) else number(value)


def _vector(value: Any) -> Vector:
    require(isinstance(value, list) and value, "specification", "a list of numbers is missing")
    return tuple(_rational(x) for x in value)


def _count(value: Any, limit: int) -> int:
    whole = isinstance(value, Fraction) and value.denominator == 1 and 0 <= value < limit
    require(whole, "specification", f"an index or count is not a whole number below {limit}")
    return int(value)


def _box(data: Any) -> Case:
    lower, upper, unsafe = _only(data, "lower", "upper", "unsafe")
    require(isinstance(unsafe, list), "specification", "the unsafe sets are missing")
    clauses = []
    for clause in unsafe:
        matrix, bound = _only(clause, "C", "d")
        require(isinstance(matrix, list), "specification", "a clause has no rows")
        clauses.append(Clause(tuple(_vector(row) for row in matrix), _vector(bound)))
    return Case(_vector(lower), _vector(upper), tuple(clauses))


def _robustness(data: Any) -> Case:
    """Box and ball of radius epsilon around the input, within the clip range; clauses y_j - y_label >= 0."""
    names = ("input", "label", "outputs", "target", "epsilon", "norm", "clip")
    given, label, outputs, target, epsilon, norm, clip = _only(data, *names)
    centre, radius, size = _vector(given), _rational(epsilon), _count(outputs, 2**20)
    k, goal = _count(label, size), None if target is None else _count(target, size)
    require(goal != k and radius >= 0, "specification", "the target is the label, or epsilon is negative")
    require(norm in ("inf", "2", "1"), "specification", f"norm {norm!r} is not understood")
    lower, upper = tuple(x - radius for x in centre), tuple(x + radius for x in centre)
    if clip is not None:
        limits = _vector(clip)
        require(len(limits) == 2, "specification", "the clip range must have two ends")
        lower, upper = tuple(max(x, limits[0]) for x in lower), tuple(min(x, limits[1]) for x in upper)
    zero, one = Fraction(0), Fraction(1)
    others = [j for j in range(size) if j != k and goal in (None, j)]
    rows = [tuple(one if i == j else -one if i == k else zero for i in range(size)) for j in others]
    clauses = tuple(Clause((row,), (zero,)) for row in rows)
    return Case(lower, upper, clauses, None if norm == "inf" else (centre, radius, int(norm)))
