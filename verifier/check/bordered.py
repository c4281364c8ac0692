"""(14) with every linear map in it once, so that its first block can be eliminated: for inputs wider than the network.

For s > 0,  -s v^2 = min over p of  s p^2 + 2 s p v.  With a coordinate p for every row of C (s = 1, v = C y), and for
every unit with a b < 0 (s = -2 t a b), and without the term 2 t a b v^2 >= 0 of units with a b > 0, (14) becomes
    M+ = D + sum 2 t w (w - (a + b) v) + sum s p (p + 2 v),   M >= min over p of M+,   so M+ > 0 implies M > 0,     (16)
a sum of borders: squares of own coordinates, and their products with a linear map of others. If only D is a square of
the first block's coordinates x, and B those products with x,
    M+ > 0  if and only if  D > 0 and U - B D^-1 B' > 0,   U what of M+ does not read x.                            (17)
Rounding as in (15), Mag of the borders of U and Mag(B) D^-1 Mag(B)': with N the roundings of a number of M+, those of
(17) have at most 2 N + inputs + 8. D and B are first scaled by powers of two so that D is in [1/2, 2]: what underflows
then is below 2^-1074 times inputs times 2^152, if no |b| is above 2^151, else U - B D^-1 B' has no diagonal > 0.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from provenn.verifier.check.network import dense
from provenn.verifier.check.psd import SAFE, proved_positive, scaling
from provenn.verifier.check.quadratic import COORDINATES, Blocks, Increments, Layer, scaled
from provenn.verifier.check.rounding import Array, require, unit

LOST = 2.0**-850  # above the underflow of a number of (17)
OUTPUT = -1  # the border of C; that of p of the units of step i is ~i, less than it


class Border(NamedTuple):
    """square * z_own^2 + 2 cross * z_own (blocks z): factors [n], the blocks of a map, and of magnitudes."""

    square: Array
    cross: Array
    blocks: Blocks
    sizes: Blocks


def borders(layers: Mapping[int, Layer], multipliers: Mapping[int, Array]) -> dict[int, Border]:
    """The borders of steps with multipliers in order, then those of p."""
    found, below = dict[int, Border](), dict[int, Border]()
    for i, t in sorted(multipliers.items()):
        _, a, b, blocks, sizes = layers[i]
        found[i] = Border(2 * t, -((a + b) * t), blocks, sizes)
        some = np.flatnonzero(a * b < 0)
        if len(some):
            s = -2 * (a * b * t)[some]
            each = ({k: block[some] for k, block in part.items()} for part in (blocks, sizes))
            below[~i] = Border(s, s, *each)
    return found | below


def ending(increments: Increments, rows: Array) -> dict[int, Border]:
    """That of rows C [m, outputs]."""
    output = {k: np.asarray(rows @ block) for k, block in increments.output.items()}
    sizes = {k: np.abs(rows) @ block for k, block in increments.output_size.items()}
    return {OUTPUT: Border(np.ones(len(rows)), np.ones(len(rows)), output, sizes)}


def places(lengths: Mapping[int, int]) -> dict[int, slice]:
    """Where parts of these lengths lie, one after the other."""
    ends = np.cumsum([0, *lengths.values()]).tolist()
    return {key: slice(*pair) for key, pair in zip(lengths, pairwise(ends), strict=True)}


class Bordered:
    """M+ without D, its first block x eliminated: the inputs, or the units of step `first`.

    Raises: CertificateRejected if more than COORDINATES are left, or something else than x and them is read.
    """

    def __init__(self, increments: Increments, parts: Mapping[int, Border], first: int = 0) -> None:
        self.borders, self.first, network = parts, first, increments.network
        steps, inputs = network.steps, network.steps[first].length
        self.place = places({key: len(border.square) for key, border in parts.items()} | {first: inputs})
        size = self.place[first].start
        require(size <= COORDINATES, "model", f"{size} units: at most {COORDINATES} are read")
        read = {k for border in parts.values() for k in border.blocks}
        require(read <= self.place.keys(), "model", "its last part reads what comes before")
        counts = [increments.counts[steps[max(key, ~key)].sources[0]] for key in parts if key != OUTPUT]
        counts.append(increments.counts[network.output] + steps[network.output].length)
        self.unit = unit(2 * (max(counts) + 12) + inputs + 8)
        self.base, self.read = np.zeros((size, size)), dict[int, Any]()
        for key, (square, cross, blocks, _) in parts.items():
            own = self.place[key]
            self.base[own, own] += np.diag(square)
            for k, block in blocks.items():
                part = scaled(cross, block)
                if k == first:
                    self.read[key] = part
                else:
                    self.base[own, self.place[k]] += dense(part + part.T) if k == key else dense(part)

    def proves(self, metric: Array) -> bool:
        """Whether M+ > 0 is proved for D = metric [of x], exact floats."""
        root = scaling(metric)
        if root is None or scaling(self.base.diagonal()) is None:
            return False
        inverse, matrix = 1 / (metric * root * root), self.base.copy()
        half = {key: scaled(root, part.T).T for key, part in self.read.items()}
        for key, left in half.items():
            weighted = scaled(inverse, left.T)
            for other, right in half.items():
                if self.place[other].start >= self.place[key].start:
                    matrix[self.place[other], self.place[key]] -= dense(right @ weighted)
        inverse *= root * root
        return proved_positive(matrix, lambda z: self.unit * SAFE * self._magnitude(inverse, z) + z.sum() * LOST)

    def _magnitude(self, inverse: Array, z: Array) -> Array:
        """Mag of (17) times z."""
        n, none = len(z), np.zeros(len(inverse))
        once = magnitude(self.borders, self.place, np.concatenate([z, none]))
        return once[:n] + magnitude(self.borders, self.place, np.concatenate([0 * z, inverse * once[n:]]))[:n]


def magnitude(parts: Mapping[int, Border], place: Mapping[int, slice], z: Array) -> Array:
    """Mag of borders, times z."""
    total = np.zeros(len(z))
    for key, (square, cross, _, sizes) in parts.items():
        own, size = place[key], np.abs(cross)
        total[own] += square * z[own]
        for k, block in sizes.items():
            total[own] += size * (block @ z[place[k]])
            total[place[k]] += block.T @ (size * z[own])
    return total
