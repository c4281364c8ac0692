"""The matrix of a Lipschitz claim, and what rounding does to it.

Two inputs x, y of a network; every value's difference is linear in z = (dx, dw_1, .., dw_K), w_k the values of the
units, the neurons of nonlinear steps, in order: of a unit's argument, dv = V z, as dw obeys (1c) with slopes a, b.
A neuron whose slopes are equal, a = b, needs no coordinate: dw = a dv. Then with multipliers t >= 0 and metric D
    M = D - (C Y)' (C Y) - sum over units 2 t (w - a v)(b v - w),   as a quadratic form in z,                       (14)
    M >= 0 implies  |C dy|^2 <= sum_i D_i dx_i^2,  for the terms of the sum are not negative.
Implicit units, v = W w + x: only if M > 0, and no interval is known of any value. Then w is also unique. Proof, the
last implicit layer first, so that all behind it are functions: let F(w) = w - phi(W w + x), x fixed. For two w let r be
the difference of F, dv = W dw, and let all before it have difference 0, all behind it their true one: (1c) holds
for these, so M > 0 says  -2 (dw - a dv)' T (b dv - dw) >= c |dw|^2  for a c > 0; and (1c) holds for dphi = dw - r:
    0 <= 2 (dw - r - a dv)' T (b dv - dw + r) <= -c |dw|^2 + k |dw| |r|   for some k:   |dw| <= (k / c) |r|.
So F is injective, with a continuous inverse: its image is open (invariance of domain) and closed, all of R^n.

Rounding. The computed blocks of a value's linear map are within gamma_j |..| of the exact ones, |..| the same product
of magnitudes, j growing at an affine step by its longest row, its sources and 8 (W itself), at a neuron with a = b by
1. A number of M then has at most N roundings, N = 2 j + units of a layer + 3 layers + 24, so
    |M - fl(M)| <= gamma_N Mag,   Mag = D + |Y|' |C|' |C| |Y| + sum 2 t (1, |a + b| |V|, |a b| |V|' |V|).           (15)
Mag is not formed: Mag z takes the blocks of magnitudes. Underflow costs 2^-1074 an operation, less than gamma_1 times
TINY (added to every magnitude, so it stays above what is multiplied by it: multipliers and slopes are not 0 or above
2^-300) or times TINY^1.8, added to every number of Mag.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse

from provenn.verifier.check.network import Affine, Elementwise, Implicit, Index, Matrix, Network, dense
from provenn.verifier.check.psd import SAFE, proved_positive
from provenn.verifier.check.rounding import Array, require, unit
from provenn.verifier.check.tensors import NONZERO_LIMIT

COORDINATES, TINY = 12_000, 2.0**-500
Blocks = dict[int, Any]  # by step: the part of a linear map that reads its units (of step 0: the inputs); dense or CSR


class Layer(NamedTuple):
    """Units of a step: which neurons, their slopes, the blocks of their arguments, and of magnitudes."""

    units: Index
    a: Array
    b: Array
    blocks: Blocks
    sizes: Blocks


class Increments:
    """Every value of a network as a linear map of z: the layers of units, the blocks of the output.

    slopes: (1c) of every nonlinear step that the output depends on, by step; no MaxPool.
    Raises: CertificateRejected if a slope is no number, or a map of more than COORDINATES has too many entries.
    """

    def __init__(self, network: Network, slopes: Mapping[int, tuple[Array, Array]]) -> None:
        self.network, self.slopes, steps = network, slopes, network.steps
        units = {i: np.flatnonzero(a < b) for i, (a, b) in slopes.items()}
        require(all(known(a, b) for a, b in slopes.values()), "model", "the slopes of a neuron are not known")
        ends = np.cumsum([steps[0].length, *(len(units[i]) for i in sorted(units))]).tolist()
        self.end = ends[-1]
        self.place = {i: slice(e - len(units[i]), e) for i, e in zip(sorted(units), ends[1:], strict=True)}
        self.place[0] = slice(0, steps[0].length)
        self.counts = {0: 0}
        for i in needed(network)[1:]:
            step = steps[i]
            own = 8 + len(step.sources) + step.widest[0] if isinstance(step, Affine) else 1
            self.counts[i] = own + max(self.counts[source] for source in step.sources)
        (arguments, self.output), (sizes, self.output_size) = self._maps(units, False), self._maps(units, True)
        each = ((i, units[i], *slopes[i]) for i in arguments)
        self.layers = {i: Layer(own, a[own], b[own], arguments[i], sizes[i]) for i, own, a, b in each}

    def _maps(self, units: Mapping[int, Index], size: bool) -> tuple[dict[int, Blocks], Blocks]:
        """The blocks of arguments, of units alone, and those of the output; or of magnitudes."""
        steps, order, arguments = self.network.steps, list(self.counts), dict[int, Blocks]()
        maps: dict[int, Blocks] = {0: {0: scipy.sparse.eye_array(steps[0].length, format="csr")}}
        last = {source: i for i in order for source in steps[i].sources} | {self.network.output: len(steps)}
        for i in order[1:]:
            step, blocks = steps[i], dict[int, Any]()
            if isinstance(step, Affine):
                ends = np.cumsum([0, *(steps[source].length for source in step.sources)])
                for n, source in enumerate(step.sources):
                    matrix: Any = step.magnitude if size else step.matrix
                    part = matrix if len(ends) == 2 else matrix[:, ends[n] : ends[n + 1]]
                    for k, block in maps[source].items():
                        few = self.end <= COORDINATES or _entries(part, block) <= NONZERO_LIMIT
                        require(
                            few, "model", f"{self.end} inputs and units: too many, and {step.name} has no small map"
                        )
                        blocks[k] = blocks[k] + part @ block if k in blocks else part @ block
            elif isinstance(step, Elementwise | Implicit):
                before, (a, b), own = maps[step.sources[0]], self.slopes[i], units[i]
                if len(own):
                    arguments[i] = {k: block[own] for k, block in before.items()}
                    blocks[i] = scipy.sparse.eye_array(step.length, format="csr")[:, own]
                if isinstance(step, Implicit):
                    arguments[i][i] = np.abs(step.matrix) if size else step.matrix
                kept = np.where(a == b, np.abs(a) if size else a, 0.0)
                blocks |= {k: scaled(kept, block) for k, block in before.items()} if kept.any() else {}
            for block in blocks.values() if size else ():
                (block.data if scipy.sparse.issparse(block) else block)[...] += TINY
            maps[i] = blocks
            maps = {j: found for j, found in maps.items() if last.get(j, 0) > i}
        return arguments, maps[self.network.output]


class Quadratic:
    """(14) without D, for rows C [m, outputs], floats within u |C| of exact ones, and multipliers [units] by step."""

    def __init__(self, increments: Increments, rows: Array, multipliers: Mapping[int, Array]) -> None:
        self.increments, self.multipliers, layers = increments, multipliers, increments.layers
        require(increments.end <= COORDINATES, "model", f"{increments.end} inputs and units: at most {COORDINATES}")
        steps, counts = increments.network.steps, increments.counts
        roundings = [2 * counts[steps[i].sources[0]] + len(layer.units) for i, layer in layers.items()]
        roundings.append(2 * (counts[increments.network.output] + rows.shape[1]) + len(rows))
        self.unit = unit(max(roundings) + 3 * len(layers) + 24)
        self.base = np.zeros((increments.end, increments.end))
        for i, (_, a, b, blocks, _) in layers.items():
            t, own = multipliers[i], increments.place[i]
            self.base[own, own] += np.diag(2 * t)
            for k, block in blocks.items():
                part = dense(scaled((a + b) * t, block))
                self.base[own, increments.place[k]] -= part + part.T if k == i else part
            if (a * b).any():
                self._add(blocks, {k: scaled(2 * (a * b * t), block) for k, block in blocks.items()})
        output = {k: np.asarray(rows @ block) for k, block in increments.output.items()}
        self._add(output, {k: -block for k, block in output.items()})
        self.output_size = {k: np.abs(rows) @ block for k, block in increments.output_size.items()}

    def _add(self, left: Blocks, right: Blocks) -> None:
        """L' R, its blocks below and on the diagonal."""
        place = self.increments.place
        for k, j in ((k, j) for k in left for j in right if place[j].start <= place[k].start):
            self.base[place[k], place[j]] += dense(left[k].T @ right[j])

    def proves(self, metric: Array) -> bool:
        """Whether M > 0 is proved for D = metric [inputs], exact floats."""
        matrix, first = self.base.copy(), np.arange(len(metric))
        matrix[first, first] += metric
        return proved_positive(matrix, lambda z: self.unit * SAFE * self._magnitude(metric, z))

    def _magnitude(self, metric: Array, z: Array) -> Array:
        """Mag z of (15)."""
        place = self.increments.place
        total = np.full(len(z), z.sum() * TINY**1.8)
        total[place[0]] += np.abs(metric) * z[place[0]]
        for i, (_, a, b, _, sizes) in self.increments.layers.items():
            t, w = self.multipliers[i], z[place[i]]
            cross, square = (np.abs(a) + np.abs(b)) * t, 2 * np.abs(a * b) * t
            v = sum(size @ z[place[k]] for k, size in sizes.items())
            total[place[i]] += 2 * t * w + cross * v
            for k, size in sizes.items():
                total[place[k]] += size.T @ (cross * w + square * v)
        y = sum(size @ z[place[k]] for k, size in self.output_size.items())
        for k, size in self.output_size.items():
            total[place[k]] += size.T @ y
        return total


def needed(network: Network) -> list[int]:
    """The input, and the steps that the output depends on, in order."""
    found = {0, network.output}
    for i in range(network.output, 0, -1):
        found.update(network.steps[i].sources if i in found else ())
    return sorted(found)


def known(a: Array, b: Array) -> bool:
    """Whether slopes are numbers, a <= b."""
    return bool(np.isfinite(a + b).all() and (a <= b).all())


def scaled(numbers: Array, block: Matrix) -> Any:
    """Rows of a block, each times a number."""
    return scipy.sparse.diags_array(numbers) @ block if scipy.sparse.issparse(block) else numbers[:, None] * block


def _entries(left: Any, right: Any) -> int:
    """Above the entries of a product that are not 0."""
    sparse = [scipy.sparse.issparse(block) for block in (left, right)]
    widest = int(np.diff(right.indptr).max(initial=0)) if sparse[1] else right.shape[1]
    whole = int(left.shape[0] * right.shape[1])
    return min(whole, int(left.nnz) * widest) if all(sparse) else whole
