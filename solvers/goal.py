"""What an attack moves points toward: outputs that meet every row of an unsafe clause."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

from provenn.solvers.packing import Packed
from provenn.solvers.room import Room
from provenn.verifier.graph import Graph

ELEMENTS = 1 << 20
"""Values of a network, over all its nodes, that one pass computes at most, unless one point has more."""

MOST = 1024
"""Points of one pass, at most."""


@dataclass(frozen=True, eq=False)
class Goal:
    """A batch of cases for points x [copies, cases, *input]: each of one case, and aimed at one of its clauses.

    packed: its rows are scaled to a largest coefficient of 1, so that the rows of a clause count alike.
    """

    graph: Graph
    packed: Packed
    room: Room

    @classmethod
    def of(cls, graph: Graph, packed: Packed, room: Room) -> Goal:
        """The goal of packed cases; signs of violations are those of `packed`."""
        size = packed.matrix.abs().amax(2)
        size = torch.where(size > 0, size, 1)
        scaled = replace(packed, matrix=packed.matrix / size.unsqueeze(2), bound=packed.bound / size)
        return cls(graph, scaled, room)

    def select(self, cases: Tensor) -> Goal:
        """The cases at these indices, which may repeat."""
        p = self.packed
        chosen = replace(
            p,
            region=p.region.select(cases),
            matrix=p.matrix[:, cases],
            bound=p.bound[:, cases],
            clause=p.clause[:, cases],
            clauses=p.clauses[cases],
            empty=p.empty[:, cases],
        )
        return Goal(self.graph, chosen, self.room.select(cases))

    def rows(self, x: Tensor) -> Tensor:
        """C f(x) - d, scaled: [rows, copies, cases]. No gradients."""
        with torch.no_grad():
            return self._rows(self._outputs(x))

    def clauses(self, rows: Tensor) -> Tensor:
        """[clauses, copies, cases]: the smallest row of every clause, >= 0 where the clause is met.

        inf for a clause without rows, -inf for one that the case does not have, NaN where a row is.
        """
        most = self.packed.empty.shape[0]
        index = self.packed.clause.unsqueeze(1).expand_as(rows)
        start = rows.new_full((most + 1, *rows.shape[1:]), torch.inf)
        least = start.scatter_reduce(0, index, rows, "amin")[:most]
        absent = torch.arange(most, device=rows.device).unsqueeze(1) >= self.packed.clauses
        return least.masked_fill(absent.unsqueeze(1), -torch.inf)

    def climbed(
        self, x: Tensor, aim: Tensor, drift: Tensor | None = None, alone: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(violation, score, gradient) at points that aim at clauses [copies, cases]; gradient: of the score in x.

        violation: the largest clause, >= 0 where the output is unsafe. drift [copies, cases, outputs]: directions
        of the output whose gradient is wanted instead, where they are not 0. alone: of the clause's smallest row.
        """
        x = x.detach().requires_grad_()
        outputs = self._outputs(x)
        with torch.no_grad():
            rows = self._rows(outputs)
            score, weights = self.score(rows, aim, alone)
            upward = (weights.permute(2, 1, 0) @ self.packed.matrix.transpose(0, 1)).transpose(0, 1)
            if drift is not None:
                upward = torch.where((drift != 0).any(2, keepdim=True), drift, upward)
            violation = self.clauses(rows).amax(0)
        # As a sum: for gradients of its own, torch.autograd imports a symbolic algebra package first, for a second.
        (gradient,) = torch.autograd.grad((outputs * upward).sum(), x)
        return violation, score, gradient.nan_to_num()

    def score(self, rows: Tensor, aim: Tensor, alone: bool = False) -> tuple[Tensor, Tensor]:
        """(score, weights): how near the points are to the clauses they aim at, and its gradient in the rows.

        The smallest row of the clause plus the sum of its negative rows: all unmet rows pull, the worst one most, and
        where the clause is met, or `alone`, the smallest one. score, aim: [copies, cases]; weights: [rows, copies,
        cases].
        """
        mine = self.packed.clause.unsqueeze(1) == aim
        own = torch.where(mine, rows, torch.inf)
        least, worst = own.min(0, keepdim=True)
        unmet = torch.zeros_like(own) if alone else own.clamp(max=0)
        weights = (unmet < 0).to(rows.dtype).scatter_add_(0, worst, torch.ones_like(least))
        return least[0] + unmet.sum(0), weights * mine

    def _outputs(self, x: Tensor) -> Tensor:
        return self.graph.forward(x.flatten(0, 1)).reshape(*x.shape[:2], -1)

    def _rows(self, outputs: Tensor) -> Tensor:
        values = self.packed.matrix.transpose(0, 1) @ outputs.permute(1, 2, 0)
        return values.permute(1, 2, 0) - self.packed.bound.unsqueeze(1)


def capacity(graph: Graph) -> int:
    """How many points of this network to compute at once: few enough to stay interruptible."""
    return max(1, min(MOST, ELEMENTS // sum(prod(node.shape) for node in graph.nodes)))
