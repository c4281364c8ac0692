"""Formulas over inputs X and outputs Y, multiplied out into cases: what both versions of VNN-LIB mean.

A formula is in disjunctive normal form: a list of disjuncts, each a list of atoms. An atom is a bound of one input,
a closed row over several inputs, or one over the outputs. Row order: what is asserted without alternatives first, then
as written.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from provenn.verifier.emptiness import PROGRAMS, proved_empty
from provenn.verifier.errors import EmptyRegion, InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import require_moderate
from provenn.verifier.spec import Case, Clause, Constraint, InputSet

DEPTH, DISJUNCTS, ATOMS, CELLS = 60, 100_000, 5_000_000, 20_000_000
"""Limits: of nesting, of disjuncts, of atoms in all disjuncts together, of numbers in all boxes and in all matrices."""

ZERO, ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True, slots=True)
class Linear:
    """sum of coefficient * variable + constant. Variable i >= 0 is X_i; variable -1-j is Y_j."""

    terms: dict[int, Fraction]
    constant: Fraction

    def plus(self, other: Linear, factor: Fraction = ONE) -> Linear:
        """Itself + factor * other, without zero coefficients."""
        terms = dict(self.terms)
        for variable, value in other.terms.items():
            terms[variable] = terms.get(variable, ZERO) + factor * value
        kept = {variable: value for variable, value in terms.items() if value}
        return Linear(kept, self.constant + factor * other.constant)

    def times(self, other: Linear) -> Linear:
        """The product, if one factor is a number.   Raises: InvalidSpecification if neither is."""
        if self.terms and other.terms:
            raise InvalidSpecification("a product of variables is not linear")
        return NOTHING.plus(other, self.constant) if not self.terms else NOTHING.plus(self, other.constant)


NOTHING = Linear({}, ZERO)


@dataclass(frozen=True, slots=True)
class Bound:
    """X_index >= value if `lower`, else X_index <= value."""

    index: int
    value: Fraction
    lower: bool


@dataclass(frozen=True, slots=True)
class Row:
    """sum of coefficient * Y_j >= bound; keys are -1-j."""

    terms: dict[int, Fraction]
    bound: Fraction


@dataclass(frozen=True, slots=True)
class Cut:
    """sum of coefficient * X_i <= bound: coefficients of two or more inputs, in order."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction


Atom = Bound | Cut | Row
Disjunct = list[Atom]
Formula = list[Disjunct]


def at_least_zero(term: Linear) -> Atom:
    """The atom  term >= 0.   Raises: InvalidSpecification for one without variables, or over X and Y together."""
    terms, constant = term.terms, term.constant
    if not terms:
        raise InvalidSpecification("a constraint without variables (or whose variables cancel) is not read")
    for value in (*terms.values(), constant):
        require_moderate(value)
    if all(variable < 0 for variable in terms):
        return Row(terms, -constant)
    if len(terms) == 1:
        ((index, slope),) = terms.items()
        return Bound(index, require_moderate(-constant / slope), slope > 0)
    if all(variable >= 0 for variable in terms):
        return Cut(tuple((i, -value) for i, value in sorted(terms.items())), constant)
    raise InvalidSpecification("a constraint over inputs and outputs together is not read")


def either(parts: Iterable[Formula]) -> Formula:
    """Their disjunction.   Raises: ResourceLimit."""
    found: Formula = []
    for part in parts:
        found += part
        if len(found) > DISJUNCTS:
            raise ResourceLimit("the number of disjuncts of the specification", str(DISJUNCTS))
    return found


def both(left: Formula, right: Formula) -> Formula:
    """Their conjunction, multiplied out; takes over both lists.   Raises: ResourceLimit."""
    if len(left) * len(right) > DISJUNCTS:
        raise ResourceLimit("the number of disjuncts of the specification", str(DISJUNCTS))
    if len(left) > 1 or len(right) > 1:
        atoms = len(right) * sum(map(len, left)) + len(left) * sum(map(len, right))
        if atoms > ATOMS:
            raise ResourceLimit("the size of the specification's disjunctive normal form", f"{ATOMS} constraints")
    if len(right) == 1:
        for disjunct in left:
            disjunct.extend(right[0])
        return left
    return [a + b for a in left for b in right]


def cases(formulas: Iterable[Formula], inputs: int, outputs: int) -> tuple[Case, ...]:
    """The conjunction as cases: distinct input sets in first-seen order, each with its clauses in order.

    A disjunct whose inputs are seen to be empty is dropped; one that says nothing of the outputs gives a clause
    without rows: every output is unsafe. Raises: InvalidSpecification (an input without a bound; all input sets
    empty), ResourceLimit.
    """
    common: Disjunct = []
    varying: Formula = [[]]
    for formula in formulas:
        if len(formula) == 1:
            common += formula[0]
        else:
            varying = both(varying, formula)
    box = _Box((None,) * inputs, (None,) * inputs)
    fixed = box.changes(common)
    _require_region([fixed])
    box = box.changed(fixed)
    rows = [atom for atom in common if isinstance(atom, Row)]
    shared = [atom for atom in common if isinstance(atom, Cut)]
    _limit(outputs * sum(len(rows) + len(disjunct) for disjunct in varying), "clauses")
    changes = [box.changes(disjunct) for disjunct in varying]
    _require_region(changes)
    found: dict[tuple[_Changes, tuple[Cut, ...]], list[Clause]] = {}
    for disjunct, change in zip(varying, changes, strict=True):
        if _reversed(change) is None:
            more = [atom for atom in disjunct if isinstance(atom, Row)]
            cuts = dict.fromkeys((*shared, *(atom for atom in disjunct if isinstance(atom, Cut))))
            found.setdefault((change, tuple(cuts)), []).append(_clause(rows + more, outputs))
    _limit(inputs * sum(1 + len(cuts) for _, cuts in found), "input sets")
    return _possible([Case(box.changed(c).complete(cuts), tuple(clauses)) for (c, cuts), clauses in found.items()])


def _possible(found: list[Case]) -> tuple[Case, ...]:
    """The cases whose constraints are not proved to be impossible.   Raises: InvalidSpecification if there are none."""
    few = len(found) <= PROGRAMS
    left = tuple(case for case in found if not (case.inputs.constraints and proved_empty(case.inputs, few)))
    if not left:
        raise EmptyRegion("empty region: no point of the box satisfies the constraints over several inputs")
    return left


_Changes = tuple[tuple[int, Fraction | None, Fraction | None], ...]
"""(input, its lower bound, its upper bound) for some inputs, in order."""


@dataclass(frozen=True, slots=True)
class _Box:
    """Bounds found so far, None where there is none yet."""

    lower: Sequence[Fraction | None]
    upper: Sequence[Fraction | None]

    def changes(self, atoms: Disjunct) -> _Changes:
        """The coordinates where `atoms` tighten this box: equal exactly where the tightened boxes are."""
        tight: dict[int, tuple[Fraction | None, Fraction | None]] = {}
        for atom in atoms:
            if isinstance(atom, Bound):
                low, high = tight.get(atom.index) or (self.lower[atom.index], self.upper[atom.index])
                if not atom.lower:
                    tight[atom.index] = low, atom.value if high is None else min(high, atom.value)
                else:
                    tight[atom.index] = atom.value if low is None else max(low, atom.value), high
        old = self.lower, self.upper
        return tuple((i, *ends) for i, ends in sorted(tight.items()) if ends != (old[0][i], old[1][i]))

    def changed(self, changes: _Changes) -> _Box:
        """The box with some coordinates replaced."""
        lower, upper = list(self.lower), list(self.upper)
        for i, low, high in changes:
            lower[i], upper[i] = low, high
        return _Box(lower, upper)

    def complete(self, cuts: Sequence[Cut]) -> InputSet:
        """The set of inputs.   Raises: InvalidSpecification naming an input without a bound."""
        constraints = tuple(Constraint(_spread(dict(cut.terms), len(self.lower)), cut.bound) for cut in cuts)
        return InputSet(_complete(self.lower, "lower"), _complete(self.upper, "upper"), None, constraints)


def _complete(bounds: Sequence[Fraction | None], side: str) -> tuple[Fraction, ...]:
    found = tuple(value for value in bounds if value is not None)
    if len(found) < len(bounds):
        raise InvalidSpecification(f"X_{bounds.index(None)} has no {side} bound: every input needs both")
    return found


def _reversed(changes: _Changes) -> str | None:
    """Says where a lower bound lies above its upper bound, or None."""
    for i, low, high in changes:
        if low is not None and high is not None and low > high:
            return f"X_{i} must be at least {float(low)!r} and at most {float(high)!r}"
    return None


def _require_region(boxes: Sequence[_Changes]) -> None:
    reasons = [_reversed(changes) for changes in boxes]
    if None not in reasons:
        raise EmptyRegion(f"empty region: {reasons[0]}")


def _clause(rows: Sequence[Row], outputs: int) -> Clause:
    """{y : C y >= d}, one row of C an atom."""
    return Clause(tuple(_dense(row, outputs) for row in rows), tuple(row.bound for row in rows))


def _dense(row: Row, outputs: int) -> tuple[Fraction, ...]:
    return _spread({-1 - variable: coefficient for variable, coefficient in row.terms.items()}, outputs)


def _spread(terms: dict[int, Fraction], size: int) -> tuple[Fraction, ...]:
    values = [ZERO] * size
    for index, coefficient in terms.items():
        values[index] = coefficient
    return tuple(values)


def _limit(cells: int, what: str) -> None:
    if cells > CELLS:
        raise ResourceLimit(f"the size of the specification's {what}", f"{CELLS} numbers")
