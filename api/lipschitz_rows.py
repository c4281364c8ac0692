"""Rows of a Lipschitz question that are bounded together, and the best that is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.certificate.lipschitz import Proved


@dataclass(eq=False)
class RowGroup:
    """Rows that are bounded together: their task, the best point so far, and what found it."""

    rows: list[int]
    task: Task
    point: Point | None = None
    first: Point | None = None
    method: str = ""
    jacobian: Proved | None = None

    @property
    def value(self) -> float:
        """The constant that the point is about, or the one proved by bounds of the Jacobian."""
        value = 0.0 if self.point is None else sqrt(max(self.task.bound(self.point.metric), 0.0))
        return value if self.jacobian is None else min(value, self.jacobian.upper)

    @property
    def least(self) -> float:
        """What no point of this kind is below, as far as is known; nothing is, of bounds of the Jacobian."""
        least = 0.0 if self.point is None else sqrt(max(self.point.lower, 0.0))
        return least if self.jacobian is None or least < self.jacobian.upper else 0.0

    def found(self, point: Point, method: str) -> None:
        """Takes a point if it is better, and what it says of the optimum."""
        if self.point is None or self.task.bound(point.metric) < self.task.bound(self.point.metric):
            lower = max(point.lower, 0.0 if self.point is None else self.point.lower)
            self.point, self.method = Point(point.metric, point.multipliers, lower), method
        elif point.lower > self.point.lower:
            self.point = Point(self.point.metric, self.point.multipliers, point.lower)
