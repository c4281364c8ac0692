"""Points of a query's inputs, run through the user's own files: witnesses that need no search, and values to compare.

A point is a witness exactly if every constraint of the query holds of what the files compute, strict ones strictly.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from provenn.api.vnnlib.deadline import Deadline
from provenn.models.query.replaying import Execution, Replay
from provenn.verifier.query.meaning import Layout
from provenn.verifier.query.query import Query
from provenn.verifier.spec import Case

POINTS, SHARE, SECONDS = 48, 0.1, 2.0
"""Points that are run a case, and the share of the time left and the seconds that they may take."""

KEPT = 8
"""Executions that are kept, for comparisons."""


@dataclass(frozen=True, eq=False)
class Trial:
    """A witness, if one was met, and some of the executions on the way, each with its point."""

    witness: Execution | None
    seen: tuple[tuple[NDArray[np.float32], Execution], ...]


def holds(query: Query, execution: Execution) -> bool:
    """Whether the execution satisfies the query, decided exactly; what is not finite satisfies nothing."""
    try:
        return query.holds(execution.value)
    except ArithmeticError:
        return False


def trial(query: Query, replay: Replay, cases: Sequence[Case], deadline: Deadline) -> Trial:
    """Runs points of every case, the first of each first.   Raises: InvalidModel if a file cannot be run."""
    end = time.monotonic() + min(SHARE * max(deadline.left, 0.0), SECONDS)
    seen: list[tuple[NDArray[np.float32], Execution]] = []
    ways = [_points(case) for case in cases]
    while ways:
        for way in tuple(ways):
            point = next(way, None)
            if point is None:
                ways.remove(way)
                continue
            execution = replay.run(point)
            if len(seen) < KEPT:
                seen.append((point, execution))
            if holds(query, execution):
                return Trial(execution, tuple(seen))
            if time.monotonic() > end:
                return Trial(None, tuple(seen))
    return Trial(None, tuple(seen))


def _points(case: Case) -> Iterator[NDArray[np.float32]]:
    """The middle, the two extreme corners, other corners and random points of a case's box."""
    lower, upper = (_single(end, toward) for end, toward in zip(case.inputs.inner, (np.inf, -np.inf), strict=True))
    generator = np.random.default_rng(0)
    yield np.clip(lower / 2 + upper / 2, lower, upper)
    yield lower
    yield upper
    for number in range(POINTS - 3):
        share = generator.random(len(lower), dtype=np.float32)
        share = share.round() if number % 2 else share
        yield np.clip((1 - share) * lower + share * upper, lower, upper)


def _single(values: NDArray[np.float64], toward: float) -> NDArray[np.float32]:
    """float32, rounded toward one side."""
    with np.errstate(over="ignore"):  # what lies beyond float32 becomes infinite, or its largest number
        near = values.astype(np.float32)
    wrong = near < values if toward > 0 else near > values
    return np.where(wrong, np.nextafter(near, np.float32(toward)), near)


def terms(execution: Execution, where: Layout) -> NDArray[np.float64]:
    """What the network of the query should compute there: the values of its terms; nan for what is not finite."""
    found = np.full(len(where.terms), np.nan)
    try:
        for monomial, place in where.terms.items():
            found[place] = np.prod([float(execution.value(i)) for i in monomial])
    except ArithmeticError:
        return np.full(len(where.terms), np.nan)
    return found
