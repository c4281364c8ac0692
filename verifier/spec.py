"""What is to be proved: for every input of a set, no output lies in a closed unsafe set.

One convention everywhere (code, JSON, certificates): a `Clause` is the polyhedron {y : C y >= d} of *unsafe*
outputs, closed; the unsafe set of a case is the union of its clauses (disjunctive normal form). A clause is excluded
when some row i has  margin_i = min over the region of (d_i - C_i y) > 0. Numbers are exact rationals: decimals in a
file mean what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from provenn.verifier.errors import InvalidSpecification


@dataclass(frozen=True)
class Clause:
    """{y : C y >= d}, closed and unsafe.  matrix C: rows of one Fraction an output; bound d: one Fraction a row."""

    matrix: tuple[tuple[Fraction, ...], ...]
    bound: tuple[Fraction, ...]

    def holds(self, output: Sequence[Fraction]) -> bool:
        """Whether this output is unsafe, decided exactly."""
        rows = zip(self.matrix, self.bound, strict=True)
        return all(sum((c * y for c, y in zip(row, output, strict=True) if c), Fraction(0)) >= d for row, d in rows)


@dataclass(frozen=True, eq=False)
class Ball:
    """{x : |x - centre|_norm <= radius}; norm 1 or 2 (l_inf balls are boxes); centre: one Fraction an input."""

    centre: tuple[Fraction, ...]
    radius: Fraction
    norm: float


@dataclass(frozen=True, eq=False)
class InputSet:
    """A box of exact rational bounds, flat in the input's C order, optionally intersected with a ball.

    Raises: InvalidSpecification if the box is empty in some coordinate.
    """

    exact_lower: tuple[Fraction, ...]
    exact_upper: tuple[Fraction, ...]
    ball: Ball | None = None

    def __post_init__(self) -> None:
        for i, (low, high) in enumerate(zip(self.exact_lower, self.exact_upper, strict=True)):
            if low > high:
                raise InvalidSpecification(
                    f"input {i} has lower bound {float(low)!r} above upper bound {float(high)!r}"
                )

    @cached_property
    def lower(self) -> np.ndarray:
        """float64 [inputs], rounded outward (down)."""
        return np.array([_toward(x, -np.inf) for x in self.exact_lower])

    @cached_property
    def upper(self) -> np.ndarray:
        """float64 [inputs], rounded outward (up)."""
        return np.array([_toward(x, np.inf) for x in self.exact_upper])

    def contains(self, x: np.ndarray) -> bool:
        """Whether x (any float dtype, flat) lies in the set, decided exactly."""
        values = [Fraction(float(v)) for v in x.ravel()]
        inside = all(a <= v <= b for a, v, b in zip(self.exact_lower, values, self.exact_upper, strict=True))
        if not inside or self.ball is None:
            return inside
        gaps = [abs(v - c) for v, c in zip(values, self.ball.centre, strict=True)]
        if self.ball.norm == 1:
            return sum(gaps, Fraction(0)) <= self.ball.radius
        return sum((g * g for g in gaps), Fraction(0)) <= self.ball.radius**2


@dataclass(frozen=True, eq=False)
class Case:
    """One input set with the clauses that must be excluded over it."""

    inputs: InputSet
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, eq=False)
class Specification:
    """Cases that must all hold, and the exact text they were read from (what a certificate is about).

    form: "json" (provenn-specification/1) or "vnnlib" (VNN-LIB 1.0): the two forms the checker reads itself.
    """

    cases: tuple[Case, ...]
    text: bytes
    form: str

    @property
    def input_size(self) -> int:
        """How many input coordinates it speaks of."""
        return len(self.cases[0].inputs.exact_lower)

    @property
    def output_size(self) -> int:
        """How many output coordinates it speaks of."""
        return next((len(row) for case in self.cases for c in case.clauses for row in c.matrix), 0)

    def require_fits(self, inputs: int, outputs: int) -> None:
        """Raises: InvalidSpecification if it speaks of another number of inputs or outputs."""
        if self.input_size != inputs:
            raise InvalidSpecification(f"it has {self.input_size} input variables, the network has {inputs} inputs")
        if self.output_size not in (0, outputs):
            raise InvalidSpecification(f"it has {self.output_size} output variables, the network has {outputs} outputs")


def _toward(x: Fraction, direction: float) -> float:
    """The nearest float64, or its neighbour in `direction` if rounding went the other way."""
    near = float(x)
    exact = Fraction(near)
    wrong = exact > x if direction < 0 else exact < x
    return float(np.nextafter(near, direction)) if wrong else near
