"""Where an attack begins: points spread over boxes of few inputs, and the nearest of them to each clause."""

from __future__ import annotations

import torch
from torch import Tensor

from provenn.solvers.goal import Goal
from provenn.solvers.room import Room

FEW = 12
"""Free inputs up to which points spread over a box and its faces come near everything."""

FIXED = (0.0, 0.3, 0.6)
"""The share of coordinates at an end of their range, for a third of the points each: on faces of some dimension."""

ROOT_STEPS = 30
"""Of a fixed-point iteration that converges at least twice as near each time."""

LEVEL = 1e-6
"""Points whose clauses differ by less than this share of the range count as one level of a plateau."""


def free_inputs(room: Room) -> int:
    """How many inputs have a range at all, in the case with most of them."""
    return int((room.upper > room.lower).flatten(1).sum(1).amax())


def spread(room: Room, count: int, generator: torch.Generator) -> Tensor:
    """Points of the region, [count, batch, *input]: spread over its box, faces of the box, and all corners if few.

    The corners take the place of a quarter of the points at most.
    """
    lower = room.lower.flatten(1)
    free = room.upper.flatten(1) > lower
    number = (free.cumsum(1) - 1).clamp(min=0)
    inputs = int(number.amax()) + 1
    unit = even(count, inputs, generator, lower)
    shares = torch.tensor(FIXED, dtype=lower.dtype, device=lower.device)
    fixed = shares[torch.arange(count, device=lower.device) % len(FIXED)].unsqueeze(1)
    drawn = torch.rand(unit.shape, generator=generator, dtype=lower.dtype, device=lower.device)
    unit = torch.where(drawn < fixed, (drawn < fixed / 2).to(lower.dtype), unit)
    if 4 << inputs <= count:
        bits = torch.arange(1 << inputs, device=lower.device).unsqueeze(1) >> torch.arange(inputs, device=lower.device)
        unit[: 1 << inputs] = (bits & 1).to(lower.dtype)
    spots = torch.lerp(lower, room.upper.flatten(1), unit[:, number])
    return room.project(spots.reshape(count, *room.lower.shape))


def even(count: int, inputs: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """[count, inputs] in [0, 1): an additive sequence, shifted at random; its points keep apart from each other.

    Coordinate k advances by g^-k, where g > 1 solves g^(inputs + 1) = g + 1.   Source: Roberts 2018 (R_d sequence).
    """
    root = 2.0
    for _ in range(ROOT_STEPS):
        root = (1 + root) ** (1 / (inputs + 1))
    pace = root ** -torch.arange(1, inputs + 1, dtype=torch.float64, device=like.device)
    shift = torch.rand(inputs, generator=generator, dtype=torch.float64, device=like.device)
    index = torch.arange(count, dtype=torch.float64, device=like.device).unsqueeze(1)
    return (shift + index * pace).remainder(1).to(like.dtype)


def nearest(goal: Goal, points: Tensor, clauses: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """(x, aim): of points [points, cases, *input] `count` starts [count, cases, *input] and their clauses.

    clauses: [clauses, points, cases], as `Goal.clauses` gives them. Every clause gets its nearest points, the nearest
    clause first.
    """
    values = clauses.nan_to_num(nan=-torch.inf)
    order = by_level(values, 1)
    aim = dealt(goal, values.amax(1), count)
    everyone = torch.arange(points.shape[1], device=points.device)
    turn = torch.arange(count, device=points.device).unsqueeze(1) // goal.packed.clauses.clamp(min=1)
    return points[order[aim, turn.clamp(max=len(points) - 1), everyone], everyone], aim


def dealt(goal: Goal, clauses: Tensor, count: int, first: int = 0) -> Tensor:
    """[count, cases]: clauses to aim at, in turn from the nearest to the farthest, from the turn `first` on.

    clauses: [clauses, cases], as `Goal.clauses` gives them.
    """
    ranked = clauses.nan_to_num(nan=-torch.inf).argsort(dim=0, descending=True, stable=True)
    turns = torch.arange(first, first + count, device=clauses.device).unsqueeze(1) % goal.packed.clauses.clamp(min=1)
    return ranked.gather(0, turns)


def by_level(values: Tensor, dim: int) -> Tensor:
    """The order of falling values along an axis, but of values on one level only one, the rest at the end.

    From a plateau no gradient leads away: where most points lie on one, those beside it come first.
    """
    limit = torch.finfo(values.dtype).max / 4
    ordered, order = values.clamp(-limit, limit).sort(dim=dim, descending=True, stable=True)
    fall = -ordered.diff(dim=dim)
    spread = ordered.narrow(dim, 0, 1) - ordered.narrow(dim, ordered.shape[dim] - 1, 1)
    same = torch.cat((torch.zeros_like(spread, dtype=torch.bool), fall <= LEVEL * spread), dim)
    return order.gather(dim, same.to(torch.uint8).argsort(dim=dim, stable=True))
