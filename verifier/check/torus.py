"""A network that begins with convolutions, proved frequency by frequency.

Maps. The units of a step (step 0: the inputs) lie on a grid, unit (c, P): channel c, P in a box of Z^d from 0 on, in C
order. With P = s q + phase, 0 <= phase < s, q is its cell and (c, phase) its row. Cells are also those of a torus,
q mod n, on which different units stay different: s n >= the box. E extends a map by zeros from its box to the torus.
Of every block A, from a map to the arguments of another, it is proved that A = E' T E for
    (T z)(r, q) = sum over r', q' of  K(r, r', q' - q mod n) z(r', q'):                                             (18)
pairs of units with the same r, r', q' - q mod n all have the same number in A, be it 0. So A may be a convolution with
any stride, padding, dilation, groups, an average over windows, or products of them; if a torus is too small, some pair
has another number. Multipliers and D are the same for the units of a row (D the least, slopes the widest). M+ of (16)
on the torus, of w and p extended by zeros, is M+ of the network: outside of the boxes w and p are 0, so are the terms.
It is block diagonal over the frequencies f, 0 <= f < n, H of -f the conjugate of H of f:
    H = diag(D, 2 t, s) + cross S + (cross S)^*,   S = sum over shifts of  K(., ., shift) exp(2 pi i f . shift / n) (19)
The last step's units h are cut: |C dy|^2 <= sum d |dh|^2 by (17) for all that follows, h its first block; then d is
subtracted in (19): sum d |dh|^2 <= sum D |dx|^2. Hermitian X + i Y > 0 iff ((X, -Y), (Y, X)) > 0.
Rounding. Cosines, sines err by 2^-45 = 256 u: arguments by 100 u, functions by LIBM; sums of T shifts by gamma_T. The
exact block is within gamma_j |A| of the computed one, pair by pair, so perhaps no (18): as a matrix on the torus that
differs by at most gamma_j |T|, a (18) whose norm, scaled by row, is that at f = 0, the sum of |K|. The diagonal and so
D of psd.py is the same for all f, and what is proved there of all H, (j + T + 300) u |K| from 0, allows for it too.
"""

from collections.abc import Callable, Mapping
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from provenn.verifier.check.bordered import LOST, Border, Bordered, borders, magnitude, places
from provenn.verifier.check.network import Index
from provenn.verifier.check.psd import SAFE, proved_positive
from provenn.verifier.check.quadratic import COORDINATES, Increments, Layer
from provenn.verifier.check.rounding import Array, require, unit
from provenn.verifier.check.tensors import NONZERO_LIMIT, budget


class Grid(NamedTuple):
    """Channels, the box's extents, s."""

    channels: int
    extents: tuple[int, ...]
    steps: tuple[int, ...]

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.channels * prod(self.steps)

    def places(self) -> tuple[Index, Index, Index]:
        """Of every unit the row; the phase and the cell, each [d, units]."""
        channel, *at = np.unravel_index(np.arange(self.channels * prod(self.extents)), (self.channels, *self.extents))
        s = np.array(self.steps)[:, None]
        phase, cell = np.array(at) % s, np.array(at) // s
        return np.ravel_multi_index((channel, *phase), (self.channels, *self.steps)), phase, cell

    def cells(self, axis: int) -> Index:
        """How many cells there are along an axis, by phase."""
        return -(-(self.extents[axis] - np.arange(self.steps[axis])) // self.steps[axis])


def kernel(block: Any, to: Grid, source: Grid, torus: tuple[int, ...], sizes: bool = False) -> tuple[Array, Index]:
    """K of (18): numbers [rows, columns, T] at shifts [T, d]; of magnitudes (sizes) the largest that belong together.

    Raises: CertificateRejected if there is none.
    """
    matrix = scipy.sparse.csr_array(block, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    entries = matrix.tocoo()
    (r, _, q), (c, _, p) = to.places(), source.places()
    n, shape = np.array(torus)[:, None], (prod(torus), to.rows, source.rows)
    budget(shape, NONZERO_LIMIT)
    shift = np.ravel_multi_index(tuple((p[:, entries.col] - q[:, entries.row]) % n), torus)
    key = np.ravel_multi_index((shift, r[entries.row], c[entries.col]), shape)
    numbers, found = np.zeros(prod(shape)), np.bincount(key, minlength=prod(shape))
    if sizes:
        np.maximum.at(numbers, key, entries.data)
    else:
        numbers[key] = entries.data
        met = np.flatnonzero(found)
        same = (numbers[key] == entries.data).all() and (found[met] == _pairs(met, to, source, torus)).all()
        require(same, "maps", "the units of a map are no convolution of those before, or the torus is too small")
    numbers = numbers.reshape(shape)
    some = np.flatnonzero(numbers.any(axis=(1, 2)))
    return np.moveaxis(numbers[some], 0, 2), np.array(np.unravel_index(some, torus)).T


def _pairs(keys: Index, to: Grid, source: Grid, torus: tuple[int, ...]) -> Index:
    """How many pairs of units have these shifts, rows and columns, by the keys of `kernel`."""
    d, total = len(torus), np.ones(len(keys), np.int64)
    places = np.unravel_index(keys, (*torus, to.channels, *to.steps, source.channels, *source.steps))
    for axis, n in enumerate(torus):
        cells = np.arange(n)
        inside = [cells < grid.cells(axis)[:, None] for grid in (to, source)]
        table = np.array([inside[0].astype(np.int64) @ np.roll(inside[1], -shift, axis=1).T for shift in range(n)])
        total *= table[places[axis], places[d + 1 + axis], places[2 * d + 2 + axis]]
    return total


class Torus:
    """(19) and (17) for maps: of steps, the input among them, their grids; and n.

    multipliers: by step, of rows for those with maps, of units for others; output: the border of C.
    Raises: CertificateRejected where a block between maps is no convolution, or other steps read more than the last.
    """

    def __init__(
        self,
        increments: Increments,
        grids: Mapping[int, Grid],
        torus: tuple[int, ...],
        multipliers: Mapping[int, Array],
        output: Mapping[int, Border],
    ) -> None:
        self.grids, self.torus, self.last, steps = grids, torus, max(grids), increments.network.steps
        require(0 in grids and self.last > 0, "maps", "there must be one of the inputs, and of some units")
        for i, (channels, extents, each) in grids.items():
            fits = all(s * n >= h for h, s, n in zip(extents, each, torus, strict=True))
            fits = fits and channels * prod(extents) == steps[i].length and (i == 0 or i in increments.layers)
            require(fits, "maps", f"{steps[i].name} does not have such a grid, or the torus is too small")
        self.shifts = dict[tuple[int, int], Index]()
        layers = {i: self._layer(i, increments) for i in sorted(grids) if i}
        self.borders = borders(layers, {i: multipliers[i] for i in layers})
        self.place = places({0: grids[0].rows} | {key: len(border.square) for key, border in self.borders.items()})
        require(2 * max(place.stop for place in self.place.values()) <= COORDINATES, "maps", "too many rows")
        roundings = (increments.counts[steps[i].sources[0]] for i in layers)
        self.unit = unit(max(roundings) + max(map(len, self.shifts.values()), default=0) + 300)
        rest = {i: t for i, t in multipliers.items() if i not in grids}
        self.head = Bordered(increments, borders(increments.layers, rest) | {**output}, self.last)

    def _layer(self, i: int, increments: Increments) -> Layer:
        """By rows: slopes, kernels, sums of magnitudes."""
        _, a, b, blocks, sizes = increments.layers[i]
        to, name, numbers, above = self.grids[i], increments.network.steps[i].name, dict[int, Array](), {}
        require(len(a) == increments.network.steps[i].length, name, "some of its units have no coordinate")
        for k, block in blocks.items():
            require(k in self.grids and k != i, name, "it reads units without a map")
            numbers[k], self.shifts[i, k] = kernel(block, to, self.grids[k], self.torus)
            above[k] = kernel(sizes[k], to, self.grids[k], self.torus, sizes=True)[0].sum(axis=2) * SAFE
        low, high = (np.full(to.rows, end) for end in (a.min(), b.max()))
        return Layer(np.arange(to.rows), low, high, numbers, above)

    def proves(self, metric: Array, cut: Array, tick: Callable[[], object] = lambda: None) -> bool:
        """Whether (17) is proved for D = cut, by rows, and (19) for D = metric [inputs]. tick: at every frequency."""
        added = np.zeros(max(place.stop for place in self.place.values()))
        added[self.place[0]] = metric.max()
        np.minimum.at(added, self.grids[0].places()[0], metric)
        added[self.place[self.last]] = -cut
        if not self.head.proves(cut[self.grids[self.last].places()[0]]):
            return False
        for f in product(*map(range, self.torus)):
            if f <= tuple(-k % n for k, n in zip(f, self.torus, strict=True)):  # of f and -f one
                tick()
                if not proved_positive(self._form(f, added), lambda z: self._error(added, z)):
                    return False
        return True

    def _form(self, frequency: tuple[int, ...], added: Array) -> Array:
        """((X, -Y), (Y, X)), its lower triangle; added: to the diagonal."""
        size, n, diagonal = len(added), np.array(self.torus), added.copy()
        matrix = np.zeros((2 * size, 2 * size))
        for key, (square, cross, blocks, _) in self.borders.items():
            own = self.place[key]
            diagonal[own] += square
            for k, numbers in blocks.items():
                before = self.place[k]
                angle = 2 * np.pi * (self.shifts[max(key, ~key), k] * frequency % n / n).sum(axis=1)
                real, imaginary = (cross[:, None] * (numbers @ wave) for wave in (np.cos(angle), np.sin(angle)))
                matrix[own, before] = matrix[size:, size:][own, before] = real
                matrix[size:, :size][own, before] = imaginary
                matrix[size:, :size][before, own] = -imaginary.T
        np.fill_diagonal(matrix, np.tile(diagonal, 2))
        return matrix

    def _error(self, added: Array, z: Array) -> Array:
        """Above |E| z, E the rounding of a form."""
        both = z[: len(added)] + z[len(added) :]
        total = magnitude(self.borders, self.place, both) + np.abs(added) * both
        return np.tile(self.unit * SAFE * total + both.sum() * LOST, 2)


def read_grids(claim: Mapping[str, Any], steps: Mapping[str, list[int]]) -> tuple[dict[int, Grid], tuple[int, ...]]:
    """Grids by step, and n: `maps` are by name, [channels, *extents, *s].   Raises: CertificateRejected."""
    name, maps, torus = claim["id"], claim["maps"], claim["torus"]
    given, d = [torus, *maps.values()], len(torus)
    known = all(type(part) is list and all(type(k) is int and 0 < k < 2**16 for k in part) for part in given)
    known = known and 0 < d < 4 and max(torus) < 2**12 and {1 + 2 * d}.issuperset(map(len, maps.values()))
    require(known and maps.keys() <= steps.keys(), name, "its maps or its torus are not understood")
    each = ((j, part) for step, part in maps.items() for j in steps[step])
    return {j: Grid(part[0], tuple(part[1 : d + 1]), tuple(part[d + 1 :])) for j, part in each}, tuple(torus)
