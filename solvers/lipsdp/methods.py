"""The methods by name, and `auto`: every one holds a valid point from its first milliseconds on and improves it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from provenn.solvers.base import Budget
from provenn.solvers.lipsdp import conic, descent, interior
from provenn.solvers.lipsdp.start import eclipse_fast, greedy, norm_product
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.errors import BackendError

CUBIC, ITERATIONS = 2.5e-10, 25
"""Seconds of an interior-point iteration over the cube of the coordinates, on one core; how many it takes, about."""

METHODS = {
    "auto": "closed forms, then lipsdp-neuron (lipsdp-channel where it is too large), until optimal or the time ends",
    "norm-product": "the product of the layers' norms (sums where branches meet)",
    "eclipse-fast": "a closed form layer after layer, forward through a chain (ECLipsE-Fast)",
    "lipsdp-layer": "one multiplier a layer, optimal",
    "lipsdp-neuron": "one multiplier a neuron, optimal: LipSDP",
    "lipsdp-channel": "one multiplier a channel, frequency by frequency: for large convolutional networks, l2",
    "lipsdp-conic": "lipsdp-neuron by cvxpy: --solver scs, clarabel or mosek",
}
"""What `--method` may name."""

Watch = Callable[[Point], None]
"""Told every better point."""


@dataclass(frozen=True, eq=False)
class Solved:
    """The best point of one task. method: what found it; gap: (bound - its lower bound) / bound, None if unknown."""

    point: Point
    method: str
    gap: float | None
    seconds: float


def solve(
    task: Task,
    method: str,
    budget: Budget,
    watch: Watch,
    solver: str = "clarabel",
    start: tuple[Point, str] | None = None,
) -> Solved | None:
    """The best point that a method finds within the budget; None where an implicit layer has no multipliers.

    start: what closed_form said, if it was asked.
    Raises: BackendError for an unknown method, or one that does not take this network.
    """
    begin = time.monotonic()
    whole = replace(task, shared=method == "lipsdp-layer")
    point, name = start or closed_form(whole, method)
    if point is None:
        return None
    watch(point)
    if method in ("norm-product", "eclipse-fast") or not task.program.units:
        return Solved(point, name, None, time.monotonic() - begin)
    if method == "lipsdp-conic":
        point, name = conic.solve(whole, solver, seconds=budget.left), f"lipsdp-conic ({solver})"
        watch(point)
    else:
        better = _improved(whole, point, budget, watch)
        name = (
            name if better.multipliers is point.multipliers else ("lipsdp-layer" if whole.shared else "lipsdp-neuron")
        )
        point = better
    bound = task.bound(point.metric)
    gap = max(bound - point.lower, 0.0) / bound if point.lower > 0 else None
    return Solved(point, name, gap, time.monotonic() - begin)


def closed_form(task: Task, method: str) -> tuple[Point | None, str]:
    """The closed form that a method is, or begins with, and its name; None where an implicit layer has no multipliers.

    Raises: BackendError for an unknown method, or one that does not take this network.
    """
    if method not in METHODS or method == "lipsdp-channel":
        raise BackendError(method, f"no such method here; there are {', '.join(METHODS)}")
    if method == "norm-product":
        return norm_product(task), method
    forward = eclipse_fast(task)
    if method == "eclipse-fast":
        if forward is None:
            raise BackendError(method, "it takes chains of layers and the l2 norm only; use lipsdp-neuron, or auto")
        return forward, method
    # Greedy multipliers are never worse than the product of norms.
    found = [(point, name) for point, name in ((forward, "eclipse-fast"), (greedy(task), "greedy")) if point]
    return min(found, key=lambda pair: task.bound(pair[0].metric)) if found else (None, "")


def _improved(task: Task, start: Point, budget: Budget, watch: Watch) -> Point:
    """By the interior-point method, or by descent first where the time does not suffice for it."""
    record = _Record(task, start, watch)
    iteration = CUBIC * task.smaller().program.size ** 3
    affordable = iteration * ITERATIONS < budget.left
    if not affordable:
        descent.solve(task, start, record.until(budget))
        affordable = iteration * ITERATIONS < budget.left
    if affordable:
        first = record.best if record.best is not start else eclipse_fast(task) or start
        interior.solve(task, first, record.until(budget))
    return replace(record.best, lower=record.lower)


class _Record:
    """The best point, and the largest lower bound, of all that were told."""

    def __init__(self, task: Task, start: Point, watch: Watch) -> None:
        self.task, self.best, self.lower, self.watch = task, start, 0.0, watch

    def until(self, budget: Budget) -> Callable[[Point], bool]:
        """To be told of every step; says no where a step as long as the longest would exceed the budget."""
        last, longest = time.monotonic(), 0.0

        def improved(point: Point) -> bool:
            nonlocal last, longest
            now = time.monotonic()
            longest, last = max(longest, now - last), now
            self.lower = max(self.lower, point.lower)
            if self.task.bound(point.metric) < self.task.bound(self.best.metric):
                self.best = point
                self.watch(point)
            return budget.left > longest

        return improved
