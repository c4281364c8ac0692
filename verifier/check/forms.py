"""Intervals of many small parts at once: affine forms in a few symbols, and rows pulled back through these alone.

Over a small part most ReLUs are affine. Symbols s are the inputs and the values y = phi(z) of all other neurons; the
value v of every step has c [n], G [g, n], e [n] (and a last axis: the parts) such that, for all inputs of the part,
    |v - (c + s G)| <= e.                                                                                            (9)
Affine: c' = W c + b and G' = W G; with |s| <= S and q = |c| + S |G| both err by at most gamma (|W| q + |b|), and
e' = |W| e + that. An active ReLU keeps its form, an inactive one has the form 0; a symbol's own form is exact.
An underflow in G costs UNDERFLOW |s| besides. Rows c + s G are pulled back through one step's symbols after the other,
the last first, by (8): nu y >= a z + s_min, where z has a form in the symbols before. Rounding as in (4), a symbol z
adding |a| (|c| + S |G| + e + |z|) + |nu| |y|.
Float32 executions: e grows by delta of every step that keeps a form, and delta of (1a) for symbols.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from provenn.verifier.check.functions import RELU
from provenn.verifier.check.network import Affine, Elementwise, Index
from provenn.verifier.check.passes import Parts, Passes, Relaxed, free, relaxed
from provenn.verifier.check.rounding import UNDERFLOW, Array, down, require, unit, up
from provenn.verifier.check.rows import Bounds, Box

BATCH, MEMORY = 128, 2**28  # parts at once, and bytes of their forms


class Form(NamedTuple):
    """(9): c [n, parts], G [g, n, parts], e [n, parts]."""

    constant: Array
    matrix: Array
    error: Array


class Block(NamedTuple):
    """Symbols of one step [k, parts]: forms of their arguments, lines, and what |a| multiplies in T."""

    form: Form
    line: Relaxed
    size: Array


def of(values: NDArray[Any], some: Index) -> NDArray[Any]:
    """Entries some [k, parts] of values [.., n, parts]."""
    return np.take_along_axis(values, some if values.ndim == 2 else some[None], axis=-2)


def first(marked: NDArray[np.bool_]) -> Index:
    """Indices [k, parts] that hold all marked ones of [n, parts]."""
    return np.argsort(~marked, axis=0, kind="stable")[: marked.sum(axis=0).max(initial=0)]


def refined(passes: Passes, parts: Parts) -> dict[int, Box]:
    """Proved intervals [p, n] of every bounded step, from those of `passes`, computed again for each part alone.

    Raises: CertificateRejected for networks with max-pooling, or too large for it.
    """
    steps = passes.bounds.network.steps
    values = sum(step.length for step in steps if isinstance(step, Elementwise))
    alive = values + 4 * max(step.length for step in steps)  # of what has a form at the same time: arguments, and steps
    batch = min(BATCH, MEMORY // (8 * (values + steps[0].length) * alive))
    require(batch, "tree", "the network is too large for bounds of parts")
    each = [_refined(passes, parts.of(slice(s, s + batch))) for s in range(0, len(parts.table), batch)]
    return {i: Box(*(np.concatenate(sides) for sides in zip(*(b[i] for b in each), strict=True))) for i in each[0]}


def _refined(passes: Passes, parts: Parts) -> dict[int, Box]:
    """Front to back: the ranges of the forms, then rows for the neurons that these leave open."""
    passes.bounds.tick()
    steps, needed = passes.bounds.network.steps, set(passes.boxes)
    for i in range(max(needed), 0, -1):
        needed.update(steps[i].sources if i in needed else ())
    relus = {step.sources[0] for step in steps if isinstance(step, Elementwise) and step.function is RELU}
    boxes = {}
    for i in passes.boxes:  # [n, parts]
        sides = (np.broadcast_to(side, (len(parts.table), side.shape[1])).T for side in passes.box(i, parts))
        boxes[i] = Box(*(np.array(side, order="C") for side in sides))
    forms = Forms(passes.bounds, boxes[0])
    last = {source: i for i in sorted(needed) for source in steps[i].sources}
    for i in sorted(needed - {0}):
        forms.add(i, boxes.get(steps[i].sources[0]))
        if i in boxes:
            (lower, upper), reach = boxes[i], forms.range(i)
            lower, upper = np.fmax(lower, reach.lower), np.fmin(upper, reach.upper)
            open_ = (lower < 0) & (upper > 0) if i in relus else lower < upper
            some = first(open_)
            low, high = (np.where(of(open_, some), row, np.nan) for row in forms.bounds(i, some))
            np.put_along_axis(lower, some, np.fmax(of(lower, some), low), axis=0)
            np.put_along_axis(upper, some, np.fmin(of(upper, some), high), axis=0)
            boxes[i] = Box(lower, upper)
        forms.forms = {j: form for j, form in forms.forms.items() if last.get(j, 0) > i}
    return {i: Box(box.lower.T, box.upper.T) for i, box in boxes.items() if i}


def _sums(weights: Array, matrix: Array) -> Array:
    """Part by part: [g, p], [g, k, p] -> [k, p]."""
    return np.asarray(np.einsum("gp,gkp->kp", weights[: len(matrix)], matrix))


def _products(first: Array, second: Array) -> Array:
    """Part by part: [g, s, p], [s, k, p] -> [g, k, p]."""
    first, second = (np.ascontiguousarray(np.moveaxis(each, 2, 0)) for each in (first, second))
    return np.moveaxis(first @ second, 0, 2)


class Forms:
    """Forms of the steps so far, over parts with these inputs [n, p]."""

    def __init__(self, region: Bounds, inputs: Box) -> None:
        self.region, self.symbols, self.blocks = region, inputs, list[Block]()
        zero = np.zeros_like(inputs.lower)
        self.forms = {0: Form(zero, np.eye(len(zero))[..., None] + zero[:1], zero)}
        self._unit = unit(region.network.roundings + 4 * len(zero))

    @property
    def _lost(self) -> Array:
        """Underflow: a coefficient that is too small by up to n 2^-1074 multiplies a symbol."""
        return up(UNDERFLOW * (1 + self.symbols.largest.sum(axis=0)))

    def add(self, index: int, box: Box | None) -> None:
        """The form of a step; of a function, over the interval [n, p] of its argument."""
        step, extra = self.region.network.steps[index], self.region.penalty(index)
        delta, count = np.zeros((step.length, 1)) if extra is None else extra[:, None], len(self.symbols.lower)
        sources = []
        for source in step.sources:
            c, G, e = self.forms[source]
            more = count - len(G)
            sources.append(Form(c, np.pad(G, ((0, more), (0, 0), (0, 0))) if more else G, e))
        whole = Form(*(np.concatenate(each, axis=-2) for each in zip(*sources, strict=True)))
        form = whole if len(sources) > 1 else sources[0]
        if isinstance(step, Affine):
            self.forms[index] = self._affine(step, form, delta)
        elif isinstance(step, Elementwise) and box:
            self.forms[index] = self._function(step, form, box, delta)
        require(index in self.forms, "tree", f"{step.name}: max-pooling is not bounded again for parts")

    def _affine(self, step: Affine, form: Form, delta: Array) -> Form:
        (c, G, e), W = form, step.matrix
        q = np.abs(c) + _sums(self.symbols.largest, np.abs(G))
        error = step.magnitude @ (e + self._unit * (q + e) + 2.0**-1000)
        error = up((error + self._unit * step.bias_size[:, None] + delta) * (1 + 2 * self._unit) + self._lost)
        pulled = np.stack([W @ row for row in G]) if scipy.sparse.issparse(W) else np.matmul(W, G)
        return Form(W @ c + step.bias[:, None], pulled, error)

    def _function(self, step: Elementwise, form: Form, box: Box, delta: Array) -> Form:
        (c, G, e), relu, count = form, step.function is RELU, len(self.symbols.lower)
        open_ = (box.lower < 0) & (box.upper > 0) if relu else np.ones(box.lower.shape, bool)
        some, on = first(open_), ((box.lower >= 0) & ~open_) * 1.0
        ends = Box(of(box.lower, some), of(box.upper, some))
        line = relaxed(step.function, ends)
        radius = of(np.broadcast_to(delta, c.shape), some) + line.radius
        low, high = (extreme.reduce(line.values) for extreme in (np.minimum, np.maximum))
        ranges = zip(self.symbols, (down(low - radius), up(high + radius)), strict=True)
        asked = Form(of(c, some), of(G, some), of(e, some))
        size = np.abs(asked.constant) + _sums(self.symbols.largest, np.abs(asked.matrix)) + asked.error
        self.blocks.append(Block(asked, line._replace(radius=up(radius)), size + ends.largest))
        self.symbols = Box(*(np.concatenate(sides) for sides in ranges))
        self._unit = unit(self.region.network.roundings + 4 * len(self.symbols.lower))
        new = np.zeros((count + len(some), *c.shape))
        np.multiply(G, on, out=new[:count])
        new[count + np.arange(len(some))[:, None], some, np.arange(c.shape[1])] = of(open_, some)
        return Form(c * on, new, np.where(open_, 0.0, up(e * on + delta)))

    def range(self, index: int) -> Box:
        """Symbols in their own intervals."""
        (c, G, e), size = self.forms[index], self.symbols.largest
        middle = 0.5 * self.symbols.lower + 0.5 * self.symbols.upper
        wide = up(np.maximum(self.symbols.upper - middle, middle - self.symbols.lower)) + 2 * self._unit * size
        centre = c + _sums(middle, G)
        reach = _sums(wide, np.abs(G)) + e + 2 * self._unit * np.abs(c)
        reach = up(reach * (1 + 2 * self._unit) + UNDERFLOW)
        return Box(down(centre - reach), up(centre + reach))

    def bounds(self, index: int, some: Index) -> Box:
        """Proved intervals of v_j, j in some [k, p], by rows for v_j and -v_j."""
        (c, G, e), largest = (of(values, some) for values in self.forms[index]), self.symbols.largest
        rows, total = np.concatenate([G, -G], axis=1), np.concatenate([c - e, -c - e])
        terms = np.tile(np.abs(c) + e + _sums(largest, np.abs(G)), (2, 1))
        for (f, F, h), line, size in reversed(self.blocks):
            nu, rows = rows[len(F) : len(F) + len(f)], rows[: len(F)]
            if len(nu):
                a, least = free(nu, line.spread())
                total += least.sum(axis=0) + _sums(f, a) - _sums(h, np.abs(a))
                terms += _sums(size, np.abs(a)) + _sums(largest[len(F) :], np.abs(nu))
                rows += _products(F, a)
        total += _sums(self.symbols.lower, np.maximum(rows, 0.0)) + _sums(self.symbols.upper, np.minimum(rows, 0.0))
        low, high = np.split(down(total - up(self._unit * terms + self._lost)), 2)
        return Box(low, -high)
