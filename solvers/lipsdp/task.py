"""What the methods solve: a program, how the input is measured, which units share a multiplier; and what they return.

Minimise the bound  sum of d  over metrics d and multipliers t >= 0 for which M(d, t) of verifier.bounds.quadratic is
positive semidefinite. For l2 all input coordinates share one d, and the constant is its root; for l_inf each has its
own, and the constant is the root of their sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from provenn.verifier.bounds.quadratic import Program


@dataclass(frozen=True, eq=False)
class Task:
    """program; norm of the input: "2" or "inf"; shared: whether a layer of units has one multiplier (LipSDP-Layer)."""

    program: Program
    norm: str = "2"
    shared: bool = False

    @property
    def metrics(self) -> Tensor:
        """For every input coordinate which variable is its d: [inputs]."""
        count = self.program.sizes[0]
        return torch.zeros(count, dtype=torch.int64) if self.norm == "2" else torch.arange(count)

    @property
    def groups(self) -> Tensor:
        """For every unit which variable is its multiplier: [units]."""
        sizes = torch.tensor(self.program.sizes[1:], dtype=torch.int64)
        if self.shared:
            return torch.arange(len(sizes)).repeat_interleave(sizes)
        return torch.arange(int(sizes.sum()))

    def bound(self, metric: Tensor) -> float:
        """The sum of the variables d."""
        return float(metric[0] if self.norm == "2" else metric.sum())

    def smaller(self) -> Task:
        """The same problem with fewer inputs and outputs, by orthogonal factors: for solving, never for proving.

        Only products of what reads the input with its own transpose enter (1), and only C'C; l_inf keeps its inputs.
        """
        program = self.program
        units, output = program.units, program.output
        reads = [u.rows[0] for u in units if 0 in u.rows] + [m for k, m in output.items() if k == 0]
        sizes = program.sizes
        if self.norm == "2" and reads and sum(map(len, reads)) < sizes[0]:
            kept = torch.linalg.qr(torch.cat(reads).T, mode="r")[1].T
            parts = iter(kept.split([len(r) for r in reads]))
            units = tuple(replace(u, rows={**u.rows, 0: next(parts)}) if 0 in u.rows else u for u in units)
            output = {**output, 0: next(parts)} if 0 in output else output
            sizes = (kept.shape[1], *sizes[1:])
        columns = [m.shape[1] for m in output.values()]
        if len(next(iter(output.values()))) > sum(columns):
            kept = torch.linalg.qr(torch.cat(list(output.values()), 1), mode="r")[1]
            output = dict(zip(output, kept.split(columns, 1), strict=True))
        return replace(self, program=Program(sizes, units, output))


@dataclass(frozen=True, eq=False)
class Point:
    """A strictly feasible choice: metric [inputs], multipliers [units], M(metric, multipliers) positive definite.

    lower: a lower bound of the optimum of the same problem (0 if none is known), not rigorous.
    """

    metric: Tensor
    multipliers: Tensor
    lower: float = 0.0


Improved = Callable[[Point], bool]
"""Called with every better point; False ends the method."""
