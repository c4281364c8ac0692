"""JSON of a stranger, field by field: exactly the expected names and types, or a refusal that says where."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from math import isnan
from typing import Any

from provenn.models.pt2.archive import ADVICE
from provenn.verifier.errors import InvalidModel

LARGEST = 2**63 - 1
TEXT = 1000
"""Characters of a name."""

SYMBOL = re.compile(r"Symbol\('(\w{1,40})'(?:, (?:positive|integer)=True)*\)", re.ASCII)
"""A plain symbol, as torch writes the length of a dynamic axis. It is compared as text, never evaluated."""

INFINITIES = {"Infinity": float("inf"), "-Infinity": float("-inf")}


def shown(value: object) -> str:
    """The value in a message: its first characters, none that a terminal might obey."""
    text = ascii(value) if not isinstance(value, dict | list) else f"a JSON {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}.."


def parsed(text: bytes, what: str) -> Any:
    """The JSON value.   Raises: InvalidModel if it is malformed, names a key twice or holds nan."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidModel(f"{what} cannot be read as JSON: {shown(str(error))}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


def members(value: Any, what: str, required: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """The value, an object of exactly these keys."""
    found = mapping(value, what)
    if missing := sorted(set(required) - found.keys()):
        raise InvalidModel(f"{what} lacks the field {missing[0]}")
    if unknown := sorted(found.keys() - set(required) - set(optional)):
        raise InvalidModel(f"{what} has the field {shown(unknown[0])}, which is not known there; {ADVICE}")
    return found


def mapping(value: Any, what: str) -> dict[str, Any]:
    """The value, an object."""
    if not isinstance(value, dict):
        raise InvalidModel(f"{what} is {shown(value)}; an object is expected")
    return value


def sequence(value: Any, what: str) -> list[Any]:
    """The value, a list."""
    if not isinstance(value, list):
        raise InvalidModel(f"{what} is {shown(value)}; a list is expected")
    return value


def one_of(value: Any, what: str) -> tuple[str, Any]:
    """(key, value) of an object with a single key: how torch writes a choice."""
    found = mapping(value, what)
    if len(found) != 1:
        raise InvalidModel(f"{what} is an object of {len(found)} fields; exactly one is expected")
    return next(iter(found.items()))


def text(value: Any, what: str) -> str:
    """The value, a name or a short text without control characters."""
    if not isinstance(value, str) or len(value) > TEXT or not value.isprintable():
        raise InvalidModel(f"{what} is {shown(value)}; printable text is expected")
    return value


def whole(value: Any, what: str) -> int:
    """The value, a whole number of 64 bits."""
    if type(value) is not int or not -LARGEST <= value <= LARGEST:
        raise InvalidModel(f"{what} is {shown(value)}; a whole number is expected")
    return value


def number(value: Any, what: str) -> float:
    """The value, a number; torch writes infinities as text."""
    if isinstance(value, str) and value in INFINITIES:
        return INFINITIES[value]
    if type(value) is int:
        return float(whole(value, what))
    if type(value) is not float or isnan(value):
        raise InvalidModel(f"{what} is {shown(value)}; a number is expected")
    return value


def flag(value: Any, what: str) -> bool:
    """The value, true or false."""
    if type(value) is not bool:
        raise InvalidModel(f"{what} is {shown(value)}; true or false is expected")
    return value


def symbol(value: Any, what: str) -> str:
    """The name of the plain symbol that an `as_expr` is."""
    fields = members(value, what, {"expr_str"}, {"hint"})
    written = fields["expr_str"]
    found = SYMBOL.fullmatch(written) if isinstance(written, str) else None
    if found is None:
        raise InvalidModel(
            f"{what} has expr_str {shown(written)}; only a plain symbol for the batch is read, nothing is evaluated. "
            f"Export with dynamic_shapes for axis 0 alone, or {ADVICE}"
        )
    if fields.get("hint") is not None:
        key, hint = one_of(fields["hint"], f"{what}: hint")
        if key != "as_int":
            raise InvalidModel(f"{what}: hint is {shown(key)}; as_int is expected")
        whole(hint, f"{what}: hint")
    return found[1]
