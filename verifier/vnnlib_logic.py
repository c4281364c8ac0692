"""Formulas over inputs X and outputs Y, multiplied out into cases: what both versions of VNN-LIB mean.

A formula is in disjunctive normal form: a list of disjuncts, each a list of atoms. An atom is a bound of one input,
a closed row over several inputs, or one over the outputs. Row order: what is asserted without alternatives first, then
as written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from provenn.verifier.emptiness import PROGRAMS, proved_empty
from provenn.verifier.errors import EmptyRegion, InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import require_moderate
from provenn.verifier.spec import Case, Clause, Constraint, InputSet

DEPTH, DISJUNCTS, ATOMS, CELLS = 60, 100_000, 5_000_000, 20_000_000
"""Limits: of nesting, of disjuncts, of atoms in all disjuncts together, of numbers in all boxes and in all matrices."""

LINES = 8
"""How many lines are named at most."""

ELSEWHERE = "is not read here; provenn-vnnlib decides such queries"

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
            raise InvalidSpecification(f"a product of variables is not linear: it {ELSEWHERE}")
        return NOTHING.plus(other, self.constant) if not self.terms else NOTHING.plus(self, other.constant)


NOTHING = Linear({}, ZERO)


@dataclass(frozen=True, slots=True)
class Bound:
    """X_index >= value if `lower`, else X_index <= value."""

    index: int
    value: Fraction
    lower: bool
    line: int | None = field(default=None, compare=False)


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
    line: int | None = field(default=None, compare=False)


Atom = Bound | Cut | Row
Disjunct = list[Atom]
Formula = list[Disjunct]


def at_least_zero(term: Linear, line: int | None = None) -> Atom:
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
        return Bound(index, require_moderate(-constant / slope), slope > 0, line)
    if all(variable >= 0 for variable in terms):
        return Cut(tuple((i, -value) for i, value in sorted(terms.items())), constant, line)
    raise InvalidSpecification(f"a constraint over inputs and outputs together {ELSEWHERE}")


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


def cases(
    formulas: Iterable[Formula], inputs: int, outputs: int, declared: Callable[[int], int | None] = lambda _: None
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """The conjunction as cases: distinct input sets in first-seen order, each with its clauses in order; warnings.

    declared: the line where an input is declared, for errors.

    A disjunct whose inputs are seen to be empty is dropped, of which there is a warning; one that says nothing of the
    outputs gives a clause without rows: every output is unsafe. Raises: EmptyRegion if all input sets are empty;
    InvalidSpecification (an input without a bound), ResourceLimit.
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
    if (crossed := _crossed(fixed)) is not None:
        raise EmptyRegion(f"empty region: {_emptied(crossed, common)}")
    box = box.changed(fixed)
    rows = [atom for atom in common if isinstance(atom, Row)]
    shared = [atom for atom in common if isinstance(atom, Cut)]
    _limit(outputs * sum(len(rows) + len(disjunct) for disjunct in varying), "clauses")
    changes = [box.changes(disjunct) for disjunct in varying]
    empty = [(crossed, k) for k, change in enumerate(changes) if (crossed := _crossed(change)) is not None]
    why = [_emptied(crossed, common + varying[k]) for crossed, k in empty[:1]]
    if len(empty) == len(varying):
        raise EmptyRegion(f"empty region: {why[0]}")
    found: dict[_Inputs, list[Clause]] = {}
    for disjunct, change in zip(varying, changes, strict=True):
        if _crossed(change) is None:
            more = [atom for atom in disjunct if isinstance(atom, Row)]
            cuts = dict.fromkeys((*shared, *(atom for atom in disjunct if isinstance(atom, Cut))))
            found.setdefault((change, tuple(cuts)), []).append(_clause(rows + more, outputs))
    _limit(inputs * sum(1 + len(cuts) for _, cuts in found), "input sets")
    made = {key: Case(box.changed(key[0]).complete(key[1], declared), tuple(c)) for key, c in found.items()}
    impossible = [key for key, case in made.items() if key[1] and proved_empty(case.inputs, len(found) <= PROGRAMS)]
    why += [f"{IMPOSSIBLE}{at(cut.line for cut in cuts)}" for _, cuts in impossible[:1]]
    if len(impossible) == len(made):
        raise EmptyRegion(f"empty region: {why[-1]}")
    count = len(empty) + sum(len(made.pop(key).clauses) for key in impossible)
    dropped = f"{count} of {len(varying)} disjuncts allow no input and hold vacuously"
    return tuple(made.values()), (f"{dropped}: {why[0]}",) if count else ()


def at(lines: Iterable[int | None]) -> str:
    """Where that is: the first few of these lines."""
    known = sorted({line for line in lines if line is not None})[:LINES]
    return f" (line {', '.join(map(str, known))})" if known else ""


_Changes = tuple[tuple[int, Fraction | None, Fraction | None], ...]
"""(input, its lower bound, its upper bound) for some inputs, in order."""

_Inputs = tuple[_Changes, tuple[Cut, ...]]
"""What tells an input set from others: where it tightens the common box, and its constraints."""

IMPOSSIBLE = "no point of the box satisfies the constraints over several inputs"


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

    def complete(self, cuts: Sequence[Cut], declared: Callable[[int], int | None]) -> InputSet:
        """The set of inputs.   Raises: InvalidSpecification naming an input without a bound."""
        for side, bounds in (("lower", self.lower), ("upper", self.upper)):
            if None in bounds:
                missing = bounds.index(None)
                reason = f"X_{missing} has no {side} bound: every input needs both"
                raise InvalidSpecification(reason, declared(missing))
        constraints = tuple(Constraint(_spread(dict(cut.terms), len(self.lower)), cut.bound) for cut in cuts)
        lower, upper = (tuple(v for v in side if v is not None) for side in (self.lower, self.upper))
        return InputSet(lower, upper, None, constraints)


def _crossed(changes: _Changes) -> tuple[int, Fraction, Fraction] | None:
    """The first input whose lower bound lies above its upper bound, and the two, or None."""
    for i, low, high in changes:
        if low is not None and high is not None and low > high:
            return i, low, high
    return None


def _emptied(crossed: tuple[int, Fraction, Fraction], atoms: Disjunct) -> str:
    """Says so, with the lines of the two bounds among the atoms."""
    i, low, high = crossed
    bounds = [atom for atom in atoms if isinstance(atom, Bound)]
    ends = (Bound(i, low, True), Bound(i, high, False))
    lines = [next((bound.line for bound in bounds if bound == end), None) for end in ends]
    return f"X_{i} must be at least {float(low)!r} and at most {float(high)!r}{at(lines)}"


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
