"""Points moved up the gradient within their room, all together, each at a pace of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.goal import Goal
from provenn.verifier.interval import Interval

RATE = 0.5
"""The first step, as a share of the region's width: from the centre of a box to a corner."""

GROWTH, SHRINKAGE = 1.5, 0.5
"""Of a point's step after it came nearer, and after it did not."""

DRIFTS, DRIFT = 2, 0.25
"""Steps along random directions of the output, where asked for, and how long each is."""


Climb = Callable[[Goal, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(goal, x, aim) -> (violation, score, gradient) as `Goal.climbed`, which is the first of these."""


@dataclass(frozen=True, eq=False)
class Ascent:
    """Where the points are after some steps.

    x: what was just evaluated; violation [copies, cases]: largest clause there, >= 0 where unsafe; best, score: the
    best points so far, each for the clause it aims at.
    """

    x: Tensor
    violation: Tensor
    best: Tensor
    score: Tensor


def ascend(
    goal: Goal,
    x: Tensor,
    aim: Tensor,
    steps: int,
    rate: float = RATE,
    drift: Tensor | None = None,
    climbed: Climb = Goal.climbed,
) -> Iterator[Ascent]:
    """The points x [copies, cases, *input] at the start and after every step toward their clauses [copies, cases].

    A point steps from the best one it knows, farther after a success, less far after a failure, so no evaluation is
    lost. drift [copies, cases, outputs]: where not 0, the first steps change the output in this direction, whatever
    the score. climbed: which way, and how near.
    Source: Madry et al. 2018 (PGD); Tashiro et al. 2020 (output diversification); steps that adapt: after
    Croce and Hein 2020 (APGD).
    """
    room = goal.room
    x = room.project(x)
    if drift is not None:
        pace = torch.full_like(drift[..., 0], DRIFT)
        for _ in range(DRIFTS):
            violation, score, gradient = goal.climbed(x, aim, drift)
            yield Ascent(x, violation, x, score)
            x = room.project(room.step(x, gradient, pace))
    violation, score, upward = climbed(goal, x, aim)
    best, pace = x, torch.full_like(score, rate)
    yield Ascent(x, violation, best, score)
    for _ in range(steps):
        x = room.project(room.step(best, upward, pace))
        violation, reached, gradient = climbed(goal, x, aim)
        better = reached > score
        score, pace = torch.where(better, reached, score), pace * torch.where(better, GROWTH, SHRINKAGE)
        here = better.reshape(*better.shape, *(1,) * (x.dim() - 2))
        best, upward = torch.where(here, x, best), torch.where(here, gradient, upward)
        yield Ascent(x, violation, best, score)


def polish(goal: Goal, points: Tensor, lower: Tensor, upper: Tensor, steps: int = 3) -> np.ndarray:
    """Candidates [n, *input] (float32, n possibly 0) for `replay`, the most unsafe ones first: near points of one case.

    goal: of that case alone; points, lower, upper [batch, *input]: where to begin, and the boxes to stay in, parts of
    the case's. Every point aims at the clause nearest to it and gives at most one candidate, in the case's box exactly
    and unsafe in our forward pass.
    """
    many = goal.select(torch.zeros(len(points), dtype=torch.int64, device=points.device))
    low, high = torch.maximum(lower, many.room.lower), torch.minimum(upper, many.room.upper)
    room = replace(many.room, region=replace(many.room.region, box=Interval(low, high)), lower=low, upper=high)
    many = replace(many, room=room)
    x = room.project(points.unsqueeze(0))
    aim = many.clauses(many.rows(x)).nan_to_num(nan=-torch.inf).argmax(0)
    kept, worst = x, x.new_full(x.shape[:2], -torch.inf)
    for now in ascend(many, x, aim, steps):
        violation = torch.where(room.admits(now.x), now.violation, -torch.inf)
        worse = (violation > worst).reshape(*worst.shape, *(1,) * (x.dim() - 2))
        kept, worst = torch.where(worse, now.x, kept), torch.fmax(violation, worst)
    order = worst[0].argsort(descending=True)
    unsafe = order[worst[0, order] >= 0]
    return kept[0, unsafe].cpu().numpy().astype(np.float32)
