"""Values in order along an axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op
from provenn.verifier.ops.increments import Increments, Scope, jointly, larger
from provenn.verifier.ops.lines import chord
from provenn.verifier.ops.monotone import require_axes
from provenn.verifier.ops.pull import weighed


@dataclass(frozen=True, eq=False)
class Ranked:
    """The k-th largest of a set is at most  slope x_cell + intercept,  each [batch, *sets, k].

    cell: a permutation of the set; open: where the line is not exact.
    """

    cell: Tensor
    slope: Tensor
    intercept: Tensor
    open: Tensor

    @classmethod
    def above(cls, lower: Tensor, upper: Tensor) -> Ranked:
        """From boxes [batch, *sets, cells]: cells in falling order of their upper bounds.

        The k-th largest value is at most the largest of any n - k + 1 of them: of those with the smallest upper
        bounds. That is at most max(x_c, m) with c the first of these and m the upper bound of the second: convex, so
        its chord lies above. Where l_c >= m the line is x_c itself; if the boxes are disjoint that is so for all k.
        """
        high, cell = upper.sort(dim=-1, descending=True, stable=True)
        low = lower.gather(-1, cell)
        others = torch.cat([high[..., 1:], low[..., -1:]], -1)
        is_open, zero = others > low, torch.zeros_like(low)
        # Decided ranks take the chord from 0 to 1, of slope 1: no quotient of roundings, no nan gradient.
        first, left, last = (torch.where(is_open, e, p) for e, p in ((low, zero), (others, zero), (high, zero + 1)))
        return cls(cell, *chord(first, left, last, last), is_open)

    @classmethod
    def below(cls, lower: Tensor, upper: Tensor) -> Ranked:
        """The same from below: the k-th largest is minus the (n - k + 1)-th largest of -x."""
        mirror = cls.above(-upper, -lower)
        cell, slope, intercept, is_open = (
            t.flip(-1) for t in (mirror.cell, mirror.slope, mirror.intercept, mirror.open)
        )
        return cls(cell, slope, -intercept, is_open)

    def pull(self, rows: Tensor) -> Tensor:
        """Rows over ranks [spec, batch, *sets, k] -> rows over cells."""
        rank = self.cell.argsort(-1)
        return (rows * self.slope).gather(-1, rank.expand(rows.shape))


@dataclass(frozen=True)
class Sort(Op):
    """The values along an axis in falling order, or in rising order."""

    axis: int
    descending: bool

    onnx = ("TopK",)

    def __post_init__(self) -> None:
        require_axes((self.axis,), "Sort")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sorted values."""
        return inputs[0].sort(dim=self.axis + 1, descending=self.descending).values

    def interval(self, *inputs: Interval) -> Interval:
        """The sorted lower and the sorted upper bounds: exact, since every rank is monotone in every value."""
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The cells of sets whose order is not decided."""
        lower, upper = self._last(inputs[0].lower), self._last(inputs[0].upper)
        is_open = (Ranked.above(lower, upper).open | Ranked.below(lower, upper).open).any(-1, keepdim=True)
        return ((is_open & (lower < upper)).movedim(-1, self.axis + 1),)

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Batcher's network of comparators, every layer of it one layer of units.

        Tighter than one multiplier a group (Pauli et al. 2024), which is what equal multipliers amount to.
        """
        lanes = inputs[0].through(self._last)
        count = lanes.like.shape[-1]
        for layer in comparators(count):
            first, second = (torch.tensor(ends) for ends in zip(*layer, strict=True))
            high, low = larger(lanes.at(first), lanes.at(second), scope)
            high, low = (high, low) if self.descending else (low, high)
            kept = torch.tensor([i for i in range(count) if i not in {*sum(layer, ())}], dtype=torch.int64)
            order = torch.cat([first, second, kept]).argsort()
            parts = (high, low, lanes.at(kept)) if len(kept) else (high, low)
            lanes = jointly(lambda *x: torch.cat(x, -1), parts).at(order)
        return lanes.through(lambda x: x.movedim(-1, self.axis + 1))

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """For every rank one line below and one above (see `Ranked`)."""
        lower, upper = self._last(inputs[0].lower), self._last(inputs[0].upper)
        below, above = Ranked.below(lower, upper), Ranked.above(lower, upper)

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            rows = coefficients.movedim(self.axis + 2, -1)
            rows = rows if self.descending else rows.flip(-1)
            positive, negative = rows.clamp(min=0), rows.clamp(max=0)
            pulled = below.pull(positive) + above.pull(negative)
            constant = weighed(positive, below.intercept) + weighed(negative, above.intercept)
            return (pulled.movedim(-1, self.axis + 2),), constant

        return pull

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the lines of `linearize`."""
        return self.linearize(inputs)(coefficients)

    def _last(self, x: Tensor) -> Tensor:
        return x.movedim(self.axis + 1, -1)


def comparators(size: int) -> list[list[tuple[int, int]]]:
    """Layers of pairs (i, j), i < j, whose exchanges sort `size` values.   Source: Batcher 1968, odd-even merging."""
    layers = []
    p = 1
    while p < size:
        k = p
        while k >= 1:
            starts = range(k % p, size - k, 2 * k)
            pairs = [(i + j, i + j + k) for j in starts for i in range(min(k, size - j - k))]
            layers.append([(i, j) for i, j in pairs if i // (2 * p) == j // (2 * p)])
            k //= 2
        p *= 2
    return layers
