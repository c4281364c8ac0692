"""Lipschitz claims over a region: |c (f(x) - f(y))| <= upper max_j |s_j (x_j - y_j)|, by bounds of c J.

For two inputs x, y of the region every nonlinear step's neurons obey dw = d dv with some d in [a, b], the slopes (1c)
over its proved interval (any d if dv = 0). With these d on diagonals, f(x) - f(y) = J (x - y) for J a sum of products
of diagonals and of the affine steps' matrices, and c J = g_0 comes from c backward:
    g_output = c,   g_t = sum over affine readers r of (W_r's columns of t)' g_r + sum over others of d_r g_r,      (20)
    |c (f(x) - f(y))| <= sum_j |g_0j| |x_j - y_j| <= sum_j |g_0j| / s_j  max_j |s_j (x_j - y_j)|.                   (21)
(20) is a network whose input is c, whose functions are multiplications by an unknown d in [a, b] (`gain`), and |.| is
one more. So rows.py bounds (21) for all d in [a, b], therefore for those of x, y: over the region {c}, from claimed
intervals of what gains and |.| read, each proved first, in order.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import scipy.sparse

from provenn.verifier.check.functions import ABS, Slopes, gain
from provenn.verifier.check.manifest import Tensors
from provenn.verifier.check.network import Affine, Elementwise, Matrix, Network, Step, dense
from provenn.verifier.check.quadratic import known, needed
from provenn.verifier.check.rounding import float_below, require
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Vector, number
from provenn.verifier.check.tensors import ELEMENT_LIMIT


def adjoint(network: Network, slopes: Mapping[int, Slopes]) -> Network:
    """(20): from c to |g_0|; g_t has the name of step t. slopes: of every nonlinear step that the output depends on.

    Raises: CertificateRejected if a slope is no number, or a step is neither affine nor elementwise.
    """
    order, forward = needed(network), network.steps
    steps = [Step(forward[network.output].name, forward[network.output].length, ())]
    place = {network.output: 0}
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
                require(isinstance(step, Elementwise) and known(*slopes[r]), "model", f"{step.name}: unknown slopes")
                blocks.append((len(steps), scipy.sparse.eye_array(step.length, format="csr")))
                alone = name if len(readers) == 1 else f"{step.name}.gain"
                steps.append(Elementwise(alone, step.length, (place[r],), gain(*slopes[r])))
        if len(readers) > 1 or isinstance(forward[readers[0]], Affine):
            sources, matrices = zip(*blocks, strict=True)
            steps.append(Affine(name, len(zero), sources, _beside(matrices), zero, zero))
        place[t] = len(steps) - 1
    steps.append(Elementwise("norm", forward[0].length, (place[0],), ABS))
    return Network(tuple(steps), len(steps) - 1, network.sha256)


def _beside(blocks: Sequence[Any]) -> Matrix:
    """Blocks as one matrix: dense where all are, or some are and it is small."""
    size, sparse = sum(block.shape[0] * block.shape[1] for block in blocks), list(map(scipy.sparse.issparse, blocks))
    if not any(sparse) or (not all(sparse) and size <= ELEMENT_LIMIT):
        return np.hstack(list(map(dense, blocks)))
    return scipy.sparse.csr_array(scipy.sparse.hstack(blocks))


def row_bounds(network: Network, row: Vector, tick: Callable[[], object]) -> Bounds:
    """What is known of an adjoint network for one row c."""
    bounds = Bounds(network, Box(*(np.array([sign * float_below(sign * c) for c in row]) for sign in (1, -1))))
    bounds.tick = tick
    return bounds


def claimed_steps(network: Network) -> dict[str, int]:
    """The steps of which an adjoint network's claim has intervals, in order: what gains and |.| read, except c."""
    return {name: i for name, i in network.bounded.items() if i}


def norm(bounds: Bounds, scale: Vector) -> float:
    """A proved upper bound of sum_j |g_0j| / s_j; not finite if there is none."""
    network = bounds.network
    weights = [float_below(-1 / s) for s in scale] if scale else [-1.0] * network.steps[network.output].length
    return -float(bounds.lower_bounds(network.output, np.array([weights]))[0])


def prove_row(bounds: Bounds, scale: Vector, claim: Mapping[str, Any], tensors: Tensors) -> bool:
    """Whether its number is proved.   Raises: CertificateRejected naming an interval that is missing or not proved."""
    steps, sides = claimed_steps(bounds.network), (claim["lowers"], claim["uppers"])
    whole = all(side.keys() == steps.keys() for side in sides)
    require(whole, claim["id"], f"its intervals are not those of {', '.join(steps)}")
    for name, index in steps.items():
        given = [tensors[side[name]] for side in sides]
        fits = all(len(end) == bounds.network.steps[index].length and end.dtype == np.float32 for end in given)
        require(fits, claim["id"], f"{name}: not float32 numbers of its neurons")
        bounds.take(index, Box(*(end.astype(np.float64) for end in given)), bounds.box(index), True, claim["id"])
    upper = norm(bounds, scale)
    return bool(np.isfinite(upper)) and Fraction(upper) <= number(claim["upper"])
