"""VNN-LIB 1.0 into a Query: one network, whose inputs are X_0, X_1, .. and whose outputs are Y_0, Y_1, .., all real.

Source: Demarchi et al., the VNN-LIB standard 1.0.
"""

from __future__ import annotations

from functools import reduce

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.query.query import (
    NOTHING,
    ONE,
    All,
    Atom,
    Formula,
    Network,
    Polynomial,
    Query,
    Relation,
    Role,
    Some,
    Tensor,
    constant,
)
from provenn.verifier.vnnlib import Reader, Tree

NAME = "N"
"""What the one network is called, which 1.0 gives no name."""

RELATIONS = {
    ">=": (Relation.AT_LEAST, False),
    "<=": (Relation.AT_LEAST, True),
    ">": (Relation.ABOVE, False),
    "<": (Relation.ABOVE, True),
    "=": (Relation.EQUAL, False),
}
"""How a comparison is written -> the relation of left - right to 0, or of right - left."""


def read_vnnlib1(text: bytes) -> Query:
    """Reads VNN-LIB 1.0: declare-const, assert, <= >= < > =, and, or, + - *.

    Raises: InvalidSpecification with the line; ResourceLimit for what is nested or multiplied out too far.
    """
    return _Walker(text).query()


class _Walker:
    """Declarations first, then assertions, wherever they stand."""

    def __init__(self, text: bytes) -> None:
        self._reader = Reader(text)
        self._asserted: list[Tree] = []
        for tree in self._reader.commands():
            match tree[1]:
                case ["declare-const", str(name), "Real"]:
                    self._reader.declare(name, tree[0])
                case ["assert", (int(), list()) as formula]:
                    self._asserted.append(formula)
                case [str(name), *_]:
                    raise self._reader.error(f"command '{name[:40]}' is not read in this form", tree[0])
                case _:
                    raise self._reader.error("a command was expected", tree[0])
        self._inputs, self._outputs = self._reader.count("X"), self._reader.count("Y")

    def query(self) -> Query:
        """All of it."""
        ends = self._reader.last((self._inputs, self._outputs))
        lines = [self._reader.line(self._reader.declared[last]) for last in ends]
        x = Tensor("X", Role.INPUT, "real", None, 0, self._inputs, line=lines[0])
        y = Tensor("Y", Role.OUTPUT, "real", None, self._inputs, self._outputs, line=lines[1])
        return Query((1, 0), (Network(NAME, (x,), (), (y,)),), tuple(map(self._formula, self._asserted)))

    def _formula(self, tree: Tree) -> Formula:
        at, parts = tree
        match parts:
            case [("<=" | "<" | ">=" | ">" | "=") as sign, left, right]:
                relation, swapped = RELATIONS[sign]
                first, second = self._polynomial(left, at), self._polynomial(right, at)
                gap = second.plus(first, -ONE) if swapped else first.plus(second, -ONE)
                return Atom(gap, relation, self._reader.line(at))
            case [("and" | "or") as name, _, *_]:
                found = tuple(self._formula(self._reader.list_(part, at)) for part in parts[1:])
                return All(found) if name == "and" else Some(found)
            case [str(name), *_]:
                raise self._reader.error(f"'{name[:40]}' is not read in this form; <=, >=, <, >, =, and, or are", at)
        raise self._reader.error("a formula was expected", at)

    def _polynomial(self, part: Tree | str, at: int) -> Polynomial:
        if isinstance(part, str):
            return self._word(part, at)
        at, parts = part
        match parts:
            case ["-", only]:
                return NOTHING.plus(self._polynomial(only, at), -ONE)
            case [("+" | "-" | "*") as sign, first, _, *_]:
                others = [self._polynomial(other, at) for other in parts[2:]]
                if sign == "*":
                    return reduce(Polynomial.times, others, self._polynomial(first, at))
                factor = ONE if sign == "+" else -ONE
                return reduce(lambda total, term: total.plus(term, factor), others, self._polynomial(first, at))
            case [str(name), *_]:
                raise self._reader.error(f"'{name[:40]}' is not read in this form; + - * are", at)
        raise self._reader.error("an arithmetic term was expected", at)

    def _word(self, word: str, at: int) -> Polynomial:
        """A variable or a number."""
        number = self._reader.variables.get(word)
        if number is None:
            return constant(self._reader.number(word, at))
        return Polynomial({(number if number >= 0 else self._inputs - 1 - number,): ONE})


def is_vnnlib1(query: Query) -> bool:
    """Whether the query was read from such a file."""
    return query.version == (1, 0)


def require_counts(query: Query, inputs: int, outputs: int) -> None:
    """Raises: InvalidSpecification if it speaks of another number of inputs or outputs than the network has."""
    for what, tensor, count in (("inputs", query.inputs[0], inputs), ("outputs", query.tensors[-1], outputs)):
        if tensor.count != count:
            reason = f"it has {tensor.count} variables {tensor.name}, the network has {count} {what}"
            raise InvalidSpecification(reason, tensor.line)
