"""The linear programme of the triangle relaxations as a backend: slopes about as good as fixed bounds allow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provenn.solvers.base import Backend, Budget, Outcome, Problem, Progress, Result, Verdict, silent
from provenn.solvers.packing import Packed, pack
from provenn.verifier.bounds.backward import Relaxed, crown
from provenn.verifier.bounds.programme import Programme, refusal
from provenn.verifier.bounds.slopes import Effort, optimised_lower
from provenn.verifier.errors import Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.spec import Case

COORDINATES = 32
"""Inputs up to which splitting the box is cheaper (`worthwhile`)."""

SHARE = 0.5
"""Of the time that is left, for one case's programmes."""


@dataclass(frozen=True, eq=False)
class RowSlopes:
    """What proves a case: (clause, row) -> ReLU node -> the lower slopes of its neurons, float32 [*node].

    A clause that is not there needs none of its own: CROWN's lines prove it.
    """

    rows: Mapping[tuple[int, int], Mapping[int, NDArray[np.float32]]]


class LinearProgramme(Backend):
    """CROWN, then for the best row of every clause still open the slopes that a linear programme finds."""

    name = "lp"
    summary = (
        "CROWN's intermediate bounds, then the linear programme of the triangle relaxations (Ehlers 2017; solved by "
        "HiGHS), whose dual solution names slopes; ReLU networks, boxes, on the CPU in float64"
    )
    verdicts = frozenset({Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.TIMEOUT})
    norms = frozenset({"inf"})
    gpu = False
    certificate = "lp"

    def solve(self, problem: Problem, budget: Budget, progress: Progress = silent) -> Result:
        """Verified where every clause's row is positive; a case ends at its first row that is not.

        Time: one solution a row, over a matrix of inputs and ReLUs: grows faster than with its square.
        """
        graph, outcomes = problem.graph.to("cpu", torch.float64), []
        began = time.monotonic()
        for case in problem.cases:
            if budget.left <= 0:
                outcomes.append(Outcome(Verdict.TIMEOUT, -float("inf"), self.name))
                continue
            start = time.monotonic()
            margin, reason, proof = self._decided(graph, case, budget)
            verdict = Verdict.VERIFIED if proof is not None else Verdict.UNKNOWN
            spent = time.monotonic() - start
            outcomes.append(Outcome(verdict, margin, self.name, spent, reason=reason, proof=proof))
            progress(len(outcomes), len(problem.cases), self.name)
        return Result(tuple(outcomes), {f"{self.name}_seconds": time.monotonic() - began})

    def _decided(self, graph: Graph, case: Case, budget: Budget) -> tuple[float, str | None, RowSlopes | None]:
        """The margin, why there is no better one, and what proves it if it is positive."""
        packed, rows = pack(graph, [case], "cpu", torch.float64), dict[tuple[int, int], Mapping[int, Tensor]]()
        if any(not clause.bound for clause in case.clauses):
            return -float("inf"), "a clause without rows: nothing can exclude it", None
        best: list[tuple[float, int, int]] = []
        try:
            with torch.no_grad():
                relaxed = crown(graph, packed.region)
                best = self._best(packed, relaxed)
                programme = Programme.of(relaxed) if min(best, default=(1.0, 0, 0))[0] <= 0 else None
        except Unbounded as error:
            return min(best, default=(-float("inf"), 0, 0))[0], str(error), None
        margins = [margin for margin, _, _ in best]
        end = time.monotonic() + SHARE * budget.left
        for place, (margin, clause, row) in sorted(enumerate(best), key=lambda item: item[1]):
            if margin > 0:
                break
            assert programme is not None
            number = _number(case, clause, row)
            slopes = programme.slopes(-packed.matrix[number, 0].numpy(), end - time.monotonic())
            if slopes is None:
                break
            margins[place] = max(margin, _margin(relaxed, packed, number, slopes))
            if margins[place] <= 0:
                break
            rows[clause, row] = slopes
        least = min(margins, default=float("inf"))
        kept = {key: {i: s[0, 0].float().numpy() for i, s in found.items()} for key, found in rows.items()}
        return least, None, RowSlopes(kept) if least > 0 else None

    def _best(self, packed: Packed, relaxed: Relaxed) -> list[tuple[float, int, int]]:
        """By clause the largest margin that CROWN gives one of its rows, the clause, and that row's place in it."""
        margins = (packed.bound + relaxed.output_lower(-packed.matrix))[:, 0].tolist()
        clauses = packed.clause[:, 0].tolist()
        found: list[tuple[float, int, int]] = []
        for k in range(int(packed.clauses[0])):
            mine = [margin for margin, clause in zip(margins, clauses, strict=True) if clause == k]
            found.append((max(mine), k, mine.index(max(mine))))
        return found


def worthwhile(problem: Problem) -> bool:
    """Whether `auto` asks it: one case, many inputs, and clauses of several rows.

    There a row is often a constraint that must be weighed against another one neuron by neuron, as an activation
    pattern is: what gradients need long for. Elsewhere they come close to the programme's value soon.
    """
    several = any(len(clause.bound) > 1 for case in problem.cases for clause in case.clauses)
    large = torch.Size(problem.graph.input_shape).numel() > COORDINATES
    if not (large and several and len(problem.cases) == 1):
        return False
    return refusal(problem.graph, problem.cases[0].inputs.ball is None) is None


def _number(case: Case, clause: int, row: int) -> int:
    """The place of a clause's row among all rows."""
    return sum(len(each.bound) for each in case.clauses[:clause]) + row


def _margin(relaxed: Relaxed, packed: Packed, number: int, slopes: Mapping[int, Tensor]) -> float:
    """What the slopes prove of a row, by a backward pass."""
    with torch.no_grad():
        found = optimised_lower(relaxed, -packed.matrix[number : number + 1], Effort(1), start=slopes)
    return float(found.lower[0, 0] + packed.bound[number, 0])
