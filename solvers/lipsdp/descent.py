"""LipSDP by a first-order method, for networks whose dense matrices are too large to factorise many times.

Over log t it descends on  log (soft maximum of the spectrum of S(t)) - mu sum_k (log det X_k - log det 2 t_k),  S the
form pulled back to the input and X_k the pivots of its elimination (verifier.bounds.quadratic), by L-BFGS (Nocedal
1980) with steps that stay in the domain X_k > 0, for a falling mu (barrier continuation). One evaluation takes time in
the cubes of the layers' widths and memory in their squares: neither grows with the square of the whole network.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from provenn.solvers.lipsdp.start import closed
from provenn.solvers.lipsdp.task import Improved, Point, Task

TEMPERATURES = (1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
"""mu, which is also the width of the soft maximum, as a share of the largest eigenvalue."""

STEPS, HISTORY, ARMIJO, SHORTEST = 60, 20, 1e-4, 2.0**-20
"""L-BFGS: steps for every mu, pairs kept, the decrease asked for as a share of the slope, the shortest step tried."""

Objective = Callable[[Tensor], tuple[float, Tensor] | None]


def solve(task: Task, start: Point, improved: Improved) -> Point:
    """Descends from a feasible point until improved says no or mu is the last; the best point found.

    No lower bound comes with it: its points have `lower` 0.
    """
    small, found, groups = task.smaller(), start, task.groups.to(start.multipliers.device)
    place = torch.zeros(int(groups.max()) + 1).to(start.multipliers) if len(groups) else start.multipliers
    place = place.scatter_reduce(0, groups, start.multipliers, "amax").log()
    for mu in TEMPERATURES:
        for logs in minimised(_objective(small, groups, mu), place):
            place, now = logs, closed(task, logs.exp()[groups])
            if now is not None and task.bound(now.metric) < task.bound(found.metric):
                found = now
            if not improved(found):
                return found
    return found


def _objective(task: Task, groups: Tensor, mu: float) -> Objective:
    """The function of the logarithms, with its gradient; None outside its domain."""
    program = task.program

    def value(logs: Tensor) -> tuple[float, Tensor] | None:
        logs = logs.detach().requires_grad_()
        multipliers = logs.exp()[groups]
        blocks, room = program.blocks(multipliers), -(2 * multipliers).log().sum()
        for k in range(len(program.units), 0, -1):
            factor, failed = torch.linalg.cholesky_ex(blocks[k, k])
            if bool(failed):
                return None
            room = room + 2 * factor.diagonal().log().sum()
            blocks.eliminate(k)
        total = _soft(-blocks[0, 0], task.norm, mu) - mu * room / program.size
        (slope,) = torch.autograd.grad(total, logs)
        return (float(total.detach()), slope) if bool(slope.isfinite().all()) else None

    return value


def _soft(form: Tensor, norm: str, mu: float) -> Tensor:
    """The logarithm of a smooth bound: of the largest eigenvalue, or of the sum of all |entries| for l_inf."""
    if norm != "2":
        total = (form**2 + (mu * form.detach().abs().max()) ** 2 / form.numel()).sqrt().sum()
    else:
        values: Tensor = torch.linalg.eigvalsh(form)
        largest = values[-1].detach()
        total = largest + mu * largest * torch.logsumexp((values - largest) / (mu * largest), 0)
    return total.log()


def minimised(value: Objective, place: Tensor) -> Iterator[Tensor]:
    """The places of at most STEPS steps of L-BFGS, each lower than the one before."""
    here, pairs = value(place), deque[tuple[Tensor, Tensor]](maxlen=HISTORY)
    for _ in range(STEPS if here is not None else 0):
        assert here is not None
        direction = -_inverse_hessian(here[1], pairs)
        slope = float(here[1] @ direction)
        if slope > -1e-14:
            break
        length, there = 1.0 if pairs else min(1.0, 1 / float(here[1].norm())), None
        while length > SHORTEST:
            there = value(place + length * direction)
            if there is not None and there[0] <= here[0] + ARMIJO * length * slope:
                break
            length, there = length / 2, None
        if there is None:
            break
        step, change = length * direction, there[1] - here[1]
        if float(step @ change) > 1e-12 * float(step.norm() * change.norm()):
            pairs.append((step, change))
        place, here = place + step, there
        yield place


def _inverse_hessian(gradient: Tensor, pairs: deque[tuple[Tensor, Tensor]]) -> Tensor:
    """L-BFGS' two loops."""
    result, kept = gradient.clone(), []
    for step, change in reversed(pairs):
        share = (step @ result) / (step @ change)
        result -= share * change
        kept.append(share)
    if pairs:
        step, change = pairs[-1]
        result *= (step @ change) / (change @ change)
    for (step, change), share in zip(pairs, reversed(kept), strict=True):
        result += step * (share - (change @ result) / (step @ change))
    return result
