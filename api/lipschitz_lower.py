"""Bounds of Lipschitz constants from below: for a statement's rows together, or one a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

    def beside(self, points: Mapping[int, NDArray[np.float64]]) -> list[float]:
        """The same by short pairs beside inputs, one for some of the rows."""
        every = list(self.statement.rows)
        alone = self.statement.output in ("each", "inf")
        found = []
        for row, point in points.items():
            measure = self._measure([every[row]], "2") if alone else self._measure(every, self.statement.output)
            near, about = torch.tensor(point[None]), (self.region, 0.0, self.seed)
            found.append(searched(self.graph, measure, *about, rounds=0, near=near).value)
        if self.statement.output == "each":
            return [dict(zip(points, found, strict=True)).get(row, 0.0) for row in range(len(every))]
        return [max(found, default=0.0)]

    @property
    def _measures(self) -> list[Measure]:
        every = list(self.statement.rows)
        if self.statement.output == "each":
            return [self._measure([row], "2") for row in every]
        return [self._measure(every, self.statement.output)]

    def _measure(self, rows: Sequence[Sequence[float]], outputs: str) -> Measure:
        weights = self.statement.scale
        scale = None if weights is None else torch.tensor(weights, dtype=torch.float64)
        return Measure(torch.tensor(rows, dtype=torch.float64), self.statement.norm, outputs, scale)
