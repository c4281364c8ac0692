"""Cases of different shapes as one padded batch of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.base import Problem
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region
from provenn.verifier.spec import Case


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of every clause of a batch of cases.

    matrix C [spec, batch, outputs]; bound d [spec, batch]; clause [spec, batch]: which clause a row belongs to;
    clauses [batch]: how many a case has; empty [clauses, batch]: clauses without rows, which nothing can exclude.
    Padding rows belong to an extra, last clause that is ignored.
    """

    region: Region
    matrix: Tensor
    bound: Tensor
    clause: Tensor
    clauses: Tensor
    empty: Tensor

    def margins(self, lower: Tensor) -> Tensor:
        """[batch]: min over clauses of max over rows of d + lower, where lower [spec, batch] bounds -C y from below."""
        return self._reduce(self.bound + lower)

    def violation(self, outputs: Tensor) -> Tensor:
        """[clauses, batch]: min over a clause's rows of C y - d for outputs [batch, outputs]; >= 0 is unsafe."""
        rows = torch.einsum("sbo,bo->sb", self.matrix, outputs) - self.bound
        return -self._by_clause(-rows)

    def _by_clause(self, rows: Tensor) -> Tensor:
        """The largest row of every clause; -inf for a clause without rows, +inf for one the case does not have."""
        most = self.empty.shape[0]
        start = torch.full((most + 1, rows.shape[1]), -torch.inf, dtype=rows.dtype, device=rows.device)
        best = start.scatter_reduce(0, self.clause, rows, "amax")[:most]
        absent = torch.arange(most, device=rows.device).unsqueeze(1) >= self.clauses
        return best.masked_fill(absent, torch.inf)

    def _reduce(self, rows: Tensor) -> Tensor:
        by_clause = self._by_clause(rows)
        if by_clause.shape[0] == 0:
            return rows.new_full((rows.shape[1],), torch.inf)
        return by_clause.amin(0)


def pack(graph: Graph, cases: Sequence[Case], device: str, dtype: torch.dtype) -> Packed:
    """A batch of cases, in order; their input sets must share one norm."""
    outputs = torch.Size(graph.output_shape).numel()
    most_clauses = max((len(c.clauses) for c in cases), default=0)
    most_rows = max(1, max((sum(len(k.matrix) for k in c.clauses) for c in cases), default=1))
    matrix = np.zeros((most_rows, len(cases), outputs))
    bound = np.zeros((most_rows, len(cases)))
    clause = np.full((most_rows, len(cases)), most_clauses, dtype=np.int64)
    empty = np.zeros((most_clauses, len(cases)), dtype=bool)
    for b, case in enumerate(cases):
        row = 0
        for k, part in enumerate(case.clauses):
            empty[k, b] = not part.matrix
            for coefficients, d in zip(part.matrix, part.bound, strict=True):
                matrix[row, b] = [float(c) for c in coefficients]
                bound[row, b], clause[row, b] = float(d), k
                row += 1
    region = Region.of([c.inputs for c in cases], graph.input_shape, device, dtype)
    return Packed(
        region,
        torch.tensor(matrix, dtype=dtype, device=device),
        torch.tensor(bound, dtype=dtype, device=device),
        torch.tensor(clause, device=device),
        torch.tensor([len(c.clauses) for c in cases], device=device),
        torch.tensor(empty, device=device),
    )


def batches(problem: Problem, size: int) -> Iterator[list[int]]:
    """Indices of the cases in batches of at most `size`, each of one norm (and so of one kind of region)."""
    groups: dict[float | None, list[int]] = {}
    for index, case in enumerate(problem.cases):
        ball = case.inputs.ball
        groups.setdefault(ball.norm if ball else None, []).append(index)
    for indices in groups.values():
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
