"""Rows c J of a Jacobian over a region, whole or split into parts: bounds of their norms and of their entries.

For two inputs x, y of the region every nonlinear step's neurons obey dw = d dv with some d in [a, b], the slopes (1c)
over its proved interval (any d if dv = 0). With these d on diagonals, f(x) - f(y) = J (x - y) for J a sum of products
of diagonals and of the affine steps' matrices, and c J = g_0 comes from c backward:
    g_output = c,   g_t = sum over affine readers r of (W_r's columns of t)' g_r + sum over others of d_r g_r.      (20)
Inputs that differ in coordinate j alone: c (f(x) - f(y)) = g_0j (x_j - y_j). In norms, with s the scale,
    |c (f(x) - f(y))| <= |g_0 / s|_dual |s (x - y)|,   dual: sum for l-infinity, largest entry for l1, l2 for l2.   (21)
(20) is a network whose input is c, whose functions are multiplications by an unknown d in [a, b] (`gain`), and |.| is
one more. So rows.py bounds g_0 and |g_0| for all d in [a, b], therefore for those of x, y: over the region {c}, from
intervals of what gains and |.| read, each found here, in order.

Parts (trees.py). At almost every z of the region (in its affine hull) every step is differentiable (Rademacher), and
where a neuron's v(z) is a kink of its function the gradient of v is 0: so J(z) is (20) with derivatives at z for d, any
d at kinks. z lies in some part, its d in the slopes over that part. What is proved of g_0 in every part, a bound of a
norm or of an entry, thus holds at almost every z, on almost every line its mean, and, the region being convex and f
continuous, of f(x) - f(y) for all x and y as in (21).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse

from provenn.verifier.check.functions import ABS, RELU, Slopes, gain
from provenn.verifier.check.manifest import Tensors
from provenn.verifier.check.network import Affine, Elementwise, Index, Matrix, Network, Step, dense
from provenn.verifier.check.passes import Passes
from provenn.verifier.check.quadratic import known, needed
from provenn.verifier.check.rounding import UNDERFLOW, Array, float_below, require, unit, up
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Clause, Vector
from provenn.verifier.check.tensors import ELEMENT_LIMIT
from provenn.verifier.check.trees import LEAF, Nodes, Tree

TOGETHER = 256  # leaves whose boxes are there at once
SMALL = 2.0**-40  # of the largest: sides that an interval reaches less far to are not worth a backward pass


class Adjoint:
    """(20): from c to |g_0|; g_t has the name of step t.   Raises: CertificateRejected for other kinds of steps."""

    def __init__(self, network: Network) -> None:
        order, forward = needed(network), network.steps
        steps = [Step(forward[network.output].name, forward[network.output].length, ())]
        place, self.gains = {network.output: 0}, dict[int, int]()
        for t in reversed(order[:-1]):
            name, zero, blocks = forward[t].name, np.zeros(forward[t].length), list[tuple[int, Matrix]]()
            readers = [r for r in order if t in forward[r].sources]
            for r in readers:
                step = forward[r]
                if isinstance(step, Affine):
                    ends = np.cumsum([0, *(forward[source].length for source in step.sources)]).tolist()
                    own = [n for n, source in enumerate(step.sources) if source == t]
                    blocks += [(place[r], step.matrix[:, ends[n] : ends[n + 1]].T) for n in own]
                else:
                    require(isinstance(step, Elementwise), "model", f"{step.name}: it has no slopes")
                    blocks.append((len(steps), scipy.sparse.eye_array(step.length, format="csr")))
                    alone = name if len(readers) == 1 else f"{step.name}.gain"
                    self.gains[len(steps)] = r
                    steps.append(Elementwise(alone, step.length, (place[r],), RELU))
            if len(readers) > 1 or isinstance(forward[readers[0]], Affine):
                sources, matrices = zip(*blocks, strict=True)
                steps.append(Affine(name, len(zero), sources, _beside(matrices), zero, zero))
            place[t] = len(steps) - 1
        steps.append(Elementwise("norm", forward[0].length, (place[0],), ABS))
        self.network = Network(tuple(steps), len(steps) - 1, network.sha256)

    def over(self, slopes: Mapping[int, Slopes], method: str = "crown") -> Network:
        """With these slopes of the nonlinear steps.   Raises: CertificateRejected if one is no number."""
        steps = list(self.network.steps)
        for place, read in self.gains.items():
            step, function = steps[place], gain(*slopes[read], level=method == "recurjac")
            require(known(*slopes[read]), "model", f"{step.name}: unknown slopes")
            steps[place] = Elementwise(step.name, step.length, step.sources, function)
        return replace(self.network, steps=tuple(steps))


def _beside(blocks: Sequence[Any]) -> Matrix:
    """Blocks as one matrix: dense where all are, or some are and it is small."""
    size, sparse = sum(block.shape[0] * block.shape[1] for block in blocks), list(map(scipy.sparse.issparse, blocks))
    if not any(sparse) or (not all(sparse) and size <= ELEMENT_LIMIT):
        return np.hstack(list(map(dense, blocks)))
    return scipy.sparse.csr_array(scipy.sparse.hstack(blocks))


def row_bounds(network: Network, row: Vector, method: str, tick: Callable[[], object]) -> Bounds:
    """What is proved of an adjoint network for one row c; by backward passes unless the method is "interval"."""
    bounds = Bounds(network, Box(*(np.array([sign * float_below(sign * c) for c in row]) for sign in (1, -1))))
    bounds.tick = tick
    for index in filter(None, network.bounded.values()):  # c itself is known
        box = bounds.box(index)
        bounds.accept(index, _cut(bounds, index, _open(network, index, box)) if method != "interval" else box)
    return bounds


def _open(network: Network, index: int, box: Box) -> Index:
    """Neurons on both sides of 0, clearly, whose reader has not the same slope on both: a gain with a < b, or |.|."""
    different = np.zeros(len(box.lower), bool)
    for step in network.steps:
        if isinstance(step, Elementwise) and step.sources[0] == index:
            a, b = step.function.slopes(*box)
            different |= a < b
    return np.flatnonzero(different & (np.minimum(-box.lower, box.upper) > SMALL * box.largest.max(initial=0.0)))


def _cut(bounds: Bounds, index: int, neurons: Index) -> Box:
    """The box of a step, that of some neurons cut by rows."""
    (lower, upper), found = bounds.box(index), [bounds.neuron_bounds(index, neurons, sign) for sign in (1, -1)]
    lower, upper = lower.copy(), upper.copy()
    lower[neurons], upper[neurons] = np.fmax(lower[neurons], found[0]), np.fmin(upper[neurons], -found[1])
    return Box(lower, upper)


def entries(bounds: Bounds, inputs: Index) -> Box:
    """Proved intervals of g_0j, for some inputs j."""
    index = bounds.network.steps[bounds.network.output].sources[0]
    return Box(*(side[inputs] for side in _cut(bounds, index, inputs)))


def norm(rows: Sequence[Bounds], scale: Vector, inward: str, outward: str) -> float:
    """An upper bound of |C (f(x) - f(y))|_outward / |s (x - y)|_inward, C the rows; not finite if there is none.

    l2 to l2: of the Frobenius norm and of the root of the l1 norm times the l-infinity norm, the smaller.
    """
    ends = [bounds.network.steps[bounds.network.output].length for bounds in rows]
    error = 1 + unit(8 * (len(rows) + max(ends)) + 64)
    weights = np.array([-float_below(-1 / s) for s in scale] if scale else np.ones(ends[0]))
    if inward != "1":
        sums = np.array([-bounds.lower_bounds(bounds.network.output, -weights[None])[0] for bounds in rows])
    if inward == "inf":
        return _total(sums, outward, error)
    largest = np.stack([entries(bounds, np.arange(end)).largest for bounds, end in zip(rows, ends, strict=True)])
    largest = up(largest * weights * error + UNDERFLOW)
    columns = [_total(column, outward, error) for column in largest.T]
    if inward == "1":
        return max(columns)
    each = [min(_total(row, "2", error), _mean(sums[i], row.max(), error)) for i, row in enumerate(largest)]
    total = _total(np.array(each), outward, error)
    if outward != "2":
        return total
    return min(total, _mean(sums.max(), max(_total(column, "1", error) for column in largest.T), error))


def _total(values: Array, outward: str, error: float) -> float:
    """The norm of values >= 0, rounded up; infinite if one is not finite."""
    if not np.isfinite(values).all():
        return float("inf")
    if outward in ("inf", "each"):
        return float(values.max())
    plain = values.sum() if outward == "1" else np.sqrt((values * values).sum()) + 2.0**-400
    return float(up(np.array(plain * error)))


def _mean(first: float, second: float, error: float) -> float:
    """The geometric mean of two numbers >= 0, rounded up."""
    return float(up(np.array((np.sqrt(first) * np.sqrt(second)) * error + 2.0**-400)))


def parts(bounds: Bounds, nodes: Nodes) -> list[Bounds | None]:
    """What is known in every part; None where nothing lies."""
    found = list[Bounds | None]()
    boxes = {i: Passes(bounds, nodes.boxes).box(i, nodes.parts) for i in nodes.boxes}
    for number in range(len(nodes.depth)):
        own = {i: Box(*(side[number if len(side) > 1 else 0] for side in box)) for i, box in boxes.items()}
        inside = Bounds(bounds.network, own[0], bounds.ball)
        inside.boxes |= own
        found.append(None if any((box.lower > box.upper).any() for box in own.values()) else inside)
    return found


def leaves(bounds: Bounds, steps: Sequence[str], chunks: Iterable[Tensors], claim: int) -> Iterator[Bounds]:
    """What is known in each leaf of a tree where something lies, until all of the region was there.

    Raises: CertificateRejected if a chunk is no part of a tree, a proof of emptiness fails, or parts are missing.
    """
    tree = Tree(bounds, steps, (Clause((), ()),), (0,))
    for chunk in chunks:
        nodes = tree.grown(chunk)
        require((tree.margins(nodes, chunk) > 0).all(), claim, "a part is not proved to be empty")
        some = np.flatnonzero((chunk["step"] == LEAF) & ~nodes.excluded[:, 0])
        for start in range(0, len(some), TOGETHER):
            yield from filter(None, parts(bounds, nodes.of(some[start : start + TOGETHER])))
        nodes.excluded[some] = True
        tree.close(nodes, chunk)
    require(not tree.waiting, claim, "parts of its tree are missing")
