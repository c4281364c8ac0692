"""Linear forms that read a small window of a node only, as the rows of a convolution's output do.

A row belongs to one cell p of its target's grid; over an earlier node with axes [channels, *size] it is zero outside
a box of `extent` cells that begins at  stride p - offset. Cells of the window may lie outside the node.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor

Ints = tuple[int, ...]

SHARED = 2
"""Rows a cell from which it is faster to lay out the windows of all cells first (measured)."""


@dataclass(frozen=True)
class Window:
    """Where the rows of a target of `grid` cells can be nonzero over one node, axis by axis."""

    grid: Ints
    stride: Ints
    offset: Ints
    extent: Ints

    @classmethod
    def cell(cls, grid: Ints) -> Window:
        """Over the target itself: one cell."""
        ones = (1,) * len(grid)
        return cls(grid, ones, (0,) * len(grid), ones)

    def union(self, other: Window) -> Window | None:
        """The smallest window that contains both; None where two ways from one node to another differ in stride."""
        if self.stride != other.stride:
            return None
        offset = tuple(max(a, b) for a, b in zip(self.offset, other.offset, strict=True))
        ends = [
            max(e - o, f - p) for e, o, f, p in zip(self.extent, self.offset, other.extent, other.offset, strict=True)
        ]
        return replace(self, offset=offset, extent=tuple(e + o for e, o in zip(ends, offset, strict=True)))

    def views(self, x: Tensor) -> Tensor:
        """All windows of x [batch, channels, *size], zeros outside: [batch, cells, channels, *extent]."""
        rank = len(self.grid)
        starts = zip(self.stride, self.grid, self.offset, self.extent, strict=True)
        last = [s * (g - 1) - o + e for s, g, o, e in starts]
        x = padded(x, self.offset, tuple(e - n for e, n in zip(last, x.shape[2:], strict=True)))
        for axis in range(rank):
            x = x.unfold(2 + axis, self.extent[axis], self.stride[axis])
        order = [0, *range(2, 2 + rank), 1, *range(2 + rank, 2 + 2 * rank)]
        return x.permute(order).reshape(x.shape[0], -1, x.shape[1], *self.extent)


@dataclass(frozen=True, eq=False)
class Windowed:
    """Rows over one node: values [spec, batch, channels, *extent] at the windows of cells [spec, batch].

    inside: whether the values are known to be zero outside the node.
    """

    window: Window
    cells: Tensor
    values: Tensor
    inside: bool

    def look(self, x: Tensor) -> Tensor:
        """Every row's window of x [batch, channels, *size]: [spec, batch, channels, *extent], zeros outside."""
        if x.shape[0] == 1 or len(self.cells) >= SHARED * prod(self.window.grid):
            views = self.window.views(x)
            entry = torch.arange(len(x), device=x.device) * views.shape[1]
            chosen = views.flatten(0, 1).index_select(0, (self.cells + entry).flatten())
            return chosen.reshape(*self.cells.shape, *views.shape[2:])
        numbers = torch.arange(1, x[0].numel() + 1, device=x.device).reshape(1, *x.shape[1:])
        # Number 0 stands for what lies outside the node.
        places = self.window.views(numbers)[0].index_select(0, self.cells.flatten())
        flat = torch.nn.functional.pad(x.flatten(1), (1, 0)).expand(*self.cells.shape, -1)
        return flat.gather(2, places.reshape(*self.cells.shape, -1)).reshape(*self.cells.shape, *places.shape[1:])

    def around(self, x: Tensor) -> Tensor:
        """`look`, the value of each channel's first cell standing for what lies outside."""
        size = tuple(x.shape[2:])
        first = x.flatten(2)[..., :1].reshape(1, *x.shape[:2], *(1,) * len(size))
        return self.look(x) + (1 - self.look(x.new_ones((1, 1, *size)))) * first

    def cleared(self, size: Ints) -> Windowed:
        """The same rows, their values outside a node of that size set to zero."""
        if self.inside:
            return self
        ones = self.values.new_ones((1, 1, *size))
        return replace(self, values=self.values * self.look(ones), inside=True)

    def plus(self, other: Windowed) -> Windowed | None:
        """The sum of two rows over the same node; None where their windows differ in stride."""
        if self.window == other.window:
            return replace(self, values=self.values + other.values, inside=self.inside and other.inside)
        union = self.window.union(other.window)
        if union is None:
            return None
        values = self._enlarged(union) + other._enlarged(union)
        return Windowed(union, self.cells, values, self.inside and other.inside)

    def dense(self, shape: Ints) -> Tensor:
        """Coefficients over the whole node: [spec, batch, *shape]."""
        size = torch.Size(shape).numel()
        numbers = torch.arange(1, size + 1, device=self.values.device).reshape(1, *shape)
        # Number 0 collects what lies outside the node.
        places = self.look(numbers).flatten(2)
        rows = self.values.new_zeros((*self.cells.shape, size + 1)).scatter(2, places, self.values.flatten(2))
        return rows[..., 1:].reshape(*self.cells.shape, *shape)

    def _enlarged(self, union: Window) -> Tensor:
        pads: list[int] = []
        for axis in reversed(range(len(union.extent))):
            before = union.offset[axis] - self.window.offset[axis]
            pads += [before, union.extent[axis] - self.window.extent[axis] - before]
        return torch.nn.functional.pad(self.values, pads)


def padded(x: Tensor, begin: Ints, end: Ints, value: float = 0.0) -> Tensor:
    """The tensor x with `begin` and `end` cells of `value` added around its last axes (cropped where negative)."""
    pairs = [n for pair in zip(reversed(begin), reversed(end), strict=True) for n in pair]
    # Added first: what is cropped at one end may have been added at the other.
    for some in ([max(n, 0) for n in pairs], [min(n, 0) for n in pairs]):
        x = torch.nn.functional.pad(x, some, value=value) if any(some) else x
    return x
