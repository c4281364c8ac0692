"""Bounds of Lipschitz constants from below: for a statement's rows together, or one a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.solvers.base import Progress
from provenn.solvers.lipsdp.searched import Measure, searched
from provenn.verifier.certificate.lipschitz import Statement
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region


@dataclass(frozen=True, eq=False)
class Lower:
    """The search for one statement about a network, in a region or everywhere."""

    graph: Graph
    statement: Statement
    region: Region | None
    seed: int
    progress: Progress

    def searched(self, seconds: float) -> list[float]:
        """One number, or one a row, by search in all of the region."""
        each = self._measures
        found = []
        for number, measure in enumerate(each):
            self.progress(number, len(each), "a bound from below")
            found.append(searched(self.graph, measure, self.region, seconds / len(each), self.seed).value)
        return found

    def beside(self, points: Sequence[NDArray[np.float64]]) -> list[float]:
        """The same by short pairs beside inputs alone."""
        near = torch.tensor(np.stack(points), dtype=torch.float64)
        about = (self.region, 0.0, self.seed)
        return [searched(self.graph, measure, *about, rounds=0, near=near).value for measure in self._measures]

    @property
    def _measures(self) -> list[Measure]:
        statement = self.statement
        rows = torch.tensor(statement.rows, dtype=torch.float64)
        scale = None if statement.scale is None else torch.tensor(statement.scale, dtype=torch.float64)
        if statement.output == "each":
            return [Measure(row[None], statement.norm, "2", scale) for row in rows]
        return [Measure(rows, statement.norm, statement.output, scale)]
