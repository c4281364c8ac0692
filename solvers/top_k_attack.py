"""Search for other top labels: every step goes toward the nearest output that has them.

A list of labels takes the top places in a polyhedron of the outputs, {z : C z >= d}, of many rows at once. The plain
attack pulls at every row that is not met by the same force. Here the output y = f(x) is projected onto the polyhedron,
a quadratic program of a few variables, z = argmin |z - y|, and the input is moved along the gradient of <z - y, f>,
which is downhill for |z - f(x)|^2 / 2. Of a clause of one row the projection is a multiple of that row, and the
direction the plain attack's.   Source: after Paniagua, Grainger and Wu 2023 (QuadAttacK).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.attack import Attack
from provenn.solvers.base import Problem
from provenn.solvers.goal import Goal
from provenn.solvers.projection import project
from provenn.solvers.sampling import FEW

INSIDE, LEAST = 0.1, 1e-4
"""How far beyond the boundary outputs are aimed: a share of what the worst row lacks, and of the outputs' size."""

MOST_ROWS = 128
"""Of a clause, up to which a projection takes about a millisecond."""


def toward(goal: Goal, x: Tensor, aim: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(violation, score, gradient) as `Goal.climbed`, by projection: score is minus the distance to the clause."""
    x = x.detach().requires_grad_()
    outputs = goal.graph.forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1)
    with torch.no_grad():
        gap = _gaps(goal, outputs, aim)
        packed = goal.packed
        rows = torch.einsum("scn,pcn->spc", packed.matrix, outputs) - packed.bound.unsqueeze(1)
        violation = goal.clauses(rows).amax(0)
    (gradient,) = torch.autograd.grad((outputs * gap).sum(), x)
    return violation, -torch.linalg.vector_norm(gap, dim=2), gradient.nan_to_num()


def _gaps(goal: Goal, outputs: Tensor, aim: Tensor) -> Tensor:
    """From every output to the nearest point somewhat inside its clause: [copies, cases, outputs]."""
    packed = goal.packed
    matrix, bound, clause = (
        part.cpu().numpy() for part in (packed.matrix.double(), packed.bound.double(), packed.clause)
    )
    values, aims = outputs.detach().double().cpu().numpy(), aim.cpu().numpy()
    found = np.zeros_like(values)
    for copy, case in np.ndindex(aims.shape):
        mine, y = clause[:, case] == aims[copy, case], values[copy, case]
        rows, least = matrix[mine, case], bound[mine, case]
        if not all(np.isfinite(part).all() for part in (rows, least, y)):  # float32 has no number that large
            continue
        lacking = float((least - rows @ y).max(initial=0.0))
        margin = INSIDE * lacking + LEAST * (1 + float(np.abs(y).max()))
        nearest = project(rows, least + margin, y)
        found[copy, case] = 0.0 if nearest is None else nearest - y
    return torch.as_tensor(found, dtype=outputs.dtype, device=outputs.device)


@dataclass(frozen=True)
class TopKAttack(Attack):
    """The plain attack's starts, steps and line searches, with `toward` for its direction."""

    name = "top-k-attack"
    summary = (
        "as attack, each step toward the nearest unsafe output: projection onto the clause, a small quadratic program; "
        "for clauses of several rows, as of one list of top labels that must not occur"
    )
    climbed = toward


def worthwhile(problem: Problem) -> bool:
    """Whether some clause has several rows, but not too many, and the network many inputs.

    Of few inputs samples cover the region, and the plain attack finds as much.
    """
    rows = max((len(clause.bound) for case in problem.cases for clause in case.clauses), default=0)
    return 1 < rows <= MOST_ROWS and prod(problem.graph.input_shape) > FEW
