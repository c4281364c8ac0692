"""What an attack looks at, in order: centres, points spread over small boxes, ascents from the best, line searches."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from provenn.solvers.ascent import RATE, Climb, ascend
from provenn.solvers.goal import Goal, capacity
from provenn.solvers.line_search import affordable, walk
from provenn.solvers.sampling import FEW, by_level, dealt, free_inputs, nearest, spread

POOL = 256
"""Points spread over a box of few inputs for each one that is moved on from there."""

PASSES = 8
"""Passes through the network that those points may take."""

NEAR = 0.1
"""The first step from the best of many points, as a share of the region's width."""

WALKED = 4
"""Line searches from a point, at most."""


@dataclass(frozen=True)
class Effort:
    """How much to search.

    steps: of the gradient, from every start; restarts: starts a case, dealt to its clauses and moved together as far
    as one pass takes them; rounds: how often all this, where few inputs are free; lines: points, at most, from which
    lines are searched.
    """

    steps: int
    restarts: int
    rounds: int
    lines: int


@dataclass(frozen=True, eq=False)
class Seen:
    """Points that were evaluated: x [copies, cases, *input] of the cases at these indices, and their violation.

    violation [copies, cases]: of the largest clause, >= 0 where our forward pass finds the output unsafe.
    """

    cases: list[int]
    x: Tensor
    violation: Tensor


def explore(
    goal: Goal,
    effort: Effort,
    still_open: Callable[[], list[int]],
    generator: torch.Generator,
    climbed: Climb = Goal.climbed,
) -> Iterator[Seen]:
    """Everything that is evaluated on the way, pass by pass, so that whoever reads may stop at any of them.

    still_open: the indices of the cases to search on, asked for after the centres and before the line searches.
    climbed: what ascents follow.
    """
    if goal.packed.empty.shape[0] == 0:
        return
    centre = goal.room.project(torch.lerp(goal.room.lower, goal.room.upper, 0.5).unsqueeze(0))
    clauses = goal.clauses(goal.rows(centre))
    yield _seen(goal, still_open(), centre, clauses.amax(0))
    cases = still_open()
    index = torch.tensor(cases, device=centre.device)
    goal, centre, clauses = goal.select(index), centre[:, index], clauses[:, 0, index]
    free = free_inputs(goal.room)
    if free == 0:
        return
    few = free <= FEW
    copies = min(effort.restarts, max(1, capacity(goal.graph) // len(cases)))
    ends = []
    for number in range(ceil(effort.restarts / copies) * (effort.rounds if few else 1)):
        drift = None
        if few:
            x, aim = yield from _sampled(goal, cases, copies, generator)
        else:
            x, drift = _scattered(goal, centre if number == 0 else centre[:0], copies, generator)
            aim = dealt(goal, clauses, copies, number * copies)
        for now in ascend(goal, x, aim, effort.steps, NEAR if few else RATE, drift, climbed):
            yield _seen(goal, cases, now.x, now.violation)
        ends.append((now.best, aim, now.score))
    x, aim, score = (torch.cat(parts) for parts in zip(*ends, strict=True))
    yield from _walked(goal, cases, (x, aim, score), effort.lines, still_open())


def _sampled(
    goal: Goal, cases: list[int], count: int, generator: torch.Generator
) -> Generator[Seen, None, tuple[Tensor, Tensor]]:
    """(starts, aims): of many points of small boxes those nearest to each clause."""
    most = max(1, capacity(goal.graph) // len(cases))
    pool = spread(goal.room, max(count, min(POOL * count, PASSES * most)), generator)
    values = []
    for part in torch.split(pool, most):
        values.append(goal.clauses(goal.rows(part)))
        yield _seen(goal, cases, part, values[-1].amax(0))
    return nearest(goal, pool, torch.cat(values, 1), count)


def _scattered(goal: Goal, first: Tensor, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """(starts, drift) [count, cases, ..]: `first`, then random points, which drift to begin with."""
    room, outputs = goal.room, goal.packed.matrix.shape[2]
    unit = _random((count - len(first), *room.lower.shape), generator, first)
    x = torch.cat((first, torch.lerp(room.lower, room.upper, unit)))
    drift = 2 * _random((count, len(room.lower), outputs), generator, first) - 1
    drift[: len(first)] = 0
    return x, drift


def _random(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=like.dtype, device=like.device)


def _walked(
    goal: Goal, cases: list[int], found: tuple[Tensor, Tensor, Tensor], lines: int, still_open: list[int]
) -> Iterator[Seen]:
    """Line searches from the best of found points (x, aim, score), shared among the cases that are still open."""
    x, aim, score = found
    columns = [column for column, case in enumerate(cases) if case in still_open]
    count = min(lines, affordable(goal))
    if count == 0:
        return
    each = min(-(-count // len(columns)), len(x))
    column = torch.tensor(columns * each, device=x.device)[:count]
    order = by_level(score, 0)[:each, columns].flatten()[:count]
    here = goal.select(column)
    for points, violation in walk(here, x[order, column], aim[order, column], WALKED):
        yield _seen(here, [cases[c] for c in column.tolist()], points.unsqueeze(0), violation.unsqueeze(0))


def _seen(goal: Goal, cases: list[int], x: Tensor, violation: Tensor) -> Seen:
    """Points that the linear constraints do not admit, as far as rounding can see, count as safe."""
    if goal.room.region.constraints is not None:
        violation = violation.masked_fill(~goal.room.admits(x), -torch.inf)
    return Seen(cases, x, violation.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf))
