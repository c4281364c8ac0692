"""VNN-LIB 2.0 into a Query: every network, tensor and relation of the standard, decimals taken exactly.

Source: the VNN-LIB standard 2.0, chapter 3, through the published `vnnlib` parser and its type checker.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import reduce
from math import prod
from typing import TYPE_CHECKING, Any

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import decimal
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
from provenn.verifier.vnnlib2 import ELEMENTS, declaration_lines, line_of, parsed

if TYPE_CHECKING:
    import vnnlib

DTYPES = {
    "Real": "real",
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "Bool": "bool",
    **{
        f"{letter}{bits}": f"{name}{bits}" for letter, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
    },
}
"""The parser's names of element types -> the standard's."""

RELATIONS = {
    "GreaterEqual": (Relation.AT_LEAST, False),
    "LessEqual": (Relation.AT_LEAST, True),
    "GreaterThan": (Relation.ABOVE, False),
    "LessThan": (Relation.ABOVE, True),
    "Equal": (Relation.EQUAL, False),
    "NotEqual": (Relation.DIFFERENT, False),
}
"""The parser's comparison -> the relation of left - right to 0, or of right - left."""

_VERSION = re.compile(rb"\(\s*vnnlib-version\s*<\s*([0-9]{1,4})\.([0-9]{1,4})\s*>")


def read_vnnlib2(text: bytes) -> Query:
    """Reads VNN-LIB 2.x.

    Raises: InvalidSpecification with the line and the parser's reason; ResourceLimit; BackendError without the parser.
    """
    version = _VERSION.search(text)
    if version is not None and version[1] != b"2":
        raise InvalidSpecification(
            f"VNN-LIB {version[1].decode()}.{version[2].decode()} is declared; versions 1.0 and 2.x are read",
            text.count(b"\n", 0, version.start()) + 1,
        )
    return _Reader(parsed(text), declaration_lines(text)).query((2, int(version[2]) if version else 0))


class _Reader:
    """Walks the parser's typed tree."""

    def __init__(self, query: vnnlib.Query, lines: Mapping[str, int]) -> None:
        self._count, self._lines = 0, lines
        self._tensors: dict[str, Tensor] = {}
        self._networks = tuple(self._network(network) for network in query.networks)
        self._assertions = query.assertions

    def query(self, version: tuple[int, int]) -> Query:
        """All of it."""
        return Query(version, self._networks, tuple(self._formula(a.expr) for a in self._assertions))

    def _network(self, network: Any) -> Network:
        parts = ((Role.INPUT, network.inputs), (Role.HIDDEN, network.hidden), (Role.OUTPUT, network.outputs))
        inputs, hidden, outputs = (tuple(self._tensor(t, role) for t in tensors) for role, tensors in parts)
        same = network.equal_to or None, network.isometric_to or None
        return Network(network.name, inputs, hidden, outputs, *same, self._lines.get(network.name))

    def _tensor(self, declared: Any, role: Role) -> Tensor:
        line = self._lines.get(declared.name)
        dtype = DTYPES.get(declared.dtype.name)
        if dtype is None:
            written = str(declared).split()[2]
            known = ", ".join(sorted(DTYPES.values()))
            raise InvalidSpecification(
                f"tensor '{declared.name}' is of element type '{written[:40]}'; read are {known}", line
            )
        shape = tuple(declared.shape)
        count = prod(shape)
        if count > ELEMENTS:
            raise ResourceLimit(f"the size of tensor '{declared.name}'", f"{ELEMENTS} elements")
        if count < 1:
            raise InvalidSpecification(f"tensor '{declared.name}' of shape {list(shape)} has no elements", line)
        node = declared.onnx_name.strip('"') if role is Role.HIDDEN else None
        tensor = Tensor(declared.name, role, dtype, shape, self._count, count, node, line)
        self._count += count
        self._tensors[tensor.name] = tensor
        return tensor

    def _formula(self, expr: Any) -> Formula:
        kind = type(expr).__name__
        if kind in RELATIONS:
            relation, swapped = RELATIONS[kind]
            left, right = self._polynomial(expr.lhs), self._polynomial(expr.rhs)
            gap = right.plus(left, -ONE) if swapped else left.plus(right, -ONE)
            return Atom(gap, relation, line_of(expr.lhs))
        parts = tuple(self._formula(part) for part in expr.args)
        return All(parts) if kind == "And" else Some(parts)

    def _polynomial(self, expr: Any) -> Polynomial:
        match type(expr).__name__:
            case "Var":
                return Polynomial({(self._element(expr),): ONE})
            case "Float" | "Int":
                return constant(decimal(expr.lexeme))
            case "Negate":
                return NOTHING.plus(self._polynomial(expr.expr), -ONE)
            case "Plus":
                return reduce(Polynomial.plus, map(self._polynomial, expr.args))
            case "Multiply":
                return reduce(Polynomial.times, map(self._polynomial, expr.args))
            case "Minus":
                head = self._polynomial(expr.head)
                return reduce(lambda a, b: a.plus(b, -ONE), map(self._polynomial, expr.rest), head)
        raise InvalidSpecification(f"{expr} is not an arithmetic expression", line_of(expr))

    def _element(self, variable: Any) -> int:
        """Its number: the tensor's start and the place of its indices in C order."""
        tensor = self._tensors[variable.name]
        place = 0
        for index, size in zip(variable.indices, tensor.shape or (), strict=True):
            place = place * size + index
        return tensor.start + place
