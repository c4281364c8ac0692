"""VNN-LIB 1.0 text into a Specification, decimals taken exactly.

The assertions describe the unsafe inputs and outputs together (vnnlib_logic multiplies them out). Strict
inequalities are read as closed ones: the unsafe set only grows. Source: Demarchi et al., the VNN-LIB standard 1.0.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property, partial
from typing import TypeVar

from provenn.verifier.errors import EmptyRegion, InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.numbers import decimal
from provenn.verifier.spec import Specification, vacuous
from provenn.verifier.vnnlib_logic import (
    DEPTH,
    ELSEWHERE,
    NOTHING,
    ONE,
    ZERO,
    Bound,
    Formula,
    Linear,
    at_least_zero,
    both,
    cases,
    either,
)

Tree = tuple[int, list["Tree | str"]]
"""A parenthesised list: where it begins in the text, and its parts."""

_TOKEN = re.compile(
    r"\([ \t\r\n]*([^ \t\r\n();]+)[ \t\r\n]+([^ \t\r\n();]+)[ \t\r\n]+([^ \t\r\n();]+)[ \t\r\n]*\)"
    r"|[()]|[^ \t\r\n();]+"
)
"""A list of three words at once (most of a file), a parenthesis, or a word."""

_VARIABLE = re.compile(r"([XY])_(0|[1-9][0-9]{0,6})", re.ASCII)

_Read = TypeVar("_Read")


def parse_vnnlib(text: bytes) -> Specification:
    """Reads VNN-LIB 1.0: declare-const, assert, <= >= < >, and, or, + - *. One that allows no input has no cases.

    Raises: InvalidSpecification with the line; ResourceLimit for what is nested or multiplied out too far.
    """
    return Reader(text).specification(text)


class Reader:
    """One pass over the text: declarations and assertions in order.

    variables: their numbers, those of X from 0 up and those of Y from -1 down; declared: where they are, by number.
    """

    def __init__(self, text: bytes) -> None:
        try:
            content = text.decode("ascii")
        except UnicodeDecodeError as error:
            line = text.count(b"\n", 0, error.start) + 1
            raise InvalidSpecification("a byte is not ASCII: this is not VNN-LIB text", line) from None
        self._text = re.sub(";[^\n]*", "", content)
        self.variables: dict[str, int] = {}
        self.declared: dict[int, int] = {}

    def specification(self, text: bytes) -> Specification:
        """That of the whole text."""
        formulas = [formula for command in self.commands() if (formula := self._command(command)) is not None]
        sizes = self.count("X"), self.count("Y")
        try:
            found, warnings = cases(formulas, *sizes, lambda index: self.line(self.declared[index]))
        except EmptyRegion as empty:
            specification = vacuous(empty, text, sizes)
        else:
            specification = Specification(found, text, "vnnlib", warnings)
        return replace(specification, lines=tuple(self.line(self.declared[last]) for last in self.last(sizes)))

    def last(self, sizes: tuple[int, int]) -> tuple[int, int]:
        """The numbers of the last input and the last output."""
        return sizes[0] - 1, -sizes[1]

    def commands(self) -> Iterator[Tree]:
        """The top-level lists, one after the other."""
        stack: list[Tree] = []
        for match in _TOKEN.finditer(self._text):
            token = match.group()
            if match.lastindex:
                done: Tree = match.start(), [*match.groups()]
            elif token == "(":
                if len(stack) >= DEPTH:
                    raise ResourceLimit(f"line {self.line(match.start())}: the nesting depth", str(DEPTH))
                stack.append((match.start(), []))
                continue
            elif token == ")":
                if not stack:
                    raise self.error("a parenthesis is closed that was not opened", match.start())
                done = stack.pop()
            else:
                if not stack:
                    raise self.error(f"'{token[:40]}' stands outside parentheses", match.start())
                stack[-1][1].append(token)
                continue
            if stack:
                stack[-1][1].append(done)
            else:
                yield done
        if stack:
            raise self.error("a parenthesis is not closed", stack[-1][0])

    def _command(self, tree: Tree) -> Formula | None:
        """What an assertion asserts; None for a declaration."""
        match tree[1]:
            case ["declare-const", str(name), "Real"]:
                self.declare(name, tree[0])
                return None
            case ["declare-const", str(_), str(sort)]:
                raise self.error(f"constants are of sort Real, not '{sort[:40]}'", tree[0])
            case ["assert", (int(), list()) as formula]:
                return self._formula(formula)
            case [str(name), *_]:
                raise self.error(f"command '{name[:40]}' is not read in this form", tree[0])
        raise self.error("a command was expected", tree[0])

    def declare(self, name: str, at: int) -> None:
        """Takes a variable's name."""
        variable = _VARIABLE.fullmatch(name)
        if variable is None:
            raise self.error(f"variable '{name[:40]}' is neither X_i nor Y_j", at)
        if name in self.variables:
            raise self.error(f"{name} is declared twice", at)
        index = int(variable[2])
        self.variables[name] = index if variable[1] == "X" else -1 - index
        self.declared[self.variables[name]] = at

    def count(self, letter: str) -> int:
        """How many variables of this letter there are.   Raises: InvalidSpecification if one is missing."""
        count = sum(name[0] == letter for name in self.variables)
        missing = next((i for i in range(count) if f"{letter}_{i}" not in self.variables), None)
        if count == 0:
            raise InvalidSpecification(f"{letter}_0 is not declared")
        if missing is not None:
            beyond = max((name for name in self.variables if name[0] == letter), key=lambda name: int(name[2:]))
            at = self.declared[self.variables[beyond]]
            raise self.error(f"{letter}_{missing} is not declared, but {beyond} is", at)
        return count

    def _formula(self, tree: Tree) -> Formula:
        at, parts = tree
        match parts:
            case ["<=" | "<", left, right]:
                return self._atom(right, left, at)
            case [">=" | ">", left, right]:
                return self._atom(left, right, at)
            case ["or", _, *_]:
                return either(self._formula(self.list_(part, at)) for part in parts[1:])
            case ["and", first, *rest]:
                found = self._formula(self.list_(first, at))
                for part in rest:
                    found = both(found, self._formula(self.list_(part, at)))
                return found
            case ["=", _, _]:
                raise self.error(f"'=' {ELSEWHERE}", at)
            case [str(name), *_]:
                raise self.error(f"'{name[:40]}' is not read in this form; <=, >=, <, >, and, or are", at)
        raise self.error("a formula was expected", at)

    def list_(self, part: Tree | str, at: int) -> Tree:
        """The part, which must be a list."""
        if isinstance(part, str):
            raise self.error(f"'{part[:40]}' is not a formula", at)
        return part

    def _atom(self, greater: Tree | str, less: Tree | str, at: int) -> Formula:
        if isinstance(greater, str) and isinstance(less, str):
            above, below = self.variables.get(greater), self.variables.get(less)
            if below is None and above is not None and above >= 0:
                return [[Bound(above, self.number(less, at), True, self.line(at))]]
            if above is None and below is not None and below >= 0:
                return [[Bound(below, self.number(greater, at), False, self.line(at))]]
        term = self._linear(greater, at).plus(self._linear(less, at), -ONE)
        return [[self._located(partial(at_least_zero, term, self.line(at)), at)]]

    def _linear(self, part: Tree | str, at: int) -> Linear:
        if isinstance(part, str):
            return self._word(part, at)
        at, parts = part
        match parts:
            case ["-", only]:
                return NOTHING.plus(self._linear(only, at), -ONE)
            case ["+" | "-" | "*" as sign, first, _, *_]:
                total = self._linear(first, at)
                for other in parts[2:]:
                    term = self._linear(other, at)
                    if sign == "*":
                        total = self._located(partial(total.times, term), at)
                    else:
                        total = total.plus(term, ONE if sign == "+" else -ONE)
                return total
            case [str(name), *_]:
                raise self.error(f"'{name[:40]}' is not read in this form; + - * of numbers and variables are", at)
        raise self.error("a linear term was expected", at)

    def _word(self, word: str, at: int) -> Linear:
        """A variable or a number."""
        variable = self.variables.get(word)
        if variable is not None:
            return Linear({variable: ONE}, ZERO)
        return Linear({}, self.number(word, at))

    def number(self, word: str, at: int) -> Fraction:
        """The decimal, exactly."""
        try:
            return decimal(word)
        except InvalidSpecification as error:
            reason = f"'{word[:40]}' is not declared" if word[0].isalpha() else str(error)
            raise self.error(reason, at) from None

    def _located(self, read: Callable[[], _Read], at: int) -> _Read:
        """What `read` gives; its errors get the line of position `at`."""
        try:
            return read()
        except InvalidSpecification as error:
            raise self.error(str(error), at) from None

    def error(self, message: str, at: int) -> ProvennError:
        """An error at position `at` of the text."""
        return InvalidSpecification(message, self.line(at))

    def line(self, at: int) -> int:
        """The line of position `at`."""
        return bisect_left(self._breaks, at) + 1

    @cached_property
    def _breaks(self) -> list[int]:
        """Where lines end."""
        return [match.start() for match in re.finditer("\n", self._text)]
