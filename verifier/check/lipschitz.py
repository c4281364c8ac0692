"""Lipschitz claims: |C_rows (f(x) - f(y))|_2 <= upper |s * (x - y)| for some rows of the statement, by (14).

l2 (and l1, where |.| is larger): D_i = upper^2 s_i^2, rounded down. l-infinity: any D >= 0 with sum D_i / s_i^2 <=
upper^2, for then
    |C dy|^2 <= sum D_i dx_i^2 <= sum (D_i / s_i^2) max_i |s_i dx_i|^2.
Multipliers are given by step, one for every neuron (those of neurons that need none are not read); of a MaxPool, for
the units of all its stages, one stage after the other, windows in order.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np

from provenn.verifier.check.bordered import Bordered, borders, ending
from provenn.verifier.check.functions import RELU, Slopes
from provenn.verifier.check.jacobian import Adjoint, entries, leaves, norm, row_bounds
from provenn.verifier.check.manifest import Tensors
from provenn.verifier.check.network import Affine, Elementwise, Implicit, Index, MaxPool, Network, Step
from provenn.verifier.check.quadratic import COORDINATES, Increments, Quadratic, needed
from provenn.verifier.check.rounding import Array, float_below, require
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Jacobian, Lipschitz, Vector, number
from provenn.verifier.check.tensors import sums, within_range
from provenn.verifier.check.torus import Torus, read_grids


def staged(network: Network) -> tuple[Network, dict[int, int], dict[int, list[int]]]:
    """The network with MaxPool as comparators; old step -> its new number; old nonlinear step -> its units' steps.

    Stage j = 1, 2, .. of a pool is m <- m + relu(x_j - m), m the maximum so far, for windows with j + 1 entries.
    """
    steps: list[Step] = []
    place, units = dict[int, int](), dict[int, list[int]]()
    for i, step in enumerate(network.steps):
        step = replace(step, sources=tuple(place[source] for source in step.sources))
        stages = [step] if not isinstance(step, MaxPool) else _running(step, steps)
        units[i] = [len(steps) + j for j, s in enumerate(stages) if not isinstance(s, Affine) and s.sources]
        steps += stages
        place[i] = len(steps) - 1
    return replace(network, steps=tuple(steps), output=place[network.output]), place, units


def cells(pool: MaxPool) -> Index:
    """[n, most of them]: the entries of every window in order, -1 behind them."""
    absent = np.argsort(pool.windows < 0, axis=1, kind="stable")
    found = np.take_along_axis(pool.windows, absent, axis=1)
    return found[:, (found >= 0).any(axis=0)]


def _running(pool: MaxPool, before: list[Step]) -> list[Step]:
    """The stages: the first entries; then for j = 1, 2, .. the difference, the relu, the maximum so far."""
    entries, (source,), n, start = cells(pool), pool.sources, pool.length, len(before)
    width, steps = before[source].length, list[Step]()
    steps.append(sums(f"{pool.name}.0", (source,), entries[:, :1], np.ones((n, 1)), width))
    for j, column in enumerate(entries.T[1:], 1):
        rows, at, name = np.flatnonzero(column >= 0), start + len(steps), f"{pool.name}.{j}"
        both, own = np.stack([column[rows], width + rows], axis=1), np.full(n, -1)
        own[rows] = n + np.arange(len(rows))
        signs = np.broadcast_to([1.0, -1.0], both.shape)
        steps.append(sums(f"{name}.difference", (source, at - 1), both, signs, width + n))
        steps.append(Elementwise(f"{name}.relu", len(rows), (at,), RELU))
        outer = np.stack([np.arange(n), own], axis=1)
        steps.append(sums(name, (at - 1, at + 1), outer, np.ones((n, 2)), n + len(rows)))
    return steps


class Units:
    """A network's units: their slopes (1c) everywhere, or over the proved boxes of `bounds`, and what follows.

    lengths: how many multipliers each step has, by its name; only steps that the output depends on are there.
    Raises: CertificateRejected for implicit layers over a region.
    """

    def __init__(self, network: Network, bounds: Bounds | None = None) -> None:
        self.network, place, numbers = staged(network)
        used = [i for i in needed(self.network) if isinstance(self.network.steps[i], Elementwise | Implicit)]
        self.steps = {network.steps[i].name: [j for j in each if j in used] for i, each in numbers.items()}
        self.steps = {name: each for name, each in self.steps.items() if each}
        self.lengths = {name: sum(self.network.steps[j].length for j in each) for name, each in self.steps.items()}
        implicit = any(isinstance(self.network.steps[j], Implicit) for j in used)
        require(not (implicit and bounds), "model", "a network with implicit layers has no bounds over a region")
        self._used, self._staged = used, (network, place, numbers)
        self.slopes = self.slopes_over(bounds)

    def slopes_over(self, bounds: Bounds | None) -> dict[int, Slopes]:
        """(1c) by step, over the boxes of the network that was given, or everywhere."""
        inner, found = bounds and _within(self.network, bounds, *self._staged), dict[int, Slopes]()
        for j in self._used:
            step = self.network.steps[j]
            assert isinstance(step, Elementwise | Implicit)
            everywhere = Box(np.full(step.length, -np.inf), np.full(step.length, np.inf))
            found[j] = step.function.slopes(*(inner.box(step.sources[0]) if inner else everywhere))
        return found

    @cached_property
    def increments(self) -> Increments:
        """For LipSDP.   Raises: CertificateRejected if some interval is not known, or there are too many units."""
        with np.errstate(all="ignore"):
            return Increments(self.network, self.slopes)

    @cached_property
    def adjoint(self) -> Adjoint:
        """For jacobian.py.   Raises: CertificateRejected for implicit layers."""
        return Adjoint(self.network)

    def quadratic(
        self, rows: Sequence[Vector], multipliers: Mapping[str, Array], claim: int | str = ""
    ) -> Quadratic | Bordered:
        """(14) for rows of C, ready for any D; (17) if there are more than COORDINATES.

        Raises: CertificateRejected for multipliers that do not fit.
        """
        found, matrix = self.chosen(multipliers, claim, {}), _floats(rows)
        if self.increments.end > COORDINATES:
            parts = borders(self.increments.layers, found) | ending(self.increments, matrix)
            return Bordered(self.increments, parts)
        return Quadratic(self.increments, matrix, found)

    def torus(self, rows: Sequence[Vector], multipliers: Mapping[str, Array], claim: Mapping[str, Any]) -> Torus:
        """(19) for rows of C, a claim's maps and torus.   Raises: CertificateRejected."""
        steps = {self.network.steps[0].name: [0]} | self.steps
        grids, torus = read_grids(claim, steps)
        found = self.chosen(multipliers, claim["id"], {i: grid.rows for i, grid in grids.items()})
        return Torus(self.increments, grids, torus, found, ending(self.increments, _floats(rows)))

    def chosen(self, multipliers: Mapping[str, Array], claim: int | str, rows: Mapping[int, int]) -> dict[int, Array]:
        """Multipliers of units by step, of rows for those that have such.   Raises: CertificateRejected."""
        layers, found = self.increments.layers, dict[int, Array]()
        missing = [name for name, each in self.steps.items() if any(j in layers for j in each)]
        known = set(missing) <= multipliers.keys() <= self.steps.keys()
        require(known, claim, "its multipliers are not those of the network's nonlinear steps")
        for name, values in multipliers.items():
            *ends, count = np.cumsum([rows.get(j, self.network.steps[j].length) for j in self.steps[name]]).tolist()
            fits = values.dtype.kind == "f" and len(values) == count and within_range(values)
            require(fits and (values >= 0).all(), claim, f"{name}: not {count} multipliers >= 0 in range")
            parts = zip(self.steps[name], np.split(values.astype(np.float64), ends), strict=True)
            found |= {j: part if j in rows else part[layers[j].units] for j, part in parts if j in layers}
        return found


def _floats(rows: Sequence[Vector]) -> Array:
    return np.array([[float(c) for c in row] for row in rows]).reshape(len(rows), -1)


def _within(
    inner: Network, bounds: Bounds, network: Network, place: Mapping[int, int], units: Mapping[int, list[int]]
) -> Bounds:
    """The bounds of the network with stages: proved boxes, and of every maximum so far that of its entries."""
    found = Bounds(inner, bounds.boxes[0], bounds.ball)
    found.tick = bounds.tick
    found.boxes |= {place[i]: box for i, box in bounds.boxes.items()}
    for i, step in enumerate(network.steps):
        if isinstance(step, MaxPool) and units[i]:
            entries, (lower, upper) = cells(step), bounds.box(step.sources[0])
            for j, unit in enumerate(units[i], 1):
                some = np.where(entries < 0, entries[:, :1], entries)[:, :j]  # those before stage j
                found.boxes[unit - 2] = Box(lower[some].max(axis=1), upper[some].max(axis=1))
    return found


def metric(upper: Fraction, scale: Vector, inputs: int) -> Array:
    """D of an l2 or l1 claim."""
    return np.array([float_below((upper * s) ** 2) for s in scale or (Fraction(1),) * inputs])


Chunks = Callable[[Mapping[str, Any]], Iterable[Tensors]]  # a claim -> the chunks of its tree


def rows_everywhere(
    units: Units, bounds: Bounds | None, rows: Sequence[Vector], claim: Mapping[str, Any], chunks: Chunks
) -> Iterator[list[Bounds]]:
    """What is proved of rows c J over the region, or over one leaf after the other of the claim's tree.

    Raises: CertificateRejected, at the end too if leaves are missing.
    """
    method, tick = claim["method"], bounds.tick if bounds else _nothing
    if not claim["chunks"]:
        made = units.adjoint.over(units.slopes, method)
        yield [row_bounds(made, row, method, tick) for row in rows]
        return
    require(bounds, claim["id"], "without a region there is nothing to split")
    assert bounds is not None
    for leaf in leaves(bounds, claim["steps"], chunks(claim), claim["id"]):
        made = units.adjoint.over(units.slopes_over(leaf), method)
        yield [row_bounds(made, row, method, tick) for row in rows]


def prove(
    units: Units,
    bounds: Bounds | None,
    stated: Lipschitz,
    claims: Sequence[Mapping[str, Any]],
    tensors: Tensors,
    chunks: Chunks,
    tick: Callable[[], object],
) -> None:
    """Proves the claims, and that they are all that is stated.   Raises: CertificateRejected naming what is not."""
    proved = list[tuple[list[int], Fraction, bool]]()
    for claim in claims:
        tick()
        name, rows, upper = claim["id"], claim["rows"], number(claim["upper"])
        known = rows and all(type(i) is int and 0 <= i < len(stated.rows) for i in rows) and len({*rows}) == len(rows)
        require(known and upper >= 0, name, "it is about rows that are not there, or twice there, or its number is < 0")
        jacobian = claim["kind"] == "lipschitz-jacobian"
        if jacobian:
            each = rows_everywhere(units, bounds, [stated.rows[i] for i in rows], claim, chunks)
            holds = all(norm(found, stated.scale, stated.inward, stated.outward) <= upper for found in each)
        else:
            holds = _by_multipliers(units, stated, claim, tensors, tick)
        require(holds, name, f"{claim['upper']} is not proved")
        proved.append((rows, upper, jacobian))
    _require_whole(stated, proved)


def _by_multipliers(
    units: Units, stated: Lipschitz, claim: Mapping[str, Any], tensors: Tensors, tick: Callable[[], object]
) -> bool:
    """Whether a claim of LipSDP's kinds is proved.   Raises: CertificateRejected."""
    inputs, name, upper = units.network.steps[0].length, claim["id"], number(claim["upper"])
    require((stated.inward == "inf") == bool(claim["metric"]), name, "a metric is for the l-infinity norm")
    D = metric(upper, stated.scale, inputs)
    if claim["metric"]:
        D = tensors[claim["metric"]].astype(np.float64)
        fits = tensors[claim["metric"]].dtype.kind == "f" and len(D) == inputs and within_range(D)
        require(fits and (D >= 0).all(), name, f"its metric has not {inputs} numbers >= 0 in range")
        pairs = zip(D.tolist(), stated.scale or [Fraction(1)] * inputs, strict=True)
        above = sum(Fraction(-float_below(-Fraction(d) / s**2)) for d, s in pairs) <= upper**2
        require(above, name, "its metric is larger than its number")
    multipliers = {step: tensors[entry] for step, entry in claim["multipliers"].items()}
    matrix = [stated.rows[i] for i in claim["rows"]]
    if claim["kind"] == "lipschitz":
        return units.quadratic(matrix, multipliers, name).proves(D)
    cut = tensors.get(claim["cut"], np.zeros(0, np.int64))
    torus = units.torus(matrix, multipliers, claim)
    fits = cut.dtype.kind == "f" and len(cut) == torus.grids[torus.last].rows and within_range(cut)
    return fits and torus.proves(D, cut.astype(np.float64), tick)


def _require_whole(stated: Lipschitz, proved: Sequence[tuple[list[int], Fraction, bool]]) -> None:
    """Rows together: one claim of all (multipliers: in l2), or their sum, or that of squares, each row alone.

    Largest: each in some claim, as |.|_inf is at most the others.
    """
    count, limit, sums = len(stated.rows), stated.upper[0], stated.outward in ("1", "2")
    jointly = [upper for rows, upper, own in proved if len(rows) == count and (own or stated.outward == "2")]
    if sums and jointly and min(jointly) <= limit:
        return
    found = [[upper for rows, upper, _ in proved if i in rows and (len(rows) == 1 or not sums)] for i in range(count)]
    require(
        all(found), "claims", "a row has no claim" if not sums else "neither all rows together nor each has a claim"
    )
    best = [min(uppers) for uppers in found]
    limits = stated.upper if stated.outward == "each" else (limit,) * count
    fits = all(a <= b for a, b in zip(best, limits, strict=True))
    if sums:
        fits = sum(best) <= limit if stated.outward == "1" else sum(b * b for b in best) <= limit**2
    require(fits, "claims", "a number is above what is stated")


def prove_entries(
    units: Units, bounds: Bounds, stated: Jacobian, claims: Sequence[Mapping[str, Any]], chunks: Chunks
) -> set[int]:
    """Proves the claims of one region: which of the stated entries they prove.   Raises: CertificateRejected."""
    proved = set[int]()
    for claim in claims:
        name, (row, some) = claim["id"], (claim["rows"], claim["entries"])
        fits = [*map(type, row)] == [int] and some
        fits = fits and all(type(k) is int and 0 <= k < len(stated.entries) for k in some)
        require(fits and {stated.entries[k].row for k in some} == {*row}, name, "it is about entries of another row")
        asked = [stated.entries[k] for k in some]
        inputs = np.unique([entry.column for entry in asked])
        places = np.searchsorted(inputs, [entry.column for entry in asked])
        for (found,) in rows_everywhere(units, bounds, [stated.rows[row[0]]], claim, chunks):
            box = entries(found, inputs)
            for place, entry in zip(places, asked, strict=True):
                low, high = float(box.lower[place]), float(box.upper[place])
                holds = entry.lower is None or (np.isfinite(low) and Fraction(low) >= entry.lower)
                holds = holds and (entry.upper is None or (np.isfinite(high) and Fraction(high) <= entry.upper))
                require(holds, name, f"the bounds of entry {entry.row}, {entry.column} are not proved")
        proved.update(some)
    return proved


def _nothing() -> None:
    """Goes on."""
