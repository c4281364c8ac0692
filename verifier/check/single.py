"""What float32 execution adds: for every step, how far its executed value may lie from the step of executed values.

A float32 input x of the region is executed by operations +, -, x, /, sqrt and fused multiply-add, in any order:
    fl(a op b) = (a op b)(1 + e) + h,   |e| <= u = 2^-24,   |h| <= 2^-126                                           (6)
(h: what is read or results may be flushed to zero). Relu, MaxPool and Clip are exact but for h. A step that only
copies, scales, shifts or adds values (no row of it reads two entries of one source) is light: a runtime may merge it
into the affine steps that it reads and compute the whole as ONE sum, with coefficients multiplied in float32 before
(BatchNormalization folded into Conv, a product accumulated onto a value). Merged as far as can be, a term of a step
passes at most R factors 1 + e: the additions of the whole sum, fewer than its terms, and the products that made its
coefficient; `singles` counts what a step adds beyond its entries. Each term keeps its own error wherever it is merged,
so with m the bounds of executed values (and, of values merged away, of numbers that fit)
    |v^ - (W x^ + b)| <= delta = gamma_R (|W| m + |b|) + 2^-84 R^2 P,   gamma_R = R u / (1 - R u).                   (7)
The last term holds all h: below R^2 of them, each times coefficients of a product below P (the merged steps' row sums,
those above 1) and at most one value, up to LIMIT = 2^40: 2^-126 R^2 2 P (1 + LIMIT) < 2^-84 R^2 P. Nothing overflows:
|W| m + |b| <= LIMIT, P <= 2^60, R <= 2^20, so every partial sum, merged or not, is below 2^121; a runtime's choice
what to scale by first (alpha; x - mean) exceeds that of an unmerged step by 2^21 only, as network_ops.py has seen.
Assumed: a value is computed once, not again for each of its readers (more digits within an operation do no harm).
"""

import numpy as np

from provenn.verifier.check.network import Affine, Elementwise, Network, Step
from provenn.verifier.check.rounding import Array, require, up

U, LIMIT = 2.0**-24, 2.0**40
Execution = tuple[int, float]  # R, P


def executions(network: Network) -> list[Execution]:
    """R and P of every step: forward, of it merged with all before it; backward, R of what it may be merged into.

    Raises: CertificateRejected where the network has operators that (6) does not describe.
    """
    require(not network.doubts, "model", f"float32: {'; '.join(network.doubts[:1])}")
    steps = network.steps
    light = [isinstance(step, Affine) and step.widest[0] <= len(step.sources) for step in steps]
    terms, growth = [1] * len(steps), [1.0] * len(steps)
    for i, step in enumerate(steps):
        if isinstance(step, Affine):
            (entries, largest), before = step.widest, [terms[source] for source in step.sources]
            merged = sum(before) if entries > 1 else max(before)
            terms[i] = (merged if light[i] else entries) + step.singles
            growth[i] = max(1.0, largest) * max(growth[source] if light[i] else 1.0 for source in step.sources)
    for i in range(len(steps) - 1, 0, -1):
        for source in steps[i].sources if light[i] else ():
            terms[source] = max(terms[source], terms[i])
    return list(zip(terms, growth, strict=True))


def penalty(step: Step, execution: Execution, largest: Array) -> Array:
    """Delta [n] of (7), of a nonlinear step u |v| for each rounding; largest: m, of all sources in a row.

    2^-20 larger, for the float64 roundings here and in products with it.   Raises: CertificateRejected for values that
    may overflow.
    """
    (merged, growth), size, roundings = execution, np.zeros(step.length), 0
    if isinstance(step, Affine):  # copies have no terms of their own
        size, roundings = step.magnitude @ largest + step.bias_size, merged if step.singles else 0
    elif isinstance(step, Elementwise):
        size, roundings = np.maximum(*map(np.abs, step.function(-largest, largest).range())), step.singles
    top = max(largest.max(initial=0.0), size.max(initial=0.0))
    fits = top <= LIMIT and growth <= 2.0**60 and merged <= 2**20
    require(fits, "model", f"float32: overflow of {step.name} cannot be excluded, values may reach {top:.3g}")
    return up((roundings * U / (1 - roundings * U) * size + 2.0**-84 * merged**2 * growth) * (1 + 2.0**-20))
