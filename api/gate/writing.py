"""Files that the gate leaves, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from provenn.api.batch.writing import whole
from provenn.api.cli.outcome import CannotWrite


def write(path: Path, data: bytes) -> None:
    """Raises: CannotWrite."""
    try:
        with whole(path) as file:
            file.write(data)
    except OSError as error:
        raise CannotWrite(str(path), error) from error
