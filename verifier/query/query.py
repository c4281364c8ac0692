"""A query: declared networks, and a formula over the elements of their tensors, strict and polynomial as written.

Elements are numbered through all declared tensors, in the order of the file, each tensor in C order: element
`start + k` of a query is element k of the tensor that begins at `start`.   Source: the VNN-LIB standard 2.0, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from math import prod

from provenn.verifier.errors import ResourceLimit

Monomial = tuple[int, ...]
"""Elements that are multiplied, in order, each as often as its power; () is the constant 1."""

TERMS, DEGREE = 100_000, 16
"""Limits: of the terms of one polynomial, of its degree."""

ONE = Fraction(1)


class Role(StrEnum):
    """What a tensor is to its network."""

    INPUT = "input"
    HIDDEN = "hidden"
    OUTPUT = "output"


@dataclass(frozen=True)
class Tensor:
    """A declared tensor. dtype: as the file says it, "real" included; node: a hidden tensor's name in the ONNX file.

    shape None: VNN-LIB 1.0 declares single variables, `count` of them, whatever the network's shapes are. line: where
    it is declared, or the last of those.
    """

    name: str
    role: Role
    dtype: str
    shape: tuple[int, ...] | None
    start: int
    count: int
    node: str | None = None
    line: int | None = field(default=None, compare=False)

    @property
    def elements(self) -> range:
        """Their numbers."""
        return range(self.start, self.start + self.count)


@dataclass(frozen=True)
class Network:
    """A declared network. equal_to, isomorphic_to: the name of an earlier one, or None; line: where it is declared."""

    name: str
    inputs: tuple[Tensor, ...]
    hidden: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    equal_to: str | None = None
    isomorphic_to: str | None = None
    line: int | None = field(default=None, compare=False)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them, in the order of declaration."""
        return (*self.inputs, *self.hidden, *self.outputs)


@dataclass(frozen=True, slots=True)
class Polynomial:
    """The sum of coefficient * product of elements; no coefficient is zero."""

    terms: Mapping[Monomial, Fraction]

    def plus(self, other: Polynomial, factor: Fraction = ONE) -> Polynomial:
        """Itself + factor * other."""
        terms = dict(self.terms)
        for monomial, value in other.terms.items():
            terms[monomial] = terms.get(monomial, Fraction(0)) + factor * value
        return Polynomial({monomial: value for monomial, value in terms.items() if value})

    def times(self, other: Polynomial) -> Polynomial:
        """The product.   Raises: ResourceLimit for too many terms, or too high a degree."""
        if len(self.terms) * len(other.terms) > TERMS:
            raise ResourceLimit("the number of terms of a polynomial", str(TERMS))
        terms: dict[Monomial, Fraction] = {}
        for left, a in self.terms.items():
            for right, b in other.terms.items():
                monomial = tuple(sorted((*left, *right)))
                if len(monomial) > DEGREE:
                    raise ResourceLimit("the degree of a polynomial", str(DEGREE))
                terms[monomial] = terms.get(monomial, Fraction(0)) + a * b
        return Polynomial({monomial: value for monomial, value in terms.items() if value})

    def at(self, value: Callable[[int], Fraction]) -> Fraction:
        """Its value where element i has the value `value(i)`, exactly."""
        return sum((c * prod(map(value, monomial), start=ONE) for monomial, c in self.terms.items()), Fraction(0))


NOTHING = Polynomial({})


def constant(value: Fraction) -> Polynomial:
    """The polynomial of degree 0."""
    return Polynomial({(): value} if value else {})


class Relation(StrEnum):
    """How a polynomial relates to 0."""

    AT_LEAST = ">="
    ABOVE = ">"
    EQUAL = "=="
    DIFFERENT = "!="

    def holds(self, value: Fraction) -> bool:
        """Whether it does."""
        match self:
            case Relation.AT_LEAST:
                return value >= 0
            case Relation.ABOVE:
                return value > 0
            case Relation.EQUAL:
                return value == 0
            case Relation.DIFFERENT:
                return value != 0


@dataclass(frozen=True, slots=True)
class Atom:
    """`polynomial` relates so to 0; line: where the file says so."""

    polynomial: Polynomial
    relation: Relation
    line: int | None = None


@dataclass(frozen=True, slots=True)
class All:
    """Every part holds."""

    parts: tuple[Formula, ...]


@dataclass(frozen=True, slots=True)
class Some:
    """At least one part holds."""

    parts: tuple[Formula, ...]


Formula = Atom | All | Some


@dataclass(frozen=True)
class Query:
    """Declared networks and the formulas that are asserted together; version: (1, 0) or (2, x)."""

    version: tuple[int, int]
    networks: tuple[Network, ...]
    asserted: tuple[Formula, ...]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All declared tensors, in the order of declaration."""
        return tuple(tensor for network in self.networks for tensor in network.tensors)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """The input tensors of every network."""
        return tuple(tensor for network in self.networks for tensor in network.inputs)

    def holds(self, value: Callable[[int], Fraction]) -> bool:
        """Whether every assertion does where element i has the value `value(i)`: decided exactly, strict where strict.

        Source: the VNN-LIB standard 2.0, section 3.5.
        """
        return all(_holds(formula, value) for formula in self.asserted)


def _holds(formula: Formula, value: Callable[[int], Fraction]) -> bool:
    match formula:
        case Atom():
            return formula.relation.holds(formula.polynomial.at(value))
        case All():
            return all(_holds(part, value) for part in formula.parts)
        case Some():
            return any(_holds(part, value) for part in formula.parts)


def atoms(formulas: Iterable[Formula]) -> Iterator[Atom]:
    """Every atom in them."""
    stack: list[Formula] = [*formulas]
    while stack:
        formula = stack.pop()
        if isinstance(formula, Atom):
            yield formula
        else:
            stack += formula.parts


def strict(formulas: Sequence[Formula]) -> bool:
    """Whether some atom is an open condition."""
    return any(atom.relation in (Relation.ABOVE, Relation.DIFFERENT) for atom in atoms(formulas))
