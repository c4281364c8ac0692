"""Which rows of a node are worth a backward pass, and in which chunks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval

CHUNK_ELEMENTS = 1 << 20
"""Coefficients of the widest node held at once: 4 MiB of float32."""


@dataclass(frozen=True, eq=False)
class Rows:
    """The chosen coordinates of one node: index [rows, batch], and which of them are chosen (the rest is padding)."""

    index: Tensor
    chosen: Tensor

    def part(self, some: slice) -> Rows:
        """A chunk of the rows."""
        return Rows(self.index[some], self.chosen[some])

    def coefficients(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """One unit row a chosen coordinate: [rows, batch, *shape]."""
        rows, batch = self.index.shape
        size = torch.Size(shape).numel()
        unit = torch.zeros((rows, batch, size), dtype=dtype, device=self.index.device)
        return unit.scatter_(2, self.index.unsqueeze(-1), 1.0).reshape(rows, batch, *shape)

    def tighten(self, interval: Interval, lower: Tensor, upper: Tensor) -> Interval:
        """`interval` intersected, at the chosen coordinates, with bounds [rows, batch]."""
        low, high = interval.lower.flatten(1), interval.upper.flatten(1)
        lower = lower.masked_fill(~self.chosen, -torch.inf)
        upper = upper.masked_fill(~self.chosen, torch.inf)
        low = low.scatter_reduce(1, self.index.T, lower.T, "amax")
        high = high.scatter_reduce(1, self.index.T, upper.T, "amin")
        return Interval(low.reshape_as(interval.lower), high.reshape_as(interval.upper))


def chosen(mask: Tensor) -> Rows:
    """The coordinates where mask [batch, *node] holds, batch entries padded to the largest count."""
    flat = mask.flatten(1)
    count = int(flat.sum(1).max())
    ordered = torch.sort(flat.to(torch.uint8), dim=1, descending=True, stable=True)
    return Rows(ordered.indices[:, :count].T.contiguous(), ordered.values[:, :count].T.bool())


def chunks(total: int, per_row: int) -> Iterator[slice]:
    """Slices of range(total) whose rows hold at most CHUNK_ELEMENTS numbers together (at least one row each)."""
    size = max(1, CHUNK_ELEMENTS // max(per_row, 1))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def widest(graph: Graph, last: int) -> int:
    """The largest number of coordinates of a node up to index `last`."""
    return max(torch.Size(node.shape).numel() for node in graph.nodes[: last + 1])
