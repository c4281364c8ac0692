"""The largest derivative in a region, by branch and bound: of a row c J a norm, or one entry, with a proof of parts.

A part is bounded by the kernel's own code (verifier.certificate.parts), so what the search ends with is what is proved.
Splits are chosen by what they lead to: for a few promising ones both halves are bounded, and the one is kept that
leaves the least.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.parts import Part, Partition, Split
from provenn.verifier.check.functions import Function
from provenn.verifier.check.jacobian import entries, norm, row_bounds
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.network import Affine, Elementwise
from provenn.verifier.check.passes import free, relaxed
from provenn.verifier.check.rows import Bounds
from provenn.verifier.check.specification import Vector

Numbers = NDArray[np.float64]

TOGETHER, SHORT, LONG = 8, 0.1, 0.4
"""Parts that are split at once, at most: more than before where that took seconds below SHORT, fewer above LONG."""

NEURONS, INPUTS = 3, 2
"""Splits that are tried, of arguments of functions and of inputs."""

FAINT = 1e-4
"""Shares that count a little in the choice of splits."""

CLOSE = 1e-9
"""Share by which an open part's bound may exceed that of a settled one, and not be worth splitting."""

NARROW = 1e-9
"""Share of its largest value below which an interval is not split."""


@dataclass(frozen=True)
class Goal:
    """What is to be bounded of a row c: its norm dual to `inward` over the scale, or sign times entry `column`."""

    row: Vector
    inward: str = "inf"
    scale: Vector = ()
    column: int | None = None
    sign: int = 1

    def upper(self, found: Bounds) -> float:
        """An upper bound, proved; infinite if there is none."""
        if self.column is None:
            return norm([found], self.scale, self.inward, "each")
        box = entries(found, np.array([self.column]))
        value = float(box.upper[0] if self.sign > 0 else -box.lower[0])
        return value if np.isfinite(value) else np.inf

    def direction(self, found: Bounds) -> tuple[int, Numbers]:
        """The step of the adjoint network, and the row over it, whose smallest value decides."""
        output = found.network.output
        if self.column is None:
            return output, -np.array([[1 / float(s) for s in self.scale] or [1.0] * len(found.box(output).lower)])
        index = found.network.steps[output].sources[0]
        return index, -self.sign * np.eye(1, found.network.steps[index].length, self.column)


@dataclass(eq=False)
class Open:
    """A part that may be split further, its bound, and what is known of the adjoint network there."""

    part: Part
    upper: float
    found: Bounds | None


@dataclass(eq=False)
class Search:
    """Branch and bound for one goal. settled: the largest bound of parts that are not split further: it is exact there,
    or they are too small.
    """

    partition: Partition
    units: Units
    goal: Goal
    settled: float = -np.inf
    together: int = 1
    _last: Part | None = None
    _heap: list[tuple[float, int, Open]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self._push(self._opened(self.partition.root))

    @property
    def upper(self) -> float:
        """What is proved so far; -infinity where nothing lies in the region."""
        return max(self.settled, self._highest)

    @property
    def exact(self) -> bool:
        """Whether more time would not help."""
        return self._highest <= self.settled + CLOSE * abs(self.settled)

    def promising(self) -> Numbers | None:
        """An input in the part where the derivative may be largest; None if nothing lies in the region."""
        part = self._last if self.exact or not self._heap else self._heap[0][2].part
        return None if part is None else self.partition.inside(part)

    @property
    def _highest(self) -> float:
        return -self._heap[0][0] if self._heap else -np.inf

    def run(self, enough: float, over: Callable[[], bool]) -> float:
        """Splits until the bound is at most `enough`, cannot fall any more, or the time is over: the bound.

        Raises: CertificateRejected where the kernel does not bound parts.
        """
        while self._highest > enough and not self.exact and not over():
            some: list[tuple[Open, list[Split]]] = []
            while len(some) < self.together and self._highest > enough and not self.exact:
                each = heapq.heappop(self._heap)[2]
                splits = self._splits(each)
                if splits:
                    some.append((each, splits))
                else:
                    self._settle(each)
            if some:
                start = time.monotonic()
                self._divide(some)
                taken = time.monotonic() - start
                self.together = min(TOGETHER, 2 * self.together) if taken < SHORT else self.together
                self.together = max(1, self.together // 2) if taken > LONG else self.together
        return self.upper

    def _divide(self, some: Sequence[tuple[Open, list[Split]]]) -> None:
        trials = [(number, split) for number, (_, splits) in enumerate(some) for split in splits]
        halves = self.partition.halves([some[number][0].part for number, _ in trials], [split for _, split in trials])
        best: dict[int, tuple[tuple[float, float], Split, list[Open]]] = {}
        for (number, split), pair in zip(trials, halves, strict=True):
            found = [self._opened(half) for half in pair]
            uppers = sorted((each.upper for each in found), reverse=True)
            key = (uppers[0], uppers[1])
            if number not in best or key < best[number][0]:
                best[number] = (key, split, found)
        for number, (_, split, (first, second)) in best.items():
            self.partition.divide(some[number][0].part, split, (first.part, second.part))
            for each in (first, second):
                if not self.partition.emptied(each.part):
                    self._push(each)

    def _settle(self, each: Open) -> None:
        if each.upper > self.settled:
            self.settled, self._last = each.upper, each.part

    def _push(self, each: Open) -> None:
        heapq.heappush(self._heap, (-each.upper, next(self._numbers), each))

    def _opened(self, part: Part) -> Open:
        if part.bounds is None:
            return Open(part, -np.inf, None)
        slopes = self.units.slopes_over(part.bounds)
        with np.errstate(all="ignore"):
            found = row_bounds(self.units.adjoint.over(slopes), self.goal.row, "crown", part.bounds.tick)
            return Open(part, self.goal.upper(found), found)

    def _splits(self, each: Open) -> list[Split]:
        """Of the neurons whose gains loosen the bound most, and of inputs that move it most; none if it is exact."""
        bounds, found = each.part.bounds, each.found
        assert bounds is not None
        assert found is not None
        scored: list[tuple[float, Split]] = []
        opened = False
        for step, gap in self._gaps(found).items():
            opened |= bool((gap > 0).any())
            read = self.units.network.steps[step]
            if read.name not in self.partition.steps or not isinstance(read, Elementwise):
                continue
            box, place = bounds.box(read.sources[0]), 1 + self.partition.steps.index(read.name)
            for neuron in map(int, np.argsort(-gap)[:NEURONS]):
                threshold = _threshold(read.function, float(box.lower[neuron]), float(box.upper[neuron]))
                if gap[neuron] > 0 and threshold is not None:
                    scored.append((float(gap[neuron]), Split(place, neuron, threshold)))
        chosen = [split for _, split in sorted(scored, key=lambda pair: -pair[0])[:NEURONS]]
        return chosen + self._inputs(bounds, found) if opened else []

    def _gaps(self, found: Bounds) -> dict[int, Numbers]:
        """By function of the network, how far the lines of its gains lie apart, times what that counts in the bound.

        A little counts also where a gain's argument has one sign, and what the bound may come to read in parts.
        """
        weights: dict[int, Numbers] = {}

        def passed(i: int, step: Elementwise, nu: Numbers) -> tuple[Numbers, Numbers]:
            weights[i] = np.abs(nu[0])
            a, low = free(nu, relaxed(step.function, found.box(step.sources[0])))
            return a, low.sum(axis=1)

        index, row = self.goal.direction(found)
        found.pulled(index, row, free=passed)
        for place, weight in _reaches(found, index, np.abs(row[0])).items():
            weights[place] = weights.get(place, 0.0) + FAINT * weight
        gaps: dict[int, Numbers] = {}
        for place, step in self.units.adjoint.gains.items():
            gain = found.network.steps[place]
            assert isinstance(gain, Elementwise)
            box = found.box(gain.sources[0])
            a, b = gain.function.slopes(*box)
            low, high = np.minimum(box.lower, 0.0), np.maximum(box.upper, 0.0)
            apart = -low * high / np.maximum(high - low, np.finfo(np.float64).tiny) + FAINT * (high - low)
            gaps[step] = weights[place] * (b - a) * apart
        return gaps

    def _inputs(self, bounds: Bounds, found: Bounds) -> list[Split]:
        box, first = bounds.box(0), found.network.steps[found.network.output].sources[0]
        moves = (box.upper - box.lower) * found.box(first).largest
        middle = (0.5 * box.lower + 0.5 * box.upper).astype(np.float32).astype(np.float64)
        able = (box.lower < middle) & (middle < box.upper) & (box.upper - box.lower > NARROW * box.largest)
        some = [int(n) for n in np.argsort(-moves)[:INPUTS] if able[n]]
        return [Split(0, n, float(middle[n])) for n in some]


def _reaches(found: Bounds, index: int, row: Numbers) -> dict[int, Numbers]:
    """By step how much a row over step `index` may move at most per change of its values."""
    reaches = {i: np.zeros(step.length) for i, step in enumerate(found.network.steps)}
    reaches[index] = row
    for i in range(index, 0, -1):
        step = found.network.steps[i]
        if isinstance(step, Elementwise):
            a, b = step.function.slopes(*found.box(step.sources[0]))
            reaches[step.sources[0]] += reaches[i] * np.maximum(np.abs(a), np.abs(b))
        elif isinstance(step, Affine):
            ends = np.cumsum([found.network.steps[source].length for source in step.sources])[:-1]
            for source, part in zip(step.sources, np.split(reaches[i] @ step.magnitude, ends), strict=True):
                reaches[source] += part
    return reaches


def _threshold(function: Function, lower: float, upper: float) -> float | None:
    """Where to split an interval: at the kink that is nearest to its middle, else there; None if it is too narrow."""
    middle = 0.5 * lower + 0.5 * upper
    inside = sorted((abs(kink - middle), kink) for kink in function.kinks if lower < kink < upper)
    chosen = float(np.float32(inside[0][1] if inside else middle))
    narrow = upper - lower <= NARROW * max(abs(lower), abs(upper))
    return None if narrow or not lower < chosen < upper else chosen
