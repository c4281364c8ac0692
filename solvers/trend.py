"""Pairs of inputs that differ in one coordinate, between which an output rises, or falls: witnesses against monotony.

Lines along the coordinate are drawn through points of the region; of the values on each the steepest fall and rise
between any two count. A pair is only a witness if float64 and the executor, on the user's own file, agree on its sign.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provenn.solvers.base import Executor
from provenn.verifier.graph import Graph
from provenn.verifier.spec import InputSet

POINTS, PLACES, ROUNDS, KEPT, TRIED = 256, 17, 3, 16, 8
"""Lines of a round, points on each, rounds, lines from which the next round goes on, pairs that are executed."""

CELLS = 1 << 22
"""Values that the network may compute at once."""

NEAR = 0.1
"""Share of the region by which a round departs from the last one's lines, and that lines beside a point take."""

INSIDE = 1 - 1e-5
"""Share of a ball in which lines end: float32 rounds them."""

SIGNIFICANT = 1e-7
"""Share of the outputs' size that a change has to exceed: less may be rounding."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two inputs [*input] float32, the second larger in one coordinate, and by what a row of outputs changes."""

    first: NDArray[np.float32]
    second: NDArray[np.float32]
    change: float


@dataclass(frozen=True, eq=False)
class Lines:
    """The search along one coordinate of one region; values: all that some coordinates take, in order."""

    graph: Graph
    executor: Executor
    inputs: InputSet
    column: int
    seed: int = 0
    values: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    def pairs(self, row: Tensor, near: NDArray[np.float64] | None = None) -> tuple[Pair | None, Pair | None]:
        """(a pair between which row . f falls, one between which it rises), of many lines or of those near a point.

        row [outputs] float64; near [inputs].
        """
        lower, upper = (torch.as_tensor(_single(end, way)) for end, way in zip(self.inputs.inner, (1, -1), strict=True))
        if not bool((lower <= upper).all()) or not bool(lower[self.column] < upper[self.column]):
            return None, None
        generator = torch.Generator().manual_seed(self.seed)
        count = max(4, min(POINTS, CELLS // (PLACES * sum(torch.Size(n.shape).numel() for n in self.graph.nodes))))
        unit = torch.rand((count, len(lower)), generator=generator, dtype=torch.float64)
        points, reach = torch.lerp(lower.double(), upper.double(), unit), 1.0
        if near is not None:
            reach = NEAR
            points = torch.tensor(near) + reach**2 * (unit - 0.5) * (upper - lower)
            points[0] = torch.tensor(near)
        found: list[Pair | None] = [None, None]
        for _ in range(ROUNDS):
            first, second, change = self._lines(self._inside(points, lower, upper), row, reach, (lower, upper))
            best = torch.cat([change.argsort(dim=0)[:KEPT, 0], change.argsort(dim=0, descending=True)[:KEPT, 1]])
            for side, sign in enumerate((-1, 1)):
                order = (sign * change[:, side]).argsort(descending=True)[:TRIED]
                ends = (first[order, side], second[order, side])
                found[side] = _better(found[side], self._executed(*ends, row, sign), sign)
            noise = torch.randn((count, len(lower)), generator=generator, dtype=torch.float64)
            reach = reach * NEAR**0.5
            points = points[best.repeat(1 + count // len(best))[:count]] + NEAR * reach * noise * (upper - lower)
        return found[0], found[1]

    def _inside(self, points: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
        """Into the box, to values that are taken, and into the ball if there is one."""
        points = torch.minimum(torch.maximum(points, lower.double()), upper.double())
        for column, taken in self.values.items():
            known = torch.tensor(taken, dtype=torch.float64)
            points[:, column] = known[(points[:, column, None] - known).abs().argmin(dim=1)]
        ball = self._ball
        if ball is None:
            return points
        centre, radius = ball
        away = points - centre
        length = torch.linalg.vector_norm(away, ord=self._norm, dim=1, keepdim=True)
        inner = centre + away * (radius / length.clamp(min=1e-30)).clamp(max=1)
        return torch.minimum(torch.maximum(inner, lower.double()), upper.double())

    @property
    def _norm(self) -> float:
        return torch.inf if self.inputs.ball is None else self.inputs.ball.norm

    @cached_property
    def _ball(self) -> tuple[Tensor, float] | None:
        """Centre and radius, a little less, of the ball that cuts the box."""
        ball = self.inputs.ball
        if ball is None:
            return None
        return torch.tensor([float(x) for x in ball.centre], dtype=torch.float64), float(ball.radius) * INSIDE

    def _ends(self, points: Tensor, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Where lines through points leave the region: [lines, 1] each."""
        low, high = (end[self.column].double().expand(len(points), 1) for end in ends)
        ball = self._ball
        if ball is None:
            return low, high
        centre, radius = ball
        others = (points - centre).abs()
        others[:, self.column] = 0
        used = torch.linalg.vector_norm(others, ord=self._norm, dim=1, keepdim=True) / max(radius, 1e-300)
        room = radius * (1 - used**self._norm).clamp(min=0) ** (1 / self._norm)
        return torch.maximum(low, centre[self.column] - room), torch.minimum(high, centre[self.column] + room)

    def _lines(self, points: Tensor, row: Tensor, reach: float, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        """Of every line the pairs of steepest fall and of rise: first, second [lines, 2, inputs], change [lines, 2]."""
        places = self._places(points, reach, ends)
        lines = points.float()[:, None].repeat(1, places.shape[1], 1)
        lines[..., self.column] = places.float().clamp(*(float(end[self.column]) for end in ends))
        values = self._values(lines.flatten(0, 1), row).reshape(places.shape)
        firsts, seconds, changes = [], [], []
        for sign in (-1, 1):
            signed = sign * values
            least, start = signed.cummin(dim=1)
            gain, end = (signed - least).max(dim=1)
            begin = start.gather(1, end[:, None])[:, 0]
            each = torch.arange(len(points))
            firsts.append(lines[each, begin])
            seconds.append(lines[each, end])
            changes.append(sign * gain)
        return torch.stack(firsts, 1), torch.stack(seconds, 1), torch.stack(changes, 1)

    def _places(self, points: Tensor, reach: float, ends: tuple[Tensor, Tensor]) -> Tensor:
        """Of every line the coordinates where it is looked at, in order: [lines, places]."""
        low, high = self._ends(points, ends)
        if self.column in self.values:
            return torch.tensor(self.values[self.column], dtype=torch.float64).expand(len(points), -1)
        share = torch.linspace(-1, 1, PLACES, dtype=torch.float64)
        places = points[:, self.column, None] + reach * (high - low) * share
        return torch.minimum(torch.maximum(places, low), high)

    def _values(self, points: Tensor, row: Tensor) -> Tensor:
        with torch.no_grad():
            return self.graph.forward(points.double().reshape(-1, *self.graph.input_shape)).flatten(1) @ row

    def _executed(self, first: Tensor, second: Tensor, row: Tensor, sign: int) -> Pair | None:
        """The largest change of this sign among pairs of the exact region, as the executor sees it."""
        shape, found = self.graph.input_shape, None
        for ends in zip(first, second, strict=True):
            x, y = (end.numpy().astype(np.float32) for end in ends)
            exact = self._values(torch.stack(ends), row)
            size = float(row.abs().sum() * max(1e-30, float(exact.abs().max())))
            if sign * float(exact[1] - exact[0]) <= SIGNIFICANT * size:
                continue
            if x[self.column] >= y[self.column] or not (self.inputs.contains(x) and self.inputs.contains(y)):
                continue
            outputs = self.executor.run(np.stack([x.reshape(shape), y.reshape(shape)])).astype(np.float64)
            change = float((outputs[1] - outputs[0]).ravel() @ row.numpy())
            if np.isfinite(change) and sign * change > SIGNIFICANT * size:
                found = _better(found, Pair(x.reshape(shape), y.reshape(shape), change), sign)
        return found


def _better(one: Pair | None, other: Pair | None, sign: int) -> Pair | None:
    """The one with the larger change."""
    pairs: Sequence[Pair] = [pair for pair in (one, other) if pair is not None]
    return max(pairs, key=lambda pair: sign * pair.change, default=None)


def _single(values: NDArray[np.float64], way: int) -> NDArray[np.float32]:
    """float32, rounded up (1) or down (-1)."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
    wrong = near < values if way > 0 else near > values
    return np.where(wrong, np.nextafter(near, np.float32(way * np.inf)), near)
