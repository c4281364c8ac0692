"""Rigorous bounds: intervals forward, rows of linear coefficients backward.

A row C is pulled from a step back to the input. With A_t the coefficients of step t's value v_t, every step obeys
    A_t v_t >= sum over its sources x of B_x v_x + k,      exactly, in real arithmetic:                              (2)
affine: B = A W, k = A b; nonlinear: the lines proved for each neuron (functions.py), B = A^+ slope_below + A^-
slope_above and k likewise. So C v >= A_0 v_0 + sum of k, and A_0 v_0 is smallest at a corner of the box.

Rounding. B is computed as nu, |nu - B| <= gamma |A_t| |W|, and it multiplies x, |x| <= m (its interval):
    |(nu - B) x| <= gamma |A_t| (|W| m),       and for k:  gamma |A_t| |b|                                           (3)
so ONE vector per step, network and box carries all errors: size_t = |W| m + |b| (affine), |slope| m + |intercept|
(nonlinear), m (where two pulled coefficients are added; the input). Per row
    E = unit(N) T + UNDERFLOW (1 + sum of m),   T = sum_t |A_t| size_t.                                              (4)
N = 2 n + 4 K + 64 for vectors of length n and K steps: a number passes at most n roundings in its product, 8 from
coefficients known to 8 u, one a step in the running sum and a few at the end; T, size and m add n + K more.
Float32 executions: v_t is the executed value, and (2) loses |A_t| delta_t, which joins E (single.py).
NaN and infinities are never hidden: they end in a bound that is NaN or -inf, which proves nothing.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.sparse

from provenn.verifier.check.network import Affine, Elementwise, Index, Matrix, MaxPool, Network, Step, dense
from provenn.verifier.check.rounding import UNDERFLOW, Array, CertificateRejected, down, require, unit, up
from provenn.verifier.check.single import executions, penalty

Semantics = Literal["real", "float32"]
Free = Callable[[int, Elementwise, Array], tuple[Array, Array]]  # step, A_step -> (A_source, k) of (2)
CHUNK_BYTES = 2**25  # memory for one array of coefficients; about eight are alive at once


class Box(NamedTuple):
    """lower <= v <= upper, each [n] float64."""

    lower: Array
    upper: Array

    @property
    def largest(self) -> Array:
        """The largest |v|."""
        return np.maximum(np.abs(self.lower), np.abs(self.upper))


class Ball(NamedTuple):
    """|x - c|_norm <= radius, norm 1 or 2, for some c within 2 u |centre_i| + 2^-1074 of centre in each coordinate."""

    centre: Array
    radius: float
    norm: int

    def smallest(self, a: Array) -> tuple[Array, Array]:
        """Min of a x = a c - radius |a|_dual, as computed, and the sum of absolute values behind it: [r], [r]."""
        # underflow of squares costs the 2-norm less than 2^-500
        dual = np.abs(a).max(axis=1) if self.norm == 1 else np.sqrt(np.einsum("rn,rn->r", a, a)) + 2.0**-500
        reach = dual * self.radius
        return a @ self.centre - reach, np.abs(a) @ (np.abs(self.centre) + 2.0**-1000) + reach


class Lines(NamedTuple):
    """(2) for a nonlinear step: slopes, diagonals [n] or matrices [n, source], or none; intercepts, size of (3) [n]."""

    slopes: tuple[Matrix, Matrix] | None
    below: Array
    above: Array
    size: Array


class Bounds:
    """What is proved of one network over one region: the boxes of its steps, claimed ones and those that follow."""

    def __init__(self, network: Network, box: Box, ball: Ball | None = None, semantics: Semantics = "real") -> None:
        self.network = network
        self._executions = executions(network) if semantics == "float32" else None
        box, self.ball = rounded(box, ball) if self._executions else (box, ball)
        self.boxes: dict[int, Box] = {0: box}
        self._penalties: dict[int, Array] = {}
        self._sizes: dict[int, Array] = {}
        self._slopes: Mapping[str, Array] = {}
        self._cache: dict[tuple[int, bool], Lines] = {}
        self._unit = unit(network.roundings)
        self.tick: Callable[[], object] = _nothing  # called now and then: it may raise to stop

    def accept(self, index: int, box: Box) -> None:
        """Takes a proved box.   Raises: CertificateRejected if a later step was bounded already."""
        require(index >= max(self.boxes), "claims", "they are not in the order of the network")
        self.boxes[index] = box
        for known in (self._cache, self._penalties, self._sizes):
            known.clear()

    def choose(self, slopes: Mapping[str, Array]) -> None:
        """Lower slopes [n] by step name for a ReLU's unstable neurons, instead of its own choice; any are sound."""
        self._slopes = slopes
        self._cache.clear()

    def box(self, index: int) -> Box:
        """The interval of a step: the one accepted, or interval arithmetic from its sources'."""
        needed = {index}
        for i in range(index, 0, -1):
            needed.update(self.network.steps[i].sources if i in needed and i not in self.boxes else ())
        for i in sorted(needed - self.boxes.keys()):
            step, extra = self.network.steps[i], self.penalty(i)
            box = self._interval(step, [self.boxes[source] for source in step.sources])
            self.boxes[i] = box if extra is None else Box(down(box.lower - extra), up(box.upper + extra))
        return self.boxes[index]

    def penalty(self, index: int) -> Array | None:
        """Delta [n] of single.py for the region's values, rounded up by 2^-20 of it; None where arithmetic is real."""
        if self._executions and index not in self._penalties:
            step, largest = self.network.steps[index], [np.zeros(0)]
            largest += [self.box(source).largest for source in step.sources]
            self._penalties[index] = penalty(step, self._executions[index], np.concatenate(largest))
        return self._penalties.get(index)

    def _interval(self, step: Step, boxes: list[Box]) -> Box:
        """The step's range over boxes of its sources, rounded outward.

        Affine: W c + b -/+ |W| r with the box within [c - r, c + r]; errors gamma (|W| |c| + |b|) and 8 u |W| r.
        Without b a sum of products >= 0 is >= 0, whatever the rounding.
        """
        if isinstance(step, Affine):
            lower, upper = np.concatenate([b.lower for b in boxes]), np.concatenate([b.upper for b in boxes])
            centre = 0.5 * lower + 0.5 * upper
            radius = up(np.maximum(upper - centre, centre - lower))
            reach = step.magnitude @ (radius + self._unit * (np.abs(centre) + radius) + 2.0**-1000)
            reach = up((reach + self._unit * step.bias_size) * (1 + 2 * self._unit) + UNDERFLOW)
            value = step.matrix @ centre + step.bias
            low, high, negative, positive = down(value - reach), up(value + reach), 1.0 * (lower < 0), 1.0 * (upper > 0)
            if not step.bias_size.any() and not (negative * positive).all():
                every, lean = abs(step.signs) @ (negative + positive), step.signs @ (negative - positive)
                low = np.where(every + lean == 0, np.maximum(low, 0.0), low)
                high = np.where(every - lean == 0, np.minimum(high, 0.0), high)
            return Box(low, high)
        if isinstance(step, Elementwise):
            return Box(*step.function(boxes[0].lower, boxes[0].upper).range())
        if isinstance(step, MaxPool):
            return Box(*(bound.max(axis=1) for bound in _windows(step, boxes[0])))
        raise CertificateRejected("model", f"step {step.name} has no interval rule")

    def _linear(self, index: int, constant: bool) -> Lines:
        """(2) for a nonlinear step; where `constant`, its range only."""
        step = self.network.steps[index]
        box = self.box(index if constant else step.sources[0])
        if constant:
            return Lines(None, box.lower, box.upper, box.largest)
        if isinstance(step, MaxPool):
            return _pooled(step, box)
        if not isinstance(step, Elementwise):
            raise CertificateRejected("model", f"step {step.name} has no linear rule")
        enclosure = step.function(box.lower, box.upper)
        (below, low), (above, high) = enclosure.line(1), enclosure.line(-1)
        if step.name in self._slopes:
            below = np.where((box.lower < 0) & (box.upper > 0), self._slopes[step.name], below)
            low = enclosure.intercept(below, 1)
        size = np.maximum(np.abs(below), np.abs(above)) * box.largest + np.maximum(np.abs(low), np.abs(high))
        return Lines((below, above), low, high, size + 2.0**-1000)

    def neuron_bounds(self, index: int, neurons: Index, sign: int) -> Array:
        """Proved lower bounds of v_j (sign 1) or -v_j (sign -1) for some neurons j of a step: [r] -> [r]."""
        shape = (len(neurons), self.network.steps[index].length)
        entries = (np.full(len(neurons), float(sign)), (np.arange(len(neurons)), neurons))
        return self.lower_bounds(index, scipy.sparse.csr_array(entries, shape))

    def lower_bounds(self, index: int, rows: Matrix, constant: bool = False) -> Array:
        """Proved lower bounds of rows v over the region, v the value of step `index`: [r, n] -> [r].

        rows are exact floats. constant: of nonlinear steps only the range is used (method "interval").
        """
        chunk = max(1, CHUNK_BYTES // (8 * max(step.length for step in self.network.steps[: index + 1])))
        parts, sparse = [np.zeros(0)], isinstance(self.network.steps[index], Affine)
        for start in range(0, rows.shape[0], chunk):
            some: Any = rows[start : start + chunk]
            parts.append(self.pulled(index, some if sparse else dense(some), constant))
        return np.concatenate(parts)

    def take(self, index: int, claimed: Box, known: Box, by_rows: bool, claim: int) -> None:
        """Proves the claimed box of a step, by rows what the known one does not imply, and accepts it.

        Raises: CertificateRejected.
        """
        name, (lower, upper) = self.network.steps[index].name, claimed
        require((lower <= upper).all(), claim, f"{name}: a lower bound lies above the upper bound")
        for sign, side, least, proved in ((1, "lower", lower, known.lower), (-1, "upper", -upper, -known.upper)):
            wrong = np.flatnonzero(~(proved >= least))
            if by_rows:
                wrong = wrong[~(self.neuron_bounds(index, wrong, sign) >= least[wrong])]
            require(not len(wrong), claim, f"{name}: the {side} bound of neuron {wrong[:1]} is too tight")
        self.accept(index, claimed)

    def pulled(
        self, index: int, rows: Matrix, constant: bool = False, free: Free | None = None, box: Box | None = None
    ) -> Array:
        """(2) to (4) for one chunk of rows, as in `lower_bounds`; sparse ones of an affine step only.

        free: how elementwise steps are passed, instead of by the region's lines; box [r, n]: where each row's inputs
        lie, instead of in the region's box.
        """
        self.tick()
        coefficients: dict[int, Any] = {index: rows}
        total, terms, largest = np.zeros(rows.shape[0]), np.zeros(rows.shape[0]), self.boxes[0].largest.sum()
        for i in filter(coefficients.__contains__, range(index, 0, -1)):
            step, a, extra = self.network.steps[i], coefficients.pop(i), self.penalty(i)
            if extra is not None:
                terms += abs(a) @ (extra / self._unit)  # E then holds |A_t| delta_t
            if isinstance(step, Affine):
                total += a @ step.bias
                terms += abs(a) @ self._size(i)
                ends = np.cumsum([self.network.steps[source].length for source in step.sources])[:-1]
                whole = dense(a @ step.matrix)
                pulled = np.split(whole, ends, axis=1) if len(ends) else [whole]
            elif free and isinstance(step, Elementwise):
                terms += np.abs(a) @ self._size(i)
                new, least = free(i, step, a)
                total += least
                terms += np.abs(new) @ self.box(step.sources[0]).largest
                pulled = [new]
            else:
                if (i, constant) not in self._cache:
                    self._cache[i, constant] = self._linear(i, constant)
                line, positive, negative = self._cache[i, constant], np.maximum(a, 0.0), np.minimum(a, 0.0)
                total += positive @ line.below + negative @ line.above
                terms += np.abs(a) @ line.size
                pulled = [_times(positive, line.slopes[0]) + _times(negative, line.slopes[1])] if line.slopes else []
            for source, new in zip(step.sources, pulled, strict=not constant):
                largest += self.box(source).largest.sum()
                if source in coefficients:  # |fl(a + b) - (a + b)| <= u |fl(a + b)|, times m
                    new = coefficients[source] + new
                    terms += np.abs(new) @ self.box(source).largest
                coefficients[source] = new
        first = coefficients.get(0, np.zeros((len(total), self.network.steps[0].length)))
        return self._concretized(first, total, terms, largest, box or self.boxes[0])

    def _size(self, index: int) -> Array:
        """What |A_t| multiplies in T: (3), and underflow, of an affine step; the largest value of a function."""
        if index not in self._sizes:
            step = self.network.steps[index]
            if isinstance(step, Affine):
                size = step.magnitude @ np.concatenate([self.box(s).largest for s in step.sources]) + step.bias_size
            else:
                size = self.box(index).largest
            self._sizes[index] = size + 2.0**-1000
        return self._sizes[index]

    def _concretized(self, a: Array, total: Array, terms: Array, largest: float, box: Box) -> Array:
        """Sum of constants + min of A_0 v_0 - E, rounded down: the better of the box's and the ball's."""
        corner = _dots(np.maximum(a, 0.0), box.lower) + _dots(np.minimum(a, 0.0), box.upper)
        minima = [(corner, np.abs(a) @ self.boxes[0].largest), *([self.ball.smallest(a)] if self.ball else [])]
        errors = [up(self._unit * (terms + size) + 2 * UNDERFLOW * (1 + largest)) for _, size in minima]
        bounds = [down(down(total + m) - e) for (m, _), e in zip(minima, errors, strict=True)]
        return np.asarray(np.maximum.reduce(bounds))


def rounded(box: Box, ball: Ball | None) -> tuple[Box, Ball | None]:
    """The region with every point of it rounded to float32: a network is executed on such."""
    lower, upper = (side.astype(np.float32).astype(np.float64) for side in box)
    moved = np.linalg.norm(box.largest, ball.norm) * 2.0**-24 * (1 + 2.0**-20) + 2.0**-100 if ball else 0.0
    wider = Box(np.minimum(box.lower, lower), np.maximum(box.upper, upper))
    return wider, ball._replace(radius=float(np.nextafter(ball.radius + moved, np.inf))) if ball else None


def _dots(rows: Array, values: Array) -> Array:
    """Inner products with one vector or with one a row."""
    return np.asarray(rows @ values if values.ndim == 1 else np.einsum("rn,rn->r", rows, values))


def _nothing() -> None:
    """Goes on."""


def _times(rows: Array, factor: Matrix) -> Array:
    return np.asarray(rows @ factor if scipy.sparse.issparse(factor) else rows * factor)


def _windows(step: MaxPool, box: Box) -> tuple[Array, Array]:
    """Bounds of every window's entries: [length, window], -inf where there is none."""
    absent = step.windows < 0
    return np.where(absent, -np.inf, box.lower[step.windows]), np.where(absent, -np.inf, box.upper[step.windows])


def _pooled(step: MaxPool, box: Box) -> Lines:
    """Below: max(x) >= x_i for any i, here the one with the largest lower bound.

    Above: max(x) = x_i where that bound is at least all other upper bounds, else max(x) <= the largest upper bound.
    """
    lower, upper = _windows(step, box)
    best, each = lower.argmax(axis=1), np.arange(step.length)
    others = upper.copy()
    others[each, best] = -np.inf
    dominates = lower[each, best] >= others.max(axis=1)
    chosen, shape = step.windows[each, best], (step.length, len(box.lower))
    one, same = np.ones(step.length), dominates.astype(np.float64)
    slopes = tuple(scipy.sparse.csr_array((entries, (each, chosen)), shape) for entries in (one, same))
    ceiling = np.where(dominates, 0.0, upper.max(axis=1))
    return Lines((slopes[0], slopes[1]), np.zeros(step.length), ceiling, 2 * box.largest[chosen] + np.abs(ceiling))
