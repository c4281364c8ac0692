"""Rows, each over a part of the region of its own: one pass proves thousands of parts.

A part is what lies in its own input box and, for every split on its path (value <= t or value >= t), on its side. At an
elementwise step with coefficients nu of its values, ANY floats a may become those of its arguments z, because
    nu phi(z) >= a z + s,   s = min_k (nu p_k - a z_k) - |nu| delta        by (1a) on the part's own interval.       (8)
Nothing about a needs trust: it comes from lines, from stored slopes, and from the multipliers beta of splits, which
are subtracted (value >= t) or added (value <= t), so that the bound is the one of beta-CROWN.

Rounding: (3), (4) with the magnitudes m of the region, which hold for its parts. s is at most |nu| P + |a| m, P the
largest absolute value of phi with its delta; both are terms of T, and N allows for the few roundings of s. An interval
that splits make empty holds no value, so the part no input: any bound is proved, and +inf is what is said.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.functions import RELU, Function
from provenn.verifier.check.network import Elementwise, Index, Matrix
from provenn.verifier.check.rounding import Array
from provenn.verifier.check.rows import CHUNK_BYTES, Bounds, Box

CACHE_BYTES, FEWEST = 2**18, 64  # of one array of coefficients, for speed; rows of a chunk, where memory allows
SPLIT = np.dtype([("step", "i4"), ("value", "i4"), ("neuron", "i4"), ("side", "i4"), ("threshold", "f8")])
"""The elementwise step whose argument is split, the step that is this argument (0: no split), the neuron; side 1: value
>= threshold, -1: value <= threshold."""

Slopes = Mapping[int, tuple[Index, NDArray[np.uint8]]]
"""ReLU step -> columns [c], and [r, c]: 255 times the lower slopes of every row's open neurons there."""


class Parts(NamedTuple):
    """Rows [p] of the input boxes, rows [p] of the other steps' boxes, and paths of SPLIT [p, depth]."""

    inputs: Index
    table: Index
    path: NDArray[Any]

    def of(self, some: Index | slice) -> "Parts":
        """Some of them."""
        return Parts(self.inputs[some], self.table[some], self.path[some])


class Passes:
    """Rows over parts of a region; boxes: proved intervals [any, n] of the input (0) and of the bounded steps."""

    def __init__(self, bounds: Bounds, boxes: Mapping[int, Box]) -> None:
        self.bounds, self.boxes = bounds, boxes

    def box(self, index: int, parts: Parts) -> Box:
        """Intervals of a step over parts: [p, n], or [1, n] where all have the same."""
        given, which = self.boxes[index], parts.table if index else parts.inputs
        rows, places = np.nonzero(parts.path["value"] == index) if index else (which[:0], which[:0])
        if len(given.lower) == 1 and not len(rows):
            return given
        box, split = Box(given.lower[which], given.upper[which]), parts.path[rows, places]
        for side, cut, bound in ((1, np.maximum, box.lower), (-1, np.minimum, box.upper)):
            on = split["side"] == side
            cut.at(bound, (rows[on], split["neuron"][on]), split["threshold"][on])
        return box

    def lower_bounds(
        self, index: int, matrix: Matrix, parts: Parts, slopes: Slopes | None = None, betas: Array | None = None
    ) -> Array:
        """Proved lower bounds of rows v over their parts, v the value of step `index`: [r, n], r parts -> [r].

        betas [r, depth]: multipliers of the splits on the paths.
        """
        width = 8 * max(step.length for step in self.bounds.network.steps[: index + 1])
        chunk = max(1, min(max(FEWEST, CACHE_BYTES // width), CHUNK_BYTES // width))
        found = [np.zeros(0)]
        for start in range(0, matrix.shape[0], chunk):
            some = slice(start, start + chunk)
            own = {i: (columns, values[some]) for i, (columns, values) in (slopes or {}).items()}
            found.append(self._pulled(index, matrix[some], parts.of(some), own, None if betas is None else betas[some]))
        return np.concatenate(found)

    def _pulled(self, index: int, matrix: Matrix, parts: Parts, slopes: Slopes, betas: Array | None) -> Array:
        """One chunk."""
        inputs = self.box(0, parts)
        empty = (inputs.lower > inputs.upper).any(axis=1)

        def passed(i: int, step: Elementwise, nu: Array) -> tuple[Array, Array]:
            """(8)"""
            nonlocal empty
            box = self.box(step.sources[0], parts)
            empty = empty | (box.lower > box.upper).any(axis=1)
            line = relaxed(step.function, box)
            if i in slopes:
                (columns, own), below = slopes[i], np.broadcast_to(line.below, nu.shape).copy()
                open_ = ((box.lower < 0) & (box.upper > 0))[:, columns]
                below[:, columns] = np.where(open_, own / 255, below[:, columns])
                line = line._replace(below=below)
            a, low = free(nu, line)
            if betas is not None:
                rows, places = np.nonzero(parts.path["step"] == i)
                split = parts.path[rows, places]
                np.subtract.at(a, (rows, split["neuron"]), split["side"] * betas[rows, places])
                low = least(nu, a, line)
            return a, low.sum(axis=1)

        rows: Any = matrix
        rows = rows.toarray() if scipy.sparse.issparse(rows) else rows
        inputs = Box(*(np.broadcast_to(side, (len(rows), side.shape[1])) for side in inputs))
        bounds = self.bounds.pulled(index, rows, free=passed, box=inputs)
        return np.where(empty, np.inf, bounds)


def whole(bounds: Bounds, parts: int, end: int) -> tuple[Passes, Parts]:
    """The whole region as so many parts, with the intervals of bounded steps before `end`."""
    steps = [0, *(i for i in bounds.network.bounded.values() if i < end)]
    boxes = {i: Box(bounds.box(i).lower[None], bounds.box(i).upper[None]) for i in steps}
    zero = np.zeros(parts, np.int64)
    return Passes(bounds, boxes), Parts(zero, zero, np.zeros((parts, 0), SPLIT))


class Relaxed(NamedTuple):
    """(1a): points, values, radius; slopes of a line below and of one above."""

    points: list[Array]
    values: list[Array]
    radius: Array
    below: Array
    above: Array

    def spread(self) -> "Relaxed":
        """[k, p] as [k, 1, p]."""
        (points, values), rest = ([x[:, None] for x in each] for each in self[:2]), (x[:, None] for x in self[2:])
        return Relaxed(points, values, *rest)


def relaxed(function: Function, box: Box) -> Relaxed:
    """Over [lower, upper] of any shape."""
    if function is RELU:
        points = [box.lower, np.clip(0.0, box.lower, box.upper), box.upper]
        values = [np.maximum(z, 0.0) for z in points]
        above = values[2] / (values[2] + np.maximum(-box.lower, 0.0) + 2.0**-1000)
        return Relaxed(points, values, np.zeros_like(above), (box.upper > -box.lower).astype(np.float64), above)
    enclosure = function(*box)
    return Relaxed(enclosure.points, enclosure.values, enclosure.radius, *(enclosure.line(s)[0] for s in (1, -1)))


def free(nu: Array, line: Relaxed) -> tuple[Array, Array]:
    """(8): a, the slope below times nu where nu >= 0, that above where nu < 0; and s."""
    a = nu * (0.5 * (line.below + line.above)) + np.abs(nu) * (0.5 * (line.below - line.above))
    return a, least(nu, a, line)


def least(nu: Array, a: Array, line: Relaxed) -> Array:
    """(8): s."""
    low = nu * line.values[0] - a * line.points[0]
    for z, p in zip(line.points[1:], line.values[1:], strict=True):
        np.minimum(low, nu * p - a * z, out=low)
    return low - np.abs(nu) * line.radius if line.radius.any() else low
