"""Our bounds beside auto_LiRPA's and beside the network itself: what cannot all be true is reported.

Two sound methods may give different bounds, so a difference alone means nothing. Two things are errors: a lower bound
above the margin of a point of the region, and two implementations of the same method with different results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from provenn.solvers.auto_lirpa import AutoLirpaAlphaCrown, AutoLirpaCrown, crown_rows
from provenn.solvers.base import Budget, Problem
from provenn.solvers.bounding import batch_size
from provenn.solvers.crown import Crown
from provenn.solvers.packing import Packed, batches, pack
from provenn.solvers.portfolio import backend
from provenn.solvers.room import Room
from provenn.verifier.bounds.backward import crown
from provenn.verifier.graph import Graph
from provenn.verifier.ops.relu import Relu

PRECISE, ROUNDED = 1e-6, 1e-4
"""Tolerances, relative to 1 + |margin|, of margins computed in float64 and in float32."""

STARTS, STEPS = 4, 20
"""Of the search for the smallest margin: points it starts from, and gradient steps from each."""


@dataclass(frozen=True)
class Comparison:
    """What is known of the margin of one case, all in float64.

    bounds: lower bounds by backend, -inf where the time ended before; found: the smallest margin of a point of the
    region; rows: CROWN's bounds of the row where ours and auto_LiRPA's are furthest apart, None where they may differ.
    """

    bounds: dict[str, float]
    found: float
    rows: tuple[float, float] | None = None

    def disagreements(self) -> list[str]:
        """What contradicts what; empty if nothing does."""
        wrong = [f"{name}'s {above(b, self.found)}" for name, b in self.bounds.items() if above(b, self.found)]
        if self.rows is not None and not abs(self.rows[0] - self.rows[1]) <= PRECISE * (1 + abs(self.rows[1])):
            wrong.append(f"CROWN bounds a row by {self.rows[0]:.9g} here and by {self.rows[1]:.9g} in auto_LiRPA")
        return wrong


def above(bound: float, found: float, tolerance: float = PRECISE) -> str | None:
    """The contradiction between a lower bound and a margin that was found, None if there is none."""
    if not bound > found + tolerance * (1 + abs(found)):
        return None
    return f"lower bound {bound:.9g} is above the margin {found:.9g} of a point of the region"


def compare(problem: Problem, budget: Budget) -> list[Comparison]:
    """One comparison a case.   Raises: BackendError if auto_LiRPA is not installed, or has no rule for the network."""
    precise = replace(problem, dtype=torch.float64)
    names = (Crown.name, AutoLirpaCrown.name, AutoLirpaAlphaCrown.name)
    results = {name: backend(name).solve(precise, budget).outcomes for name in names}
    found, rows = smallest_margins(precise), crown_apart(precise, budget)
    return [
        Comparison({name: outcomes[i].margin for name, outcomes in results.items()}, found[i], rows[i])
        for i in range(len(problem.cases))
    ]


def crown_apart(problem: Problem, budget: Budget) -> list[tuple[float, float] | None]:
    """For every case CROWN's bounds, ours and theirs, of the row where they are furthest apart.

    None where they may differ: over regions that are no boxes, with activations other than ReLU (each has its own
    lines for those), and where the time ended before.
    """
    graph = problem.graph.to(problem.device, problem.dtype)
    found: list[tuple[float, float] | None] = [None] * len(problem.cases)
    if not all(node.op is None or node.op.affine or isinstance(node.op, Relu) for node in graph.nodes):
        return found
    for indices in batches(problem, batch_size(graph)):
        packed = pack(graph, [problem.cases[i] for i in indices], problem.device, problem.dtype)
        if not packed.region.is_box or budget.left <= 0:
            continue
        with torch.no_grad():
            ours = crown(graph, packed.region).lower(
                len(graph.nodes) - 1, -packed.matrix.reshape(*packed.matrix.shape[:2], *graph.output_shape)
            )
        theirs = crown_rows(graph, packed.region, -packed.matrix)
        furthest = ((ours - theirs).abs() / (1 + theirs.abs())).nan_to_num(nan=torch.inf).argmax(0, keepdim=True)
        pairs = zip(ours.gather(0, furthest)[0].tolist(), theirs.gather(0, furthest)[0].tolist(), strict=True)
        for index, pair in zip(indices, pairs, strict=True):
            found[index] = pair
    return found


def smallest_margins(problem: Problem) -> list[float]:
    """For every case the smallest margin that a search over points of its region meets: an upper bound of the truth."""
    graph = problem.graph.to(problem.device, problem.dtype)
    generator = torch.Generator(problem.device).manual_seed(problem.seed)
    found = [math.inf] * len(problem.cases)
    for indices in batches(problem, batch_size(graph)):
        cases = [problem.cases[i] for i in indices]
        packed = pack(graph, cases, problem.device, problem.dtype)
        smallest = _descend(graph, packed, Room.of(cases, packed.region), generator)
        for index, margin in zip(indices, smallest.tolist(), strict=True):
            found[index] = margin
    return found


def _descend(graph: Graph, packed: Packed, room: Room, generator: torch.Generator) -> Tensor:
    """Gradient steps down the margin from the centre and from random points: [batch]."""
    lower, width = room.lower, room.upper - room.lower
    best = lower.new_full((lower.shape[0],), math.inf)
    for start in range(STARTS):
        unit = torch.rand(lower.shape, generator=generator, device=lower.device, dtype=lower.dtype)
        x = lower + width * (unit if start else 0.5)
        for step in range(STEPS + 1):
            x = room.project(x).detach().requires_grad_()
            violation = packed.violation(graph.forward(x).flatten(1))
            if violation.shape[0] == 0:
                return best
            margin = -violation.amax(0)
            best = torch.where(room.admits(x), torch.minimum(best, margin.detach()), best)
            (gradient,) = torch.autograd.grad(margin.masked_fill(~margin.isfinite(), 0).sum(), x)
            rate = lower.new_full((1, lower.shape[0]), 0.25 * (1 - step / STEPS) + 0.01)
            x = room.step(x.detach().unsqueeze(0), -gradient.unsqueeze(0), rate)[0]
    return best
