"""What specification documents are made of: exact numbers, tables without unknown keys, errors that name the key."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from math import isfinite
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import spoken, written

SHOWN = 60
_DECIMAL = re.compile(r"Decimal\('([^']*)'\)")
D = TypeVar("D", bound=BaseModel)


def _number(given: Any) -> Fraction:
    if isinstance(given, bool) or not isinstance(given, int | float | Decimal | Fraction | str):
        reason = 'a number is expected (or a string such as "1/255"), not {given}'
        raise PydanticCustomError("said", reason, {"given": shown(given)})
    try:
        return spoken(given)  # type: ignore[arg-type]
    except InvalidSpecification as error:
        raise PydanticCustomError("said", "{why}", {"why": str(error)}) from None


def _ordered(given: tuple[Fraction, Fraction]) -> tuple[Fraction, Fraction]:
    if given[0] > given[1]:
        raise PydanticCustomError("said", "its first end must not be above its second")
    return given


def fails(message: str, key: str = "", **context: str) -> PydanticCustomError:
    """What is wrong with the table that is being read, at this key of it."""
    return PydanticCustomError("said", message, {"key": key, **context})


Number = Annotated[
    Fraction,
    PlainValidator(_number),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "examples": ["1/255", "0x1.8p-3", "0.03"]}]}),
]
"""Exactly as written: 0.1 is one tenth; "1/255" and hexadecimal floats as strings."""
Positive = Annotated[Number, Field(ge=0)]
Whole = Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]
Vector = Annotated[tuple[Number, ...], Field(min_length=1)]
Range = Annotated[tuple[Number, Number], AfterValidator(_ordered)]
Norm = Literal["inf", "2", "1"]
NORMS: dict[str, str] = {"inf": "l-infinity", "2": "l2", "1": "l1"}
"""In words."""


class Table(BaseModel):
    """Keys that it does not have are refused, with the nearest one that it has."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _known(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            raise fails("an object is expected here, with {known}", known=", ".join(cls.model_fields))
        for key in given:
            if key not in cls.model_fields:
                near = difflib.get_close_matches(str(key), cls.model_fields, 1)
                hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(cls.model_fields)}"
                raise fails("this key is not known; {hint}", str(key), hint=hint)
        return given


class Document(Table):
    """A specification document; each kind adds `kind` and its own keys."""

    format: Literal["provenn-specification/1"]


def validated(kind: type[D], document: Mapping[str, Any]) -> D:
    """The document as this kind.   Raises: InvalidSpecification naming the key and what was expected there."""
    try:
        return kind.model_validate(dict(document))
    except ValidationError as error:
        first = _telling(error.errors(include_url=False))
        key = first.get("ctx", {}).get("key")
        where = place(
            document, [*first["loc"], *([key] if key else [])], absent=bool(key) or first["type"] == "missing"
        )
        raise InvalidSpecification(f"{where}: {_said(first)}" if where else _said(first)) from None


def _telling(errors: Sequence[Any]) -> Any:
    """The first error; where it is that a value is not of the first of several types, the one furthest inside it."""
    first = errors[0]
    if not first["type"].endswith("_type"):
        return first
    reach = 2 if any(isinstance(name, int) for name in first["loc"][1:2]) else 1
    same = [each for each in errors if each["loc"][:reach] == first["loc"][:reach]]
    return max(same, key=lambda each: (not each["type"].endswith("_type"), len(each["loc"])))


def place(document: Any, names: list[str | int], absent: bool) -> str:
    """`"perturbations"[1]."range"`: what pydantic alone sees, such as the names of alternatives, is left out.

    absent: the last name is one that the document should have, or should not.
    """
    found, here = "", document
    for number, name in enumerate(names):
        last = absent and number == len(names) - 1
        if isinstance(name, int) and isinstance(here, list | tuple):
            found, here = f"{found}[{name}]", here[name] if name < len(here) else None
        elif isinstance(name, str) and isinstance(here, Mapping) and (last or name in here):
            quoted = json.dumps(name if len(name) <= SHOWN else f"{name[: SHOWN - 3]}...", ensure_ascii=False)
            found, here = f"{found}{'.' if found else ''}{quoted}", here.get(name)
    return found


def _said(error: Mapping[str, Any]) -> str:
    """In our words where pydantic's say less than they could."""
    given = shown(error["input"])
    match error["type"]:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "this key is not known"
        case "literal_error":
            return f"{given} is not {error['ctx']['expected']}"
        case "union_tag_invalid":
            return f"{error['ctx']['tag']!r} is none of {error['ctx']['expected_tags']}"
        case "union_tag_not_found":
            return f"{error['ctx']['discriminator']} is missing"
        case "too_short":
            return f"at least {error['ctx']['min_length']} expected here, not {error['ctx']['actual_length']}"
        case "tuple_type" | "list_type":
            return f"a list is expected here, not {given}"
        case "said":
            return str(error["msg"])
        case "value_error":
            return str(error["msg"]).removeprefix("Value error, ")
    message = str(error["msg"])
    return f"{message[0].lower()}{message[1:]}, not {given}".replace("input should be", "it must be")


def around(epsilon: Fraction, norm: str, clip: tuple[Fraction, Fraction] | None) -> str:
    """The inputs near the one in a document, in words."""
    cut = "" if clip is None else f", its values in [{written(clip[0])}, {written(clip[1])}]"
    return f"every input within {NORMS[norm]} distance {written(epsilon)} of the one in the document{cut}"


def shown(given: Any) -> str:
    """Some of a value, for a message."""
    text = written(given) if isinstance(given, Fraction) else _DECIMAL.sub(r"\1", repr(given))
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def as_json(value: Any) -> bytes:
    """JSON with one member a line; decimals keep every digit.   Raises: InvalidSpecification for what JSON has not."""
    members = (f"{json.dumps(str(name))}: {_text(each)}" for name, each in value.items())
    return ("{\n" + ",\n".join(members) + "\n}\n").encode()


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{json.dumps(str(name))}: {_text(each)}" for name, each in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_text, value)) + "]"
    if value is None or isinstance(value, bool | int | str):
        return json.dumps(value)
    if isinstance(value, Decimal | float) and isfinite(value):
        return str(value)
    raise InvalidSpecification(f"{shown(value)} is neither a finite number, a text, a list nor an object")
