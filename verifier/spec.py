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

from provenn.verifier.errors import EmptyRegion, InvalidSpecification


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

    def contains(self, x: Sequence[Fraction]) -> bool:
        """Whether the point lies in the ball, decided exactly."""
        gaps = [abs(v - c) for v, c in zip(x, self.centre, strict=True)]
        if self.norm == 1:
            return sum(gaps, Fraction(0)) <= self.radius
        return sum((gap * gap for gap in gaps), Fraction(0)) <= self.radius**2


@dataclass(frozen=True)
class Constraint:
    """{x : row x <= bound}, closed; row: one Fraction an input."""

    row: tuple[Fraction, ...]
    bound: Fraction

    def holds(self, x: Sequence[Fraction]) -> bool:
        """Whether the point satisfies it, decided exactly."""
        return sum((p * v for p, v in zip(self.row, x, strict=True) if p), Fraction(0)) <= self.bound


@dataclass(frozen=True, eq=False)
class InputSet:
    """A box of exact rational bounds, flat in the input's C order, optionally cut by a ball and linear constraints.

    Raises: InvalidSpecification if the box is empty in some coordinate.
    """

    exact_lower: tuple[Fraction, ...]
    exact_upper: tuple[Fraction, ...]
    ball: Ball | None = None
    constraints: tuple[Constraint, ...] = ()

    def __post_init__(self) -> None:
        for i, (low, high) in enumerate(zip(self.exact_lower, self.exact_upper, strict=True)):
            if low.numerator * high.denominator > high.numerator * low.denominator:
                raise InvalidSpecification(
                    f"input {i} has lower bound {float(low)!r} above upper bound {float(high)!r}"
                )

    @cached_property
    def lower(self) -> np.ndarray:
        """float64 [inputs], rounded outward (down)."""
        return self._rounded_lower[0]

    @cached_property
    def upper(self) -> np.ndarray:
        """float64 [inputs], rounded outward (up)."""
        return self._rounded_upper[1]

    @cached_property
    def inner(self) -> tuple[np.ndarray, np.ndarray]:
        """Bounds float64 [inputs] rounded inward: a float lies in the box exactly if it lies between these."""
        return self._rounded_lower[1], self._rounded_upper[0]

    def contains(self, x: np.ndarray) -> bool:
        """Whether x (any float dtype, flat) lies in the set, decided exactly."""
        flat = x.ravel().astype(np.float64)
        if flat.shape != self.inner[0].shape or not ((self.inner[0] <= flat) & (flat <= self.inner[1])).all():
            return False
        if self.ball is None and not self.constraints:
            return True
        values = [Fraction(v) for v in flat.tolist()]
        return (self.ball is None or self.ball.contains(values)) and all(c.holds(values) for c in self.constraints)

    @cached_property
    def _rounded_lower(self) -> tuple[np.ndarray, np.ndarray]:
        return enclosed(self.exact_lower)

    @cached_property
    def _rounded_upper(self) -> tuple[np.ndarray, np.ndarray]:
        return enclosed(self.exact_upper)


@dataclass(frozen=True, eq=False)
class Case:
    """One input set with the clauses that must be excluded over it."""

    inputs: InputSet
    clauses: tuple[Clause, ...]


@dataclass(frozen=True, eq=False)
class Specification:
    """Cases that must all hold, and the exact text they were read from (what a certificate is about).

    form: "json" (provenn-specification/1) or "vnnlib" (VNN-LIB 1.0): the two forms the checker reads itself. warnings:
    which of its sets of inputs are empty. Without cases all are: it holds vacuously, and `sizes` says for how many
    inputs and outputs. lines: of the text where the last input and the last output are declared, if it has such.
    """

    cases: tuple[Case, ...]
    text: bytes
    form: str
    warnings: tuple[str, ...] = ()
    sizes: tuple[int, int] = (0, 0)
    lines: tuple[int | None, ...] = (None, None)

    @property
    def input_size(self) -> int:
        """How many input coordinates it speaks of."""
        return len(self.cases[0].inputs.exact_lower) if self.cases else self.sizes[0]

    @property
    def output_size(self) -> int:
        """How many output coordinates it speaks of."""
        return next((len(row) for case in self.cases for c in case.clauses for row in c.matrix), self.sizes[1])

    def require_fits(self, inputs: int, outputs: int) -> None:
        """Raises: InvalidSpecification if it speaks of another number of inputs or outputs."""
        if self.input_size != inputs:
            reason = f"it has {self.input_size} input variables, the network has {inputs} inputs"
            raise InvalidSpecification(reason, self.lines[0])
        if self.output_size not in (0, outputs):
            reason = f"it has {self.output_size} output variables, the network has {outputs} outputs"
            raise InvalidSpecification(reason, self.lines[1])


def vacuous(empty: EmptyRegion, text: bytes, sizes: tuple[int, int]) -> Specification:
    """The specification of a VNN-LIB text, of any version, that allows no input; sizes: its inputs and outputs."""
    return Specification((), text, "vnnlib", (str(empty),), sizes)


def enclosed(exact: Sequence[Fraction]) -> tuple[np.ndarray, np.ndarray]:
    """The largest float64 <= x and the smallest >= x, for every x; equal numbers that are one object count once."""
    distinct = {id(x): x for x in exact}
    near = {key: float(x) for key, x in distinct.items()}
    beyond = {key: _compared(near[key], x) for key, x in distinct.items()}
    values, sides = (np.array([found[id(x)] for x in exact], dtype=np.float64) for found in (near, beyond))
    below = np.where(sides > 0, np.nextafter(values, -np.inf), values)
    return below, np.where(sides < 0, np.nextafter(values, np.inf), values)


def _compared(near: float, x: Fraction) -> int:
    """The sign of near - x."""
    numerator, denominator = near.as_integer_ratio()
    left, right = numerator * x.denominator, x.numerator * denominator
    return (left > right) - (left < right)
