"""VNN-LIB 1.0 text into a Specification, decimals taken exactly.

The assertions describe the unsafe inputs and outputs together; they are brought into disjunctive normal form, each
disjunct a box over X and closed rows over Y. Strict inequalities are read as closed: the unsafe set only grows.
Source: Demarchi et al., the VNN-LIB standard 1.0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import exact
from provenn.verifier.spec import Case, Clause, InputSet, Specification

DEPTH, DISJUNCTS, ATOMS = 64, 100_000, 10_000_000
"""Limits: of nesting, of disjuncts, of constraints in all disjuncts together."""

_TOKEN = re.compile(r"[()]|[^\s();]+|;[^\n]*|\n")
_VARIABLE = re.compile(r"([XY])_(0|[1-9]\d{0,7})", re.ASCII)


@dataclass(frozen=True)
class Tree:
    """A list of parts, each an atom of text or a list, and the line it begins on."""

    parts: list[Tree | str]
    line: int


Linear = dict[str, Fraction]
"""Coefficient of each variable, "" for the constant; as an atom: the term is >= 0."""

Formula = list[list[tuple[Linear, int]]]
"""Disjuncts of atoms, each with its line."""


def parse_vnnlib(text: bytes) -> Specification:
    """Reads VNN-LIB 1.0: declare-const, assert, <= >= < >, and, or, + - *.

    Raises: InvalidSpecification with the line; ResourceLimit for what is nested or multiplied out too far.
    """
    try:
        content = text.decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidSpecification(f"not a VNN-LIB file: {error}") from error
    reader = _Reader()
    for command in _trees(content):
        reader.take(command)
    return Specification(reader.cases(), text, "vnnlib")


def _trees(text: str) -> Iterator[Tree]:
    """The top-level lists, one after the other."""
    stack: list[Tree] = []
    line = 1
    for token in _TOKEN.findall(text):
        if token == "\n":
            line += 1
        elif token == "(":
            if len(stack) >= DEPTH:
                raise ResourceLimit(f"nesting depth (line {line})", str(DEPTH))
            stack.append(Tree([], line))
        elif token == ")":
            if not stack:
                raise InvalidSpecification("a parenthesis is closed that was not opened", line)
            done = stack.pop()
            if stack:
                stack[-1].parts.append(done)
            else:
                yield done
        elif token[0] != ";":
            if not stack:
                raise InvalidSpecification(f"'{token[:40]}' stands outside a command", line)
            stack[-1].parts.append(token)
    if stack:
        raise InvalidSpecification("a parenthesis is not closed", stack[0].line)


class _Reader:
    """Collects declarations and assertions, then multiplies them out."""

    def __init__(self) -> None:
        self._declared: dict[str, int] = {}
        self._common: list[tuple[Linear, int]] = []
        self._varying: Formula = [[]]

    def take(self, command: Tree) -> None:
        match command.parts:
            case ["declare-const", str(name), "Real"]:
                self._declare(name, command.line)
            case ["assert", Tree() as formula]:
                found = self._formula(formula)
                if len(found) == 1:
                    self._common += found[0]
                else:
                    self._varying = _product(self._varying, found)
            case [str(name), *_]:
                raise InvalidSpecification(f"command '{name[:40]}' is not read in this form", command.line)
            case _:
                raise InvalidSpecification("an empty command", command.line)

    def _declare(self, name: str, line: int) -> None:
        if not _VARIABLE.fullmatch(name):
            raise InvalidSpecification(f"variable '{name[:40]}' is neither X_i nor Y_j", line)
        if name in self._declared:
            raise InvalidSpecification(f"{name} is declared twice", line)
        self._declared[name] = line

    def _formula(self, tree: Tree) -> Formula:
        match tree.parts:
            case ["or", *parts] if parts:
                return [disjunct for part in parts for disjunct in self._formula(_list(part, tree.line))]
            case ["and", *parts] if parts:
                found: Formula = [[]]
                for part in parts:
                    found = _product(found, self._formula(_list(part, tree.line)))
                return found
            case ["<=" | "<", left, right]:
                return [[(_sum(self._term(right, tree.line), self._term(left, tree.line), -1), tree.line)]]
            case [">=" | ">", left, right]:
                return [[(_sum(self._term(left, tree.line), self._term(right, tree.line), -1), tree.line)]]
            case [str(name), *_]:
                raise InvalidSpecification(f"'{name[:40]}' is not read here; and, or, <=, >=, <, > are", tree.line)
        raise InvalidSpecification("a formula was expected", tree.line)

    def _term(self, part: Tree | str, line: int) -> Linear:
        if isinstance(part, str):
            if part in self._declared:
                return {part: Fraction(1)}
            if part[0].isalpha():
                raise InvalidSpecification(f"'{part[:40]}' has not been declared", line)
            return {"": exact(part, line)}
        match part.parts:
            case ["-", only]:
                return _sum({}, self._term(only, part.line), -1)
            case ["+" | "-" as sign, first, *rest] if rest:
                total = self._term(first, part.line)
                for term in rest:
                    total = _sum(total, self._term(term, part.line), 1 if sign == "+" else -1)
                return total
            case ["*", first, *rest] if rest:
                total = self._term(first, part.line)
                for term in rest:
                    total = _times(total, self._term(term, part.line), part.line)
                return total
        raise InvalidSpecification("a linear term was expected: a number, a variable, or + - * of them", part.line)

    def cases(self) -> tuple[Case, ...]:
        """Distinct boxes in first-seen order, each with its clauses in order."""
        inputs, outputs = self._size("X"), self._size("Y")
        nothing: list[Fraction | None] = [None] * inputs
        lower, upper, rows = _bounds(self._common, nothing, nothing)
        found: dict[tuple[tuple[Fraction, ...], tuple[Fraction, ...]], list[Clause]] = {}
        dropped: InvalidSpecification | None = None
        for disjunct in self._varying:
            low, high, more = _bounds(disjunct, lower, upper)
            box = _complete(low, "lower"), _complete(high, "upper")
            empty = next((i for i, (a, b) in enumerate(zip(*box, strict=True)) if a > b), None)
            if empty is None:
                found.setdefault(box, []).append(_clause(rows + more, outputs))
            else:
                a, b = float(box[0][empty]), float(box[1][empty])
                line = self._declared[f"X_{empty}"]
                dropped = InvalidSpecification(f"empty region: X_{empty} must be >= {a!r} and <= {b!r}", line)
        if not found and dropped is not None:
            raise dropped
        return tuple(Case(InputSet(low, high), tuple(clauses)) for (low, high), clauses in found.items())

    def _size(self, letter: str) -> int:
        count = sum(name[0] == letter for name in self._declared)
        missing = next((i for i in range(count) if f"{letter}_{i}" not in self._declared), None)
        if count == 0 or missing is not None:
            raise InvalidSpecification(f"{letter}_{missing or 0} is not declared")
        return count


def _list(part: Tree | str, line: int) -> Tree:
    if isinstance(part, str):
        raise InvalidSpecification(f"'{part[:40]}' is not a formula", line)
    return part


def _product(left: Formula, right: Formula) -> Formula:
    """(or left) and (or right).   Raises: ResourceLimit."""
    if len(left) * len(right) > DISJUNCTS:
        raise ResourceLimit("the number of disjuncts", str(DISJUNCTS))
    if len(right) * sum(map(len, left)) + len(left) * sum(map(len, right)) > ATOMS:
        raise ResourceLimit("the size of the disjunctive normal form", f"{ATOMS} constraints")
    if len(left) == len(right) == 1:
        left[0].extend(right[0])
        return left
    return [a + b for a in left for b in right]


def _sum(left: Linear, right: Linear, factor: Fraction | int) -> Linear:
    """Left + factor right, without zeros."""
    total = dict(left)
    for name, value in right.items():
        total[name] = total.get(name, Fraction(0)) + factor * value
    return {name: value for name, value in total.items() if value}


def _times(left: Linear, right: Linear, line: int) -> Linear:
    if not left.keys() <= {""}:
        left, right = right, left
    if not left.keys() <= {""}:
        raise InvalidSpecification("a product of variables is not linear", line)
    return _sum({}, right, left.get("", Fraction(0)))


Bounds = Sequence[Fraction | None]


def _bounds(
    atoms: list[tuple[Linear, int]], lower: Bounds, upper: Bounds
) -> tuple[list[Fraction | None], list[Fraction | None], list[Linear]]:
    """The box cut by the atoms over X, and the atoms over Y."""
    low, high, rows = list(lower), list(upper), []
    for atom, line in atoms:
        names = [name for name in atom if name]
        if names and all(name[0] == "Y" for name in names):
            rows.append(atom)
        elif len(names) == 1:
            index, slope = int(names[0][2:]), atom[names[0]]
            limit = -atom.get("", Fraction(0)) / slope
            side, better = (low, max) if slope > 0 else (high, min)
            old = side[index]
            side[index] = limit if old is None else better(old, limit)
        else:
            what = "no variable" if not names else "several inputs, or inputs and outputs"
            raise InvalidSpecification(
                f"a constraint over {what}; bounds of one input and rows over outputs are read", line
            )
    return low, high, rows


def _complete(bounds: Bounds, side: str) -> tuple[Fraction, ...]:
    missing = next((i for i, value in enumerate(bounds) if value is None), None)
    if missing is not None:
        raise InvalidSpecification(f"X_{missing} has no {side} bound")
    return tuple(value for value in bounds if value is not None)


def _clause(rows: list[Linear], outputs: int) -> Clause:
    """C y >= d from atoms c y + constant >= 0."""
    zero = Fraction(0)
    matrix = tuple(tuple(row.get(f"Y_{j}", zero) for j in range(outputs)) for row in rows)
    return Clause(matrix, tuple(-row.get("", zero) for row in rows))
