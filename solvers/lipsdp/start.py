"""Closed forms: multipliers that are feasible without a search.

Backward, a layer's multipliers must outweigh the form S that its later readers leave on it. `norm_product` replaces S
by a number, the product of the norms met so far; `greedy` keeps S and outweighs its largest eigenvalue, so it is never
worse. `eclipse_fast` goes forward through a chain (Xu and Sivaranjani 2024, arXiv 2404.04375), here with slopes in any
[a, b]: with G = V X^-1 V' and X the Schur complement so far, t = 1 / ((b - a)^2 lambda_max(G)).
"""

from __future__ import annotations

import torch
from torch import Tensor

from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.bounds.quadratic import Blocks, Program, Units
from provenn.verifier.errors import BackendError

MARGIN = 2.0**-24
"""How much a closed form is enlarged at every layer, relatively: a strict inequality instead of an equality."""

ROOM = 0.05
"""Least share by which 2 t exceeds what it must outweigh where the closed form would have it touch."""

TRIES, RATE = 400, 0.1
"""Steps, and their length in log t, of the search for multipliers of an implicit layer."""


def closed(task: Task, multipliers: Tensor) -> Point | None:
    """The least metric for these multipliers: the eigenvalue of S for l2, row sums of |S| for l_inf; None if none."""
    form = task.program.pulled(multipliers)
    if form is None or not bool(form.isfinite().all()):
        return None
    least = 1e-30 + MARGIN * float(form.diagonal().abs().max())
    if task.norm == "2":
        largest = float(torch.linalg.eigvalsh(form)[-1])
        metric = torch.full_like(form[0], max(largest, 0.0) * (1 + MARGIN) + least)
    else:
        metric = form.abs().sum(1) * (1 + MARGIN) + least
    return Point(metric, multipliers)


def norm_product(task: Task) -> Point | None:
    """Products of norms, summed where branches meet.   Raises: BackendError for implicit layers."""
    program, reach = task.program, {0: 1.0}
    for k, units in enumerate(program.units, start=1):
        if k in units.rows:
            raise BackendError("norm-product", f"layer '{units.node}' is implicit; use lipsdp-neuron")
        reach[k] = _steepest(units) * sum(_norm(m) * reach[j] for j, m in units.rows.items())
    forms = dict.fromkeys(reach, 0.0)
    layers = [(program.output, 1.0, 1.0)]
    multipliers: list[Tensor] = []
    for k in range(len(program.units), -1, -1):
        for rows, form, steep in layers:
            total = sum(_norm(m) * reach[j] for j, m in rows.items())
            for j, matrix in rows.items():
                forms[j] += form * steep**2 * _norm(matrix) * total / max(reach[j], 1e-150) * (1 + MARGIN)
        if k:
            units = program.units[k - 1]
            layers = [(units.rows, forms[k], _steepest(units))]
            multipliers.insert(0, _weight(units) * max(forms[k], 1e-150))
    like = next(iter(program.output.values()))
    return closed(task, torch.cat(multipliers) if multipliers else like.new_zeros(0))


def greedy(task: Task) -> Point | None:
    """Backward through any graph; None where no multipliers of an implicit layer were found."""
    program, blocks = task.program, Blocks()
    program.add_output(blocks)
    multipliers: list[Tensor] = []
    for k in range(len(program.units), 0, -1):
        units = program.units[k - 1]
        like = units.lower
        form = -blocks.get((k, k), torch.zeros((len(like), len(like)), dtype=like.dtype, device=like.device))
        largest = max(float(torch.linalg.eigvalsh(form)[-1]), 1e-12 * float(form.abs().max()), 1e-150)
        if k in units.rows:
            direction = well_posed(units, units.rows[k], task.shared)
            if direction is None:
                return None
            chosen = direction * largest * 2
        else:
            chosen = _weight(units) * largest * (1 + MARGIN)
        chosen = torch.full_like(chosen, float(chosen.max())) if task.shared else chosen
        program.add_units(blocks, k, chosen)
        if not blocks.eliminate(k):
            return None
        multipliers.insert(0, chosen)
    like = next(iter(program.output.values()))
    return closed(task, torch.cat(multipliers) if multipliers else like.new_zeros(0))


def eclipse_fast(task: Task) -> Point | None:
    """Forward through a chain, for l2; None where the network is none, or its output does not end it."""
    program = task.program
    chain = all(u.rows.keys() == {k} for k, u in enumerate(program.units)) and task.norm == "2"
    if not chain or program.output.keys() != {len(program.units)}:
        return None
    like = next(iter(program.output.values()))
    middle, chosen = torch.eye(program.sizes[0]).to(like), list[Tensor]()
    for k, units in enumerate(program.units):
        low, high, rows = float(units.lower.min()), float(units.upper.max()), units.rows[k]
        form, one = rows @ torch.linalg.solve(middle, rows.T), torch.eye(len(rows)).to(like)
        t = 1 / ((high - low) ** 2 * max(float(torch.linalg.eigvalsh(form)[-1]), 1e-150))
        inner = torch.linalg.solve(one + 2 * low * high * t * form, form) if low * high else form
        middle = 2 * t * one - ((low + high) * t) ** 2 * (inner + inner.T) / 2
        chosen.append(torch.full_like(units.lower, t))
    last = program.output[len(program.units)]
    largest = float(torch.linalg.eigvalsh(last @ torch.linalg.solve(middle, last.T))[-1]) * (1 + MARGIN)
    return closed(task, torch.cat([t * largest for t in chosen]) if chosen else like.new_zeros(0))


def well_posed(units: Units, weight: Tensor, shared: bool = False) -> Tensor | None:
    """Some t with  2 t + 2 W'(ab t) W - (a + b)(t W + W' t) >= I:  an implicit layer's W then has one fixed point.

    Equal multipliers first, then (not if `shared`) descent on the least eigenvalue over log t; None if it stays <= 0.
    """
    free = Units("", 0, units.lower, units.upper, {1: weight}, units.places, units.length)
    program = Program((0, len(weight)), (free,), {})

    def least(logs: Tensor) -> tuple[Tensor, Tensor]:
        t = (logs - logs.mean()).exp()
        blocks = Blocks()
        program.add_units(blocks, 1, t)
        return torch.linalg.eigvalsh(blocks[1, 1])[0], t

    logs = torch.zeros_like(units.lower, requires_grad=True)
    optimiser = torch.optim.Adam([logs], lr=RATE)
    for _ in range(1 if shared else TRIES):
        smallest, t = least(logs)
        if float(smallest.detach()) > 1e-6 * float(t.detach().max()):
            return (t / smallest).detach()
        optimiser.zero_grad()
        (-smallest).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return None


def _weight(units: Units) -> Tensor:
    """The t that passes |w|^2 on as max|slope|^2 |v|^2 with the least loss: (1 + |m| / r) / 2, slopes in m -/+ r."""
    middle, radius = (units.lower + units.upper) / 2, (units.upper - units.lower) / 2
    return (1 + (middle.abs() / radius.clamp(min=1e-12)).clamp(ROOM, 1e6)) / 2


def _steepest(units: Units) -> float:
    return float(torch.maximum(units.lower.abs(), units.upper.abs()).max())


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))
