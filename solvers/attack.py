"""Search for counterexamples; a candidate counts only after the executor has replayed it."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.ascent import Climb
from provenn.solvers.base import Backend, Budget, Executor, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.exploration import Effort, Seen, explore
from provenn.solvers.goal import Goal, capacity
from provenn.solvers.packing import batches, pack
from provenn.solvers.room import Room
from provenn.verifier.errors import BackendError
from provenn.verifier.spec import Case

TRIES = 2
"""Candidates of a case that are replayed at a time."""

PATIENCE = 8
"""Candidates of a case that may fail before only points farther inside than all of them are replayed."""


@dataclass(frozen=True)
class Attack(Backend):
    """Searches every case for an input whose output is unsafe; finds, or says nothing.

    steps, restarts, rounds, lines: as `Effort` says; many cases share the rounds.
    """

    steps: int = 8
    restarts: int = 32
    rounds: int = 8
    lines: int = 16

    name = "attack"
    summary = (
        "sampling of small boxes, projected gradients with restarts toward every clause, exact line search where the "
        "network is piecewise linear; counterexamples replayed by the executor"
    )
    verdicts = frozenset({Verdict.FALSIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    climbed: ClassVar[Climb] = Goal.climbed

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Falsified where a float32 input inside the exact region has an unsafe output in the executor.

        The clock is read between passes through the network: a case cut short is a timeout.
        Raises: BackendError if the problem has no executor.
        """
        if problem.executor is None:
            raise BackendError(self.name, "needs an executor to replay counterexamples with")
        graph = problem.graph.to(problem.device, problem.dtype)
        outcomes = [Outcome(Verdict.TIMEOUT, -float("inf"), self.name)] * len(problem.cases)
        generator = torch.Generator(problem.device).manual_seed(problem.seed)
        rounds = max(1, self.rounds // max(1, len(problem.cases)))
        effort = Effort(self.steps, self.restarts, rounds, self.lines)
        done, discarded, began = 0, 0, time.monotonic()
        for indices in batches(problem, max(1, capacity(graph) // self.restarts)):
            if budget.left <= 0:
                break
            start = time.monotonic()
            cases = [problem.cases[i] for i in indices]
            packed = pack(graph, cases, problem.device, problem.dtype)
            judge = Judge(problem.executor, cases)
            goal = Goal.of(graph, packed, Room.of(cases, packed.region))
            for seen in explore(goal, effort, judge.still_open, generator, type(self).climbed):
                judge.look(seen)
                if budget.left <= 0 or not judge.still_open():
                    break
            late = budget.left <= 0
            share = (time.monotonic() - start) / len(indices)
            for index, found in zip(indices, judge.found, strict=True):
                outcomes[index] = _outcome(self.name, found, share, late)
            discarded += judge.discarded
            done += len(indices)
            progress(done, len(problem.cases), self.name)
        stats = {"attack_seconds": time.monotonic() - began, "attack_discarded": float(discarded)}
        return Result(tuple(outcomes), stats)


class Judge:
    """Replays what an attack finds. found: a counterexample a case, or None."""

    def __init__(self, executor: Executor, cases: Sequence[Case]) -> None:
        self._executor, self._cases = executor, cases
        self._failures, self._deepest = [0] * len(cases), [-float("inf")] * len(cases)
        self.found: list[Replayed | None] = [None] * len(cases)

    @property
    def discarded(self) -> int:
        """How many candidates failed, over all cases."""
        return sum(self._failures)

    def still_open(self) -> list[int]:
        """Indices of the cases without a counterexample."""
        return [index for index, found in enumerate(self.found) if found is None]

    def look(self, seen: Seen) -> None:
        """Replays those points of each open case that our forward pass finds most unsafe, a few.

        Where some have failed, by rounding as a rule, the search goes on and what is farther inside is replayed.
        """
        if not bool((seen.violation >= 0).any()):
            return
        for column, case in enumerate(seen.cases):
            value, order = seen.violation[:, column].sort(dim=0, descending=True, stable=True)
            for v, place in zip(value[:TRIES].tolist(), order[:TRIES].tolist(), strict=True):
                if self.found[case] is None and v >= 0 and self._worth(case, v):
                    self._try(case, seen.x[place, column], v)

    def _worth(self, case: int, violation: float) -> bool:
        return self._failures[case] < PATIENCE or violation > self._deepest[case]

    def _try(self, case: int, x: Tensor, violation: float) -> None:
        self.found[case] = replay(self._executor, self._cases[case], x.cpu().numpy().astype(np.float32)[None])
        if self.found[case] is None:
            self._failures[case] += 1
            self._deepest[case] = max(self._deepest[case], min(violation, sys.float_info.max))


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


def _outcome(method: str, found: Replayed | None, seconds: float, late: bool) -> Outcome:
    if found is None:
        return Outcome(Verdict.TIMEOUT if late else Verdict.UNKNOWN, -float("inf"), method, seconds)
    return Outcome(Verdict.FALSIFIED, -float("inf"), method, seconds, found.witness, found.output)
