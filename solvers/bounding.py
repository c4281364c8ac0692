"""What IBP and CROWN share: bound all cases batch by batch until the budget ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from provenn.solvers.base import Budget, Outcome, Problem, Progress, Result, Verdict
from provenn.solvers.packing import Packed, batches, pack
from provenn.verifier.errors import Unbounded
from provenn.verifier.graph import Graph

Margins = Callable[[Graph, Packed], Tensor]
"""(graph, packed cases) -> a lower bound of every case's margin: [batch]."""


def bound_cases(problem: Problem, budget: Budget, progress: Progress, method: str, margins: Margins) -> Result:
    """One outcome a case: `verified` where the margin is positive, `timeout` where the budget ended before."""
    graph = problem.graph.to(problem.device, problem.dtype)
    outcomes = [Outcome(Verdict.TIMEOUT, -float("inf"), method)] * len(problem.cases)
    done, began = 0, time.monotonic()
    with torch.no_grad():
        for indices in batches(problem, batch_size(graph)):
            if budget.left <= 0:
                break
            start = time.monotonic()
            found = _margins(graph, problem, indices, margins)
            share = (time.monotonic() - start) / len(indices)
            for index, (margin, reason) in zip(indices, found, strict=True):
                verdict = Verdict.VERIFIED if margin > 0 else Verdict.UNKNOWN
                known = replace(outcomes[index], verdict=verdict, margin=margin, seconds=share, reason=reason)
                outcomes[index] = known
            done += len(indices)
            progress(done, len(problem.cases), method)
    return Result(tuple(outcomes), {f"{method}_seconds": time.monotonic() - began})


def _margins(
    graph: Graph, problem: Problem, indices: Sequence[int], margins: Margins
) -> list[tuple[float, str | None]]:
    """A margin a case, or -inf and the reason; where one of several cannot be bounded, each alone."""
    packed = pack(graph, [problem.cases[i] for i in indices], problem.device, problem.dtype)
    try:
        return [(margin, None) for margin in margins(graph, packed).tolist()]
    except Unbounded as error:
        if len(indices) == 1:
            return [(-float("inf"), str(error))]
    return [found for index in indices for found in _margins(graph, problem, [index], margins)]


def batch_size(graph: Graph) -> int:
    """How many cases to bound together: enough to fill the processor, few enough to stay interruptible."""
    widest = max(torch.Size(node.shape).numel() for node in graph.nodes)
    return max(1, min(256, (1 << 18) // widest))
