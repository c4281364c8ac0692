"""Networks that a child has read: it keeps the last one, for the next job about it.

A blob's file is named by its content, so the path is all that a reading depends on.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from provenn.api.certification import LoadedModel, load_model
from provenn.api.lipschitz import Readings, load


@lru_cache(maxsize=1)
def loaded(path: Path, slopes: bool = False) -> LoadedModel:
    """As `load_model`, of a file."""
    return load_model(path.read_bytes(), slopes)


@lru_cache(maxsize=1)
def readings(path: Path) -> Readings:
    """As `lipschitz.load`, of a file."""
    return load(path.read_bytes())
