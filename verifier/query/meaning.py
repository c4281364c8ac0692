"""A query as a specification of one network: which inputs are free, which terms its output lists, and the cases.

The network of a query takes the free inputs of all declared networks in one vector, and gives the values of the terms
that the formula speaks of in another. Terms are elements of outputs and hidden tensors, elements of inputs where a
constraint sets them beside those, and products. The models floor builds it; here is what it must compute.

Open conditions are read as closed ones for a proof, since the unsafe set only grows; != is no condition at all then.
A negative `slack` makes conditions on computed values a little easier besides, to leave room for roundings. Looking for
a witness one may ask for a positive one instead, which makes them, and open conditions, a little harder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property, reduce

from provenn.verifier.errors import EmptyRegion, InvalidSpecification, ResourceLimit
from provenn.verifier.query.query import All, Atom, Formula, Monomial, Polynomial, Query, Relation
from provenn.verifier.spec import Case, Clause, Specification
from provenn.verifier.spec_json import from_cases
from provenn.verifier.vnnlib_logic import Bound, Cut, Linear, at, at_least_zero, both, cases, either
from provenn.verifier.vnnlib_logic import Formula as Normal

ROUNDS = 4
"""How often bounds of inputs are derived from linear constraints."""

REACH = Fraction(10)
"""Where an input has no bound, a witness is looked for this far from its other bound, or from 0."""

ZERO, ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True)
class Layout:
    """Where everything is in the network of a query.

    column: element of an input -> its place among the free inputs (equal ones share theirs); terms -> their places in
    the output.
    """

    column: dict[int, int]
    free: int
    terms: dict[Monomial, int] = field(default_factory=dict)

    @cached_property
    def first(self) -> list[int]:
        """The first element of each column."""
        found: dict[int, int] = {}
        for element, place in self.column.items():
            found.setdefault(place, element)
        return [found[place] for place in range(self.free)]

    def shared(self, monomial: Monomial) -> Monomial:
        """The same product, with one element standing for all that are equal to it."""
        return tuple(sorted(self.first[self.column[i]] if i in self.column else i for i in monomial))


@dataclass(frozen=True, eq=False)
class Meaning:
    """The cases of a query over its layout; missing: names of inputs whose bounds are made up, one a side."""

    specification: Specification
    missing: tuple[str, ...]


def layout(query: Query) -> Layout:
    """The free inputs, and the terms that the query's constraints speak of, in the order in which they appear."""
    where = Layout(*_columns(query))
    for atom in _every(query.asserted):
        polynomial = _merged(atom.polynomial, where)
        if not _of_inputs(polynomial, where):
            for monomial in polynomial.terms:
                if monomial:
                    where.terms.setdefault(monomial, len(where.terms))
    if not where.terms:
        where.terms[next(iter(where.column)),] = 0
    return where


def meaning(query: Query, where: Layout, slack: Fraction = ZERO) -> Meaning:
    """The query's cases, open conditions closed; `slack` moves conditions inside, relative to 1 + their constant.

    Raises: EmptyRegion if no input is allowed; InvalidSpecification, ResourceLimit.
    """
    lowering = _Lowering(where, slack)
    formulas = [lowering.formula(formula) for formula in query.asserted]
    false = next((k for k, formula in enumerate(formulas) if not formula), None)
    if false is not None:
        line = at(atom.line for atom in _every([query.asserted[false]]))
        raise EmptyRegion(f"empty region: a constraint whose variables cancel out is false{line}")
    given = _Sides(where.free)
    given.derive(formulas)
    made_up = given.missing()
    names = _names(query, where)
    missing = tuple(f"{names[b.index]} has no {'lower' if b.lower else 'upper'} bound" for b in made_up)
    extra: list[Normal] = [[[bound]] for bound in (*given.derived, *made_up)]
    try:
        found, warnings = cases([*formulas, *extra], where.free, len(where.terms))
    except EmptyRegion as empty:
        if made_up:
            raise ResourceLimit("the range of inputs", f"what was supposed of them: {'; '.join(missing)}") from None
        raise EmptyRegion(_named(str(empty), names)) from None
    said = () if made_up else tuple(_named(warning, names) for warning in warnings)
    return Meaning(replace(from_cases(found), warnings=said), missing)


def _named(text: str, names: Sequence[str]) -> str:
    """The text with inputs called as the query calls them."""
    return re.sub(r"\bX_([0-9]+)", lambda column: names[int(column[1])], text)


def covering(query: Query, where: Layout, errors: Sequence[float]) -> Fraction:
    """The slack of every condition on computed values that errors of the terms use up, at most.  errors: one a term."""
    found = ZERO
    for atom in _every(query.asserted):
        polynomial = _merged(atom.polynomial, where)
        if not _of_inputs(polynomial, where):
            sizes = (abs(c) * Fraction(errors[where.terms[m]]) for m, c in polynomial.terms.items() if m)
            found = max(found, sum(sizes, ZERO) / (1 + abs(polynomial.terms.get((), ZERO))))
    return found


@dataclass(frozen=True)
class Watched:
    """More outputs of a network, after its own: `ranged` that stay inside (-limit, limit), `apart` that stay off 0."""

    ranged: int = 0
    apart: int = 0
    limit: Fraction = ONE
    gap: Fraction = ONE


def watching(meant: Meaning, outputs: int, watched: Watched) -> Meaning:
    """The same of a network whose `outputs` outputs the watched ones follow: where those misbehave is unsafe too."""
    every = outputs + watched.ranged + watched.apart
    rows = [tuple(Fraction(i == k) for i in range(every)) for k in range(outputs, every)]
    signed = [(row, tuple(-c for c in row)) for row in rows]
    more = [Clause((row,), (watched.limit,)) for pair in signed[: watched.ranged] for row in pair]
    more += [Clause(pair, (-watched.gap, -watched.gap)) for pair in signed[watched.ranged :]]
    cases_ = [
        Case(case.inputs, (*(_padded(clause, every - outputs) for clause in case.clauses), *more))
        for case in meant.specification.cases
    ]
    return Meaning(from_cases(cases_), meant.missing)


def _padded(clause: Clause, count: int) -> Clause:
    return Clause(tuple((*row, *(ZERO,) * count) for row in clause.matrix), clause.bound)


def _every(formulas: Iterable[Formula]) -> Iterator[Atom]:
    """Atoms in the order in which they are written."""
    for formula in formulas:
        if isinstance(formula, Atom):
            yield formula
        else:
            yield from _every(formula.parts)


def _conjuncts(formulas: Iterable[Formula]) -> Iterator[Atom]:
    """Atoms that hold in every model of the query."""
    for formula in formulas:
        if isinstance(formula, Atom):
            yield formula
        elif isinstance(formula, All):
            yield from _conjuncts(formula.parts)


def _columns(query: Query) -> tuple[dict[int, int], int]:
    """Every input's column, and how many there are: those that are asserted to be equal have one."""
    inputs = [i for tensor in query.inputs for i in tensor.elements]
    root = {i: i for i in inputs}

    def find(i: int) -> int:
        while root[i] != i:
            root[i] = root[root[i]]
            i = root[i]
        return i

    below: set[tuple[int, int]] = set()
    for atom in _conjuncts(query.asserted):
        pair = _difference(atom, root)
        if pair is None:
            continue
        below.add(pair)
        if atom.relation is Relation.EQUAL or pair[::-1] in below:
            first, second = sorted(map(find, pair))
            root[second] = first
    column: dict[int, int] = {}
    places: dict[int, int] = {}
    for i in inputs:
        column[i] = places.setdefault(find(i), len(places))
    return column, len(places)


def _difference(atom: Atom, inputs: dict[int, int]) -> tuple[int, int] | None:
    """(i, j) where the atom says x_i - x_j >= 0, or == 0, of two inputs."""
    terms = atom.polynomial.terms
    if atom.relation not in (Relation.AT_LEAST, Relation.EQUAL) or len(terms) != 2:
        return None
    if any(len(monomial) != 1 or monomial[0] not in inputs for monomial in terms):
        return None
    (one, a), (other, b) = terms.items()
    if a + b or abs(a) != 1:
        return None
    return (one[0], other[0]) if a > 0 else (other[0], one[0])


def _merged(polynomial: Polynomial, where: Layout) -> Polynomial:
    """The same polynomial with one element standing for all that are equal to it."""
    terms: dict[Monomial, Fraction] = {}
    for monomial, value in polynomial.terms.items():
        same = where.shared(monomial)
        terms[same] = terms.get(same, ZERO) + value
    return Polynomial({monomial: value for monomial, value in terms.items() if value})


def _of_inputs(polynomial: Polynomial, where: Layout) -> bool:
    """Whether it is linear in inputs alone."""
    return all(len(m) <= 1 and all(i in where.column for i in m) for m in polynomial.terms)


@dataclass(frozen=True)
class _Lowering:
    """Formulas of a query into disjunctive normal form over columns and terms."""

    where: Layout
    slack: Fraction

    def formula(self, formula: Formula) -> Normal:
        """The formula; without disjuncts where it cannot hold."""
        if isinstance(formula, Atom):
            return self._located(formula)
        parts = [self.formula(part) for part in formula.parts]
        return reduce(both, parts) if isinstance(formula, All) else either(parts)

    def _located(self, atom: Atom) -> Normal:
        try:
            return self._atom(atom)
        except InvalidSpecification as error:
            raise type(error)(str(error), atom.line) from None

    def _atom(self, atom: Atom) -> Normal:
        polynomial, relation = _merged(atom.polynomial, self.where), atom.relation
        if not polynomial.terms.keys() - {()}:
            return [[]] if relation.holds(polynomial.terms.get((), ZERO)) else []
        term = self._linear(polynomial)
        opposite = Linear({i: -c for i, c in term.terms.items()}, -term.constant)
        computed = not _of_inputs(polynomial, self.where)
        match relation:
            case Relation.AT_LEAST:
                return self._inside(term, self.slack if computed else ZERO, atom)
            case Relation.EQUAL:
                slack = min(self.slack, ZERO) if computed else ZERO
                return both(self._inside(term, slack, atom), self._inside(opposite, slack, atom))
            case Relation.ABOVE:
                return self._inside(term, self.slack if computed else max(self.slack, ZERO), atom)
            case Relation.DIFFERENT if self.slack <= 0:
                return [[]]
            case Relation.DIFFERENT:
                return either([self._inside(side, self.slack, atom) for side in (term, opposite)])

    def _inside(self, term: Linear, slack: Fraction, atom: Atom) -> Normal:
        moved = Linear(term.terms, term.constant - slack * (1 + abs(term.constant)))
        return [[at_least_zero(moved, atom.line)]]

    def _linear(self, polynomial: Polynomial) -> Linear:
        constant = polynomial.terms.get((), ZERO)
        if _of_inputs(polynomial, self.where):
            return Linear({self.where.column[m[0]]: c for m, c in polynomial.terms.items() if m}, constant)
        return Linear({-1 - self.where.terms[m]: c for m, c in polynomial.terms.items() if m}, constant)


class _Sides:
    """Bounds that every model of the query obeys, by column: given, and derived from linear constraints."""

    def __init__(self, count: int) -> None:
        self._ends: tuple[list[Fraction | None], list[Fraction | None]] = ([None] * count, [None] * count)
        self._sure: tuple[set[int], set[int]] = (set(), set())
        self.derived: list[Bound] = []

    def derive(self, formulas: Sequence[Normal]) -> None:
        """Takes the bounds that hold in all disjuncts, and those that follow from the linear constraints that do."""
        cuts: list[Cut] = []
        for formula in formulas:
            for side in (0, 1):
                bound = (
                    {a.index for a in disjunct if isinstance(a, Bound) and a.lower != side} for disjunct in formula
                )
                self._sure[side].update(set.intersection(*bound))
            if len(formula) == 1:
                for atom in formula[0]:
                    if isinstance(atom, Bound):
                        self._take(atom)
                    elif isinstance(atom, Cut):
                        cuts.append(atom)
        for _ in range(ROUNDS):
            if not sum(self._follow(cut) for cut in cuts):
                break

    def _take(self, bound: Bound) -> None:
        side, choose = (0, max) if bound.lower else (1, min)
        old = self._ends[side][bound.index]
        self._ends[side][bound.index] = bound.value if old is None else choose(old, bound.value)
        self._sure[side].add(bound.index)

    def _follow(self, cut: Cut) -> int:
        """Derives the bounds that are missing where a cut gives one; how many."""
        found = 0
        for index, coefficient in cut.terms:
            side = 1 if coefficient > 0 else 0
            if index in self._sure[side]:
                continue
            least = [self._least(i, c) for i, c in cut.terms if i != index]
            if None not in least:
                room = cut.bound - sum((v for v in least if v is not None), ZERO)
                bound = Bound(index, room / coefficient, side == 0, cut.line)
                self._take(bound)
                self.derived.append(bound)
                found += 1
        return found

    def _least(self, index: int, coefficient: Fraction) -> Fraction | None:
        end = self._ends[0 if coefficient > 0 else 1][index]
        return None if end is None else coefficient * end

    def missing(self) -> list[Bound]:
        """Bounds made up where there is none: for witnesses, never for proofs."""
        found = []
        for index in range(len(self._ends[0])):
            for side in (0, 1):
                if index not in self._sure[side]:
                    other = self._ends[1 - side][index]
                    value = (ZERO if other is None else other) + (REACH if side else -REACH)
                    found.append(Bound(index, value, side == 0))
        return found


def _names(query: Query, where: Layout) -> list[str]:
    """The name of an element of each column, as the query writes it."""
    names = [""] * where.free
    for tensor in query.inputs:
        for k, element in enumerate(tensor.elements):
            names[where.column[element]] = names[where.column[element]] or element_name(tensor.name, tensor.shape, k)
    return names


def element_name(name: str, shape: tuple[int, ...] | None, place: int) -> str:
    """X_3 in VNN-LIB 1.0, X[0,3] in 2.0."""
    if shape is None:
        return f"{name}_{place}"
    indices = []
    for size in reversed(shape):
        place, index = divmod(place, size)
        indices.append(str(index))
    return f"{name}[{','.join(reversed(indices))}]" if indices else name
