"""Which rows of a node are worth a backward pass, and in which chunks."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import torch
from torch import Tensor

from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.conv import ConvTranspose
from provenn.verifier.ops.window import Window, Windowed

MEMORY = 32.0
"""MiB that the coefficients of one pass may take, by default: it fills a processor and fits its cache."""

LIVE = 8
"""Tensors of the widest node's size that a pass holds at once."""

WORTHWHILE_ELEMENTS = 1 << 18
"""Coefficients of the widest node that a chunk should have before entries with fewer rows start another one."""

PADDING = 0.75
"""Entries of a batch share a chunk while they have at least this share of its most rows."""

SMALL_ELEMENTS = 1 << 15
"""Coefficients of the widest node below which a pass costs its calls, not its arithmetic (measured)."""

ROUNDING = 2.0**12
"""Ends of an interval may cross by this many units in the last place of the node's largest value: roundings."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """Bounds of chosen coordinates of one node, for some entries of the batch: one chunk of work.

    entries [some]: which of the batch, None for all; index [rows, some]: coordinates; sign [rows, some]: 1 for the
    lower bound, -1 for the upper one; chosen [rows, some]: which of them are meant (the rest is padding); windows:
    whether to hold the coefficients as windows; start: the window of one cell they begin with, None: the node's own.
    """

    entries: Tensor | None
    index: Tensor
    sign: Tensor
    chosen: Tensor
    windows: bool
    start: Window | None = None

    def coefficients(self, shape: tuple[int, ...]) -> Tensor | Windowed:
        """Signed unit rows over the node: [rows, some, *shape], or their windows, which are single cells."""
        if not self.windows:
            return self._units(self.index, torch.Size(shape).numel()).reshape(*self.index.shape, *shape)
        cells = torch.Size(shape[1:]).numel()
        values = self._units(self.index // cells, shape[0]).reshape(*self.index.shape, -1, *(1,) * len(shape[1:]))
        start = self.start or Window.cell(shape[1:])
        return Windowed(start, _place(self.index % cells, shape[1:], start), values, inside=True)

    def tighten(self, interval: Interval, lower: Tensor) -> Interval:
        """An interval of the whole batch, intersected with lower bounds of the signed rows: [rows, some].

        Where both sides are computed from the same value, roundings may cross them: such ends change places. Ends that
        are crossed by more than roundings stay so, for the caller to see.
        """
        low, high = (x.flatten(1) if self.entries is None else x.flatten(1)[self.entries] for x in _sides(interval))
        up = self.sign > 0
        below = lower.masked_fill(~(self.chosen & up), -torch.inf)
        above = (-lower).masked_fill(~(self.chosen & ~up), torch.inf)
        largest = torch.maximum(-low, high).amax(1, keepdim=True).nan_to_num(nan=0, posinf=0)
        low = low.scatter_reduce(1, self.index.T, below.T, "amax")
        high = high.scatter_reduce(1, self.index.T, above.T, "amin")
        apart = low - high
        rounding = largest * (ROUNDING * torch.finfo(low.dtype).eps)
        swapped = rounding * (apart <= rounding)
        low, high = low.minimum(high.maximum(low - swapped)), high.maximum(low.minimum(high + swapped))
        return Interval(self._back(low, interval.lower), self._back(high, interval.upper))

    def among(self, mask: Tensor) -> Tensor:
        """The rows that mask [batch, *node] holds for, in some of the entries: [rows] of bool."""
        flat = mask.flatten(1) if self.entries is None else mask.flatten(1)[self.entries]
        return (flat.T.gather(0, self.index) & self.chosen).any(1)

    def _back(self, part: Tensor, whole: Tensor) -> Tensor:
        if self.entries is None:
            return part.reshape_as(whole)
        return whole.index_copy(0, self.entries, part.reshape(-1, *whole.shape[1:]))

    def _units(self, index: Tensor, size: int) -> Tensor:
        """One-hot rows times their signs: [rows, some, size]."""
        return self.sign.new_zeros((*index.shape, size)).scatter(2, index.unsqueeze(-1), self.sign.unsqueeze(-1))


@dataclass(frozen=True, eq=False)
class Plan:
    """The coordinates of one node that need a pass, to be cut into chunks.

    mask [batch, *node]: which; sign [batch, *node]: the side each one needs first; elements: coefficients of a row
    over the widest node before it.
    """

    mask: Tensor
    sign: Tensor
    counts: list[int]
    elements: int
    windows: bool
    start: Window | None = None

    @classmethod
    def of(cls, graph: Graph, node: int, mask: Tensor, sign: Tensor) -> Plan:
        """A plan for one node."""
        return cls(mask, sign, mask.flatten(1).sum(1).tolist(), *row_elements(graph, node))

    @classmethod
    def each(cls, graph: Graph, node: int, mask: Tensor, sign: Tensor) -> list[Plan]:
        """Plans that make up one for the node: behind a transposed convolution one for every phase of its stride."""
        starts = phases(graph, node)
        if not starts:
            return [cls.of(graph, node, mask, sign)]
        elements = max(size for _, size in reached(graph, node, starts[0]))
        parts = [mask & _member(mask, start) for start in starts]
        return [
            cls(part, sign, part.flatten(1).sum(1).tolist(), elements, True, start)
            for part, start in zip(parts, starts, strict=True)
        ]

    @property
    def work(self) -> int:
        """Coefficients of all rows together."""
        return sum(self.counts) * self.elements

    def chunks(self, memory: float, both: bool, copies: float = 1.0) -> Iterator[Chunk]:
        """Chunks of at most `memory` MiB (at least one row each); both: each row and then the same of the other side.

        Entries of the batch with about as many rows go together, since all are padded to the largest count.
        copies: how many times the memory of a plain pass theirs takes.
        """
        most = memory * 2**20 / (LIVE * copies * self.elements * self.sign.dtype.itemsize)
        order = sorted(range(len(self.counts)), key=lambda entry: -self.counts[entry])
        start = 0
        while start < len(order) and (count := self.counts[order[start]]) > 0:
            sides = 2 if both else 1
            end = min(start + max(1, int(most / (sides * count))), len(order))
            end = self._alike(order, start, end)
            entries = None if end - start == len(order) else torch.tensor(order[start:end], device=self.mask.device)
            size = max(1, int(most / (sides * (end - start))))
            for first in range(0, count, size):
                yield self._rows(entries, slice(first, min(first + size, count)), both)
            start = end

    def _alike(self, order: list[int], start: int, end: int) -> int:
        """Where the entries end that have nearly as many rows as the first, or that are few."""
        least = PADDING * self.counts[order[start]]
        cut = bisect_left(order, True, start, end, key=lambda entry: self.counts[entry] < least)
        worthwhile = start + WORTHWHILE_ELEMENTS // (self.counts[order[start]] * self.elements)
        return max(cut, min(worthwhile, end), start + 1)

    def _rows(self, entries: Tensor | None, some: slice, both: bool) -> Chunk:
        flat, sign = self.mask.flatten(1), self.sign.flatten(1)
        if entries is not None:
            flat, sign = flat[entries], sign[entries]
        ordered = torch.sort(flat.to(torch.uint8), dim=1, descending=True, stable=True)
        index = ordered.indices[:, some].T.contiguous()
        chosen, sign = ordered.values[:, some].T.bool(), sign.T.gather(0, index)
        if both:
            index, chosen = index.repeat_interleave(2, 0), chosen.repeat_interleave(2, 0)
            sign = torch.stack([sign, -sign], 1).flatten(0, 1)
        return Chunk(entries, index, sign, chosen, self.windows, self.start)


def _sides(interval: Interval) -> tuple[Tensor, Tensor]:
    return interval.lower, interval.upper


def slices(total: int, per_row: int, dtype: torch.dtype, memory: float) -> Iterator[slice]:
    """Slices of range(total) whose passes take at most `memory` MiB, at least one row each.

    per_row: coefficients of a row over the widest node.
    """
    most = memory * 2**20 / (LIVE * dtype.itemsize)
    size = max(1, int(most / max(per_row, 1)))
    for start in range(0, total, size):
        yield slice(start, min(start + size, total))


def widest(graph: Graph, last: int) -> int:
    """The largest number of coordinates of a node up to index `last`."""
    return max(torch.Size(node.shape).numel() for node in graph.nodes[: last + 1])


def windowed(graph: Graph, index: int, window: Window) -> bool:
    """Whether rows over a window of node `index` should stay windows: its op has a rule, and the node is far larger."""
    node = graph.nodes[index]
    if node.op is None:
        return True
    cells = torch.Size(node.shape[1:]).numel()
    return 2 * torch.Size(window.extent).numel() <= cells and node.op.reach(window, shapes(graph, index)) is not None


def shapes(graph: Graph, index: int) -> list[tuple[int, ...]]:
    """The shapes of a node's inputs."""
    return [graph.nodes[i].shape for i in graph.nodes[index].inputs]


def row_elements(graph: Graph, node: int) -> tuple[int, bool]:
    """The most coefficients that a unit row of `node` has over an earlier node, and whether windows help."""
    shape = graph.nodes[node].shape
    if len(shape) < 2 or not windowed(graph, node, Window.cell(shape[1:])):
        return widest(graph, node), False
    return max(elements for _, elements in reached(graph, node)), True


def phases(graph: Graph, node: int) -> list[Window]:
    """Windows of one cell that together cover a node behind a transposed convolution; none where they do not help.

    A unit row there reads windows whose place depends on the cell's remainder by the stride; of cells with one
    remainder they move evenly. Behind several such ops the remainder is that by the product of their strides.
    """
    grid, best, found = graph.nodes[node].shape[1:], float("inf"), list[Window]()
    for period in _periods(graph, node):
        if not all(p < n for p, n in zip(period, grid, strict=True)):
            break
        cells, one = tuple(-(-n // p) for n, p in zip(grid, period, strict=True)), (1,) * len(grid)
        starts = [Window(cells, period, tuple(-f for f in first), one) for first in product(*map(range, period))]
        total = sum(size for _, size in reached(graph, node, starts[0]))
        if total < best:
            best, found = total, starts
    return found if len(found) > 1 else []


def _periods(graph: Graph, node: int) -> Iterator[tuple[int, ...]]:
    """Products of the strides of the transposed convolutions that are met on the way back, over as many axes."""
    period = (1,) * len(graph.nodes[node].shape[1:])
    while node:
        op = graph.nodes[node].op
        if isinstance(op, ConvTranspose):
            if len(op.stride) != len(period):
                return
            period = tuple(s * p for s, p in zip(op.stride, period, strict=True))
            yield period
        node = graph.nodes[node].inputs[0]


def _member(mask: Tensor, start: Window) -> Tensor:
    """Which cells of [batch, channels, *size] a start's windows are: [*size] of bool."""
    inside = mask.new_ones(mask.shape[2:])
    for axis, (period, offset) in enumerate(zip(start.stride, start.offset, strict=True)):
        cells = torch.arange(mask.shape[2 + axis], device=mask.device) % period == -offset
        inside &= cells.reshape(-1, *(1,) * (mask.dim() - 3 - axis))
    return inside


def _place(cells: Tensor, size: tuple[int, ...], start: Window) -> Tensor:
    """Cells of a node, counted through, as cells of a start's grid."""
    total = torch.zeros_like(cells)
    for axis, (period, count) in enumerate(zip(start.stride, start.grid, strict=True)):
        along = cells // prod(size[axis + 1 :]) % size[axis]
        total = total * count + along // period
    return total


def reached(graph: Graph, node: int, start: Window | None = None) -> Iterator[tuple[int, int]]:
    """The nodes that a unit row of `node` passes through, and over how many of their coordinates it goes.

    start: the window it begins with, by default its own cell. Dense where no window is left: where the node's own is,
    where an op has no rule, where strides differ.
    """
    shape = graph.nodes[node].shape
    pending: dict[int, Window | None] = {node: start or (Window.cell(shape[1:]) if len(shape) > 1 else None)}
    for index in range(node, -1, -1):
        if index not in pending:
            continue
        window, here = pending.pop(index), graph.nodes[index]
        if window is not None and not windowed(graph, index, window):
            window = None
        yield index, here.shape[0] * prod(window.extent) if window is not None else prod(here.shape)
        sources = here.op.reach(window, shapes(graph, index)) if here.op and window is not None else None
        for position, source in enumerate(here.inputs):
            part = sources[position] if sources else None
            other = pending.get(source, part)
            pending[source] = part.union(other) if part is not None and other is not None else None
