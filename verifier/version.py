"""Which Provenn this is, as certificates and answers name it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import version


@cache
def provenn_version() -> str:
    """The installed version. Reading it parses a file, so that is done once."""
    return version("provenn")
