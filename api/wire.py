"""What bodies are made of: numbers, texts, digests, ranges; requests refuse what they do not know."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Number = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Label = Annotated[int, Field(strict=True, ge=0)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
DEPTH = 64
"""Levels of an object that stands for a file; those that are read have at most 16, and pydantic writes 255."""
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""What can be kept: no NUL, which PostgreSQL does not take, and no half of a surrogate pair, which has no UTF-8."""


def as_file(given: str | dict[str, Any] | None) -> bytes:
    """Text or an object as the bytes of a file.   Raises: ValueError for what JSON does not hold, or is too deep."""
    if isinstance(given, str):
        return given.encode()
    _require_shallow(given, DEPTH)
    return json.dumps(given, allow_nan=False, ensure_ascii=False).encode()


def _require_shallow(given: Any, levels: int) -> None:
    if levels == 0:
        raise ValueError(f"it is nested more than {DEPTH} levels deep")
    for part in given.values() if isinstance(given, dict) else given or ():
        if isinstance(part, dict | list):
            _require_shallow(part, levels - 1)


def ordered(clip: tuple[float, float]) -> tuple[float, float]:
    """The range itself.   Raises: ValueError if its ends are not in order."""
    if clip[0] >= clip[1]:
        raise ValueError("the lower end of clip must be below the upper end")
    return clip


class Request(BaseModel):
    """A body: unknown members are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


Range = Annotated[tuple[Number, Number], AfterValidator(ordered)]
"""Lower end, upper end."""


class Response(BaseModel):
    """A body of ours, read from rows by attribute."""

    model_config = ConfigDict(from_attributes=True)
