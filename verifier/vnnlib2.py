"""VNN-LIB 2.0 through the published `vnnlib` parser, translated into the JSON form, decimals taken exactly.

Read: one network with one input and one output tensor of real or float elements, flattened in C order, and linear
constraints; <, > are read as <=, >=. The parser's numbers are their text, so nothing is rounded.
Source: the VNN-LIB standard 2.0.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

from provenn.verifier.errors import BackendError, EmptyRegion, InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import decimal
from provenn.verifier.spec import Specification, vacuous
from provenn.verifier.spec_json import from_cases
from provenn.verifier.vnnlib_logic import (
    DEPTH,
    ELSEWHERE,
    NOTHING,
    ONE,
    ZERO,
    Formula,
    Linear,
    at_least_zero,
    both,
    cases,
    either,
)

if TYPE_CHECKING:
    import vnnlib

TYPES = ("Real", "F16", "F32", "F64")
"""Element types that are read, by the parser's names; constants are decimals in each."""

BYTES, ELEMENTS = 32 << 20, 10_000_000
"""Limits: of the text, of the elements of a tensor."""

_TOKEN = re.compile(r""";[^\n]*|"[^"]*"|\[[^\]]*\]?|[()]|["\\\0\ufffd]|[0-9]{1000}""")
_DECLARED = re.compile(rb"\bdeclare-(?:network|input|hidden|output)\s+([^\s()]+)")
_INDICES = re.compile(r"\[[0-9, \t\r\n]*\]", re.ASCII)


def parse_vnnlib2(text: bytes) -> Specification:
    """Reads VNN-LIB 2.0; the specification's text is its translation (form "json", kind "cases"), if it has cases.

    Raises: InvalidSpecification with the parser's reason, or naming what is beyond the subset; ResourceLimit;
    BackendError if the package is missing.
    """
    return _Reader(parsed(text), text).specification()


def parsed(text: bytes) -> vnnlib.Query:
    """The published parser's tree.   Raises: as `parse_vnnlib2`, for text that is not a query."""
    try:
        import vnnlib
    except ImportError as missing:
        raise BackendError("vnnlib", "VNN-LIB 2.0 needs it: pip install vnnlib") from missing
    content = _checked(text)
    try:
        return vnnlib.parse_query_string(content)
    except vnnlib.VNNLibException as refusal:
        raise _explained(refusal) from None
    except IndexError:
        long = re.search(r"\b[0-9]{19,}\b", re.sub(r";[^\n]*", "", content))
        line = None if long is None else _line_at(long.string, long)
        raise InvalidSpecification("VNN-LIB 2.0: a whole number beyond 64 bits", line) from None


def _checked(text: bytes) -> str:
    """The text, if the parser survives it: deep nesting crashes the process, and indices are read as far as it likes.

    Raises: InvalidSpecification, ResourceLimit.
    """
    if len(text) > BYTES:
        raise ResourceLimit("the size of a VNN-LIB 2.0 specification", f"{BYTES >> 20} MiB")
    content = text.decode("ascii", errors="replace")
    depth = 0
    for match in _TOKEN.finditer(content):
        token = match.group()
        depth += (token == "(") - (token == ")")
        if depth > DEPTH:
            raise ResourceLimit(f"line {_line_at(content, match)}: the nesting depth", str(DEPTH))
        if token[0] == "[" and not _INDICES.fullmatch(token):
            raise InvalidSpecification(f"'{token[:40]}' is not a list of whole numbers", _line_at(content, match))
        if token[0] in '"\\\0\ufffd' and len(token) == 1:
            raise InvalidSpecification(f"an unexpected {token!r}", _line_at(content, match))
        if token[0].isdigit():
            raise ResourceLimit(f"line {_line_at(content, match)}: the length of a number", "1000 digits")
    return content


def _line_at(content: str, match: re.Match[str]) -> int:
    return content.count("\n", 0, match.start()) + 1


def _explained(refusal: Exception) -> InvalidSpecification:
    """The parser's message in one line with its line number; its type checker answers in JSON."""
    message = str(refusal)
    if syntax := re.search(r"error at line (\d+), column (\d+): '(.{0,40})", message, re.DOTALL):
        return InvalidSpecification(f"VNN-LIB 2.0 syntax error in column {syntax[2]} at '{syntax[3]}", int(syntax[1]))
    found = re.search(r'"hint": "([^"]*)".*?"line": (\d+).*?"message": "([^"]*)"', message, re.DOTALL)
    if found is None:
        return InvalidSpecification(f"VNN-LIB 2.0: {message[:300]}")
    symbol = re.search(r'"offendingSymbol": "([^"]+)"', message[found.end() :])
    named = "" if symbol is None or symbol[1] in found[1] else f" ('{symbol[1][:40]}')"
    return InvalidSpecification(f"VNN-LIB 2.0: {found[3]}: {found[1]}{named}", int(found[2]) or None)


class _Reader:
    """Walks the parser's typed tree."""

    def __init__(self, query: vnnlib.Query, text: bytes) -> None:
        self._text, self._lines = text, declaration_lines(text)
        network, *others = query.networks
        if others:
            raise self._beyond(others[0].name, f"{len(query.networks)} networks are declared: what relates them")
        if network.hidden:
            name = network.hidden[0].name
            raise self._beyond(name, f"hidden tensor '{name}'")
        if len(network.inputs) != 1 or len(network.outputs) != 1:
            found = f"{len(network.inputs)} inputs and {len(network.outputs)} outputs"
            raise self._beyond(network.name, f"network '{network.name}' of {found}")
        self._input, self._output = network.inputs[0], network.outputs[0]
        for tensor in (self._input, self._output):
            if tensor.dtype.name not in TYPES:
                raise self._beyond(tensor.name, f"tensor '{tensor.name}' is not of real or float elements: it")
            if prod(tensor.shape) > ELEMENTS:
                raise ResourceLimit(f"the size of tensor '{tensor.name}'", f"{ELEMENTS} elements")
        self._assertions = query.assertions

    def _beyond(self, name: str, what: str) -> InvalidSpecification:
        """The refusal of a declaration, with its line."""
        return InvalidSpecification(f"{what} {ELSEWHERE}", self._lines.get(name))

    def specification(self) -> Specification:
        """That of the whole query."""
        formulas = [self._formula(assertion.expr) for assertion in self._assertions]
        sizes = prod(self._input.shape), prod(self._output.shape)
        try:
            found, warnings = cases(formulas, *sizes, lambda _: self._lines.get(self._input.name))
        except EmptyRegion as empty:
            specification = vacuous(empty, self._text, sizes)
        else:
            specification = replace(from_cases(found), warnings=warnings)
        return replace(specification, lines=tuple(self._lines.get(t.name) for t in (self._input, self._output)))

    def _formula(self, expr: Any) -> Formula:
        match type(expr).__name__:
            case "Or":
                return either(self._formula(part) for part in expr.args)
            case "And":
                return reduce(both, (self._formula(part) for part in expr.args))
            case "GreaterEqual" | "GreaterThan":
                return self._atom(expr.lhs, expr.rhs)
            case "LessEqual" | "LessThan":
                return self._atom(expr.rhs, expr.lhs)
            case "Equal":
                return both(self._atom(expr.lhs, expr.rhs), self._atom(expr.rhs, expr.lhs))
        raise InvalidSpecification(f"{expr} {ELSEWHERE}; <=, >=, <, >, ==, and, or are", line_of(expr))

    def _atom(self, greater: Any, less: Any) -> Formula:
        try:
            return [[at_least_zero(self._linear(greater).plus(self._linear(less), -ONE), line_of(greater))]]
        except InvalidSpecification as error:
            raise InvalidSpecification(str(error), line_of(greater)) from None

    def _linear(self, expr: Any) -> Linear:
        match type(expr).__name__:
            case "Var":
                return Linear({self._variable(expr): ONE}, ZERO)
            case "Float" | "Int":
                return Linear({}, decimal(expr.lexeme))
            case "Negate":
                return NOTHING.plus(self._linear(expr.expr), -ONE)
            case "Plus":
                return reduce(Linear.plus, map(self._linear, expr.args))
            case "Multiply":
                return reduce(Linear.times, map(self._linear, expr.args))
            case "Minus":
                head = self._linear(expr.head)
                return reduce(lambda a, b: a.plus(b, -ONE), map(self._linear, expr.rest), head)
        raise InvalidSpecification(f"{expr} is not a linear term")

    def _variable(self, variable: Any) -> int:
        """Its number: C order of its indices; outputs count down from -1."""
        tensor = self._input if variable.name == self._input.name else self._output
        assert variable.name == tensor.name, variable.name
        place = 0
        for index, size in zip(variable.indices, tensor.shape, strict=True):
            place = place * size + index
        return place if tensor is self._input else -1 - place


def declaration_lines(text: bytes) -> dict[str, int]:
    """Where networks and tensors are declared, by name."""
    plain = re.sub(rb";[^\n]*", b"", text)
    found: dict[str, int] = {}
    line, start = 1, 0
    for match in _DECLARED.finditer(plain):
        line, start = line + plain.count(b"\n", start, match.start()), match.start()
        found.setdefault(match[1].decode("ascii", errors="replace"), line)
    return found


def line_of(expr: Any) -> int | None:
    """The line of the first variable or number in it."""
    while not hasattr(expr, "line"):
        expr = expr.children()[0]
    return int(expr.line)
