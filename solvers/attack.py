"""Projected gradient attack; a candidate counts only after the executor has replayed it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.base import Backend, Budget, Executor, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.bounding import batch_size
from provenn.solvers.packing import Packed, batches, pack
from provenn.solvers.room import Room
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case


@dataclass(frozen=True)
class Attack(Backend):
    """Searches every case for an input whose output is unsafe; finds, or says nothing.

    steps: gradient steps a restart; restarts: at most one a clause, the first from the box's centre.
    """

    steps: int = 30
    restarts: int = 10

    name = "attack"
    summary = "projected gradient attack, one restart a clause; counterexamples replayed by the executor"
    verdicts = frozenset({Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Falsified where a float32 input inside the exact region has an unsafe output in the executor.

        Raises: BackendError if the problem has no executor.   Source: Madry et al. 2018 (PGD).
        """
        if problem.executor is None:
            raise BackendError(self.name, "needs an executor to replay counterexamples with")
        graph = problem.graph.to(problem.device, problem.dtype)
        outcomes = [Outcome(Verdict.TIMEOUT, -float("inf"), self.name)] * len(problem.cases)
        generator = torch.Generator(problem.device).manual_seed(problem.seed)
        done, discarded, began = 0, 0, time.monotonic()
        for indices in batches(problem, max(1, batch_size(graph) // 4)):
            if budget.left <= 0:
                break
            start = time.monotonic()
            cases = [problem.cases[i] for i in indices]
            packed = pack(graph, cases, problem.device, problem.dtype)
            candidates = self._search(graph, packed, cases, generator, budget)
            share = (time.monotonic() - start) / len(indices)
            for index, case, points in zip(indices, cases, candidates, strict=True):
                found = replay(problem.executor, case, points)
                discarded += len(points) if found is None else 0
                outcomes[index] = _outcome(self.name, found, share)
            done += len(indices)
            progress(done, len(problem.cases), self.name)
        stats = {"attack_seconds": time.monotonic() - began, "attack_discarded": float(discarded)}
        return Result(tuple(outcomes), stats)

    def _search(
        self, graph: Graph, packed: Packed, cases: Sequence[Case], generator: torch.Generator, budget: Budget
    ) -> list[np.ndarray]:
        """For every case candidates [n, *input] (float32, n possibly 0) that our own forward pass finds unsafe."""
        room = Room.of(cases, packed.region)
        targets = min(self.restarts, max(1, packed.empty.shape[0]))
        best: list[list[np.ndarray]] = [[] for _ in cases]
        open_cases = np.ones(len(cases), dtype=bool)
        for target in range(targets):
            if budget.left <= 0 or not open_cases.any():
                break
            points, unsafe = self._descend(graph, packed, target, room, generator)
            for b in np.flatnonzero(unsafe.cpu().numpy() & open_cases):
                best[b].append(points[b].cpu().numpy().astype(np.float32))
                open_cases[b] = False
        empty = np.zeros((0, *graph.input_shape), dtype=np.float32)
        return [np.stack(found) if found else empty for found in best]

    def _descend(
        self, graph: Graph, packed: Packed, target: int, room: Room, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Gradient steps toward clause `target` (modulo the count): points [batch, *input], unsafe [batch]."""
        lower, width = room.lower, room.upper - room.lower
        noise = torch.rand(lower.shape, generator=generator, device=lower.device, dtype=lower.dtype)
        x = lower + width * (0.5 if target == 0 else noise)
        aim = (target % packed.clauses.clamp(min=1)).unsqueeze(0)
        kept, unsafe = x, torch.zeros(x.shape[0], dtype=torch.bool, device=x.device)
        for step in range(self.steps + 1):
            x = room.project(x).detach().requires_grad_()
            violation = packed.violation(graph.forward(x).flatten(1))
            if violation.shape[0] == 0:
                break
            now = torch.where(violation.isfinite(), violation, 0).gather(0, aim)[0]
            hit = (violation >= 0).any(0) & room.admits(x)
            fresh = (hit & ~unsafe).reshape(-1, *(1,) * (x.dim() - 1))
            kept, unsafe = torch.where(fresh, x.detach(), kept), unsafe | hit
            (gradient,) = torch.autograd.grad(now.sum(), x)
            x = room.step(x.detach(), gradient, step / self.steps)
        return kept, unsafe


@dataclass(frozen=True, eq=False)
class Replayed:
    """A counterexample: an input of the set and the executor's unsafe output, both float32."""

    witness: np.ndarray
    output: np.ndarray


def replay(executor: Executor, case: Case, points: np.ndarray) -> Replayed | None:
    """The first of points [n, *input] that lies in the exact input set and whose executed output is unsafe."""
    inside = [x for x in points if case.inputs.contains(x)]
    if not inside:
        return None
    for x, y in zip(inside, executor.run(np.stack(inside)), strict=True):
        if np.isfinite(y).all() and any(c.holds([Fraction(float(v)) for v in y.ravel()]) for c in case.clauses):
            return Replayed(x, y)
    return None


def _outcome(method: str, found: Replayed | None, seconds: float) -> Outcome:
    if found is None:
        return Outcome(Verdict.UNKNOWN, -float("inf"), method, seconds)
    return Outcome(Verdict.FALSIFIED, -float("inf"), method, seconds, found.witness, found.output)
