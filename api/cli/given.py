"""The settings of a command: options over environment over defaults."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from typer import BadParameter

from provenn.api.settings import Settings


def read(**given: Any) -> Settings:
    """The settings with the options that are not None.   Raises: BadParameter naming the setting."""
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = "PROVENN_" + str(first["loc"][0]).upper()
        raise BadParameter(first["msg"], param_hint=name) from None
