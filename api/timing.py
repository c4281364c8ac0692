"""Seconds by phase."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Adds the wall-clock seconds of a block to a table."""

    table: dict[str, float]
    name: str

    def __enter__(self) -> None:
        self.table[self.name] = self.table.get(self.name, 0.0) - time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.table[self.name] += time.monotonic()
