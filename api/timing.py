"""Seconds by phase, and when a proof under way is given up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from provenn.solvers.base import Budget

GRACE, SHARE = 5.0, 0.5
"""Seconds, and share of all seconds, that a proof under way may take beyond the time: its number is not lost."""


def overdue(budget: Budget) -> bool:
    """Whether that is over too."""
    return budget.left <= -min(GRACE, SHARE * budget.seconds)


@dataclass(frozen=True)
class Clock:
    """Adds the wall-clock seconds of a block to a table."""

    table: dict[str, float]
    name: str

    def __enter__(self) -> None:
        self.table[self.name] = self.table.get(self.name, 0.0) - time.monotonic()

    def __exit__(self, *_: object) -> None:
        self.table[self.name] += time.monotonic()
