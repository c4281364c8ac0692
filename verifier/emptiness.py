"""Whether linear constraints leave nothing of a box, proved exactly.

Multipliers y >= 0 prove it where  min over the box of (y P) x > y q  (Farkas). A linear program proposes them in
floating point; the proof is in exact numbers, so a proposal that is a little off proves nothing wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from provenn.verifier.spec import InputSet

PROGRAMS = 1000
"""Of a specification of more cases than this, those are not asked about all their constraints together."""


def proved_empty(inputs: InputSet, together: bool = True) -> bool:
    """Whether the constraints, each alone or all `together`, are proved to exclude every point of the box.

    False means nothing: no proof was found. The ball is left out, and a set that is empty by less than the program's
    tolerance, about 1e-7, stays unseen.
    """
    count = len(inputs.constraints)
    if any(_excluded(inputs, [Fraction(int(i == k)) for i in range(count)]) for k in range(count)):
        return True
    return together and count > 1 and _excluded(inputs, _proposed(inputs))


def _excluded(inputs: InputSet, multipliers: Sequence[Fraction]) -> bool:
    """Whether these multipliers, none negative, prove it."""
    used = [(y, c) for y, c in zip(multipliers, inputs.constraints, strict=True) if y > 0]
    row: dict[int, Fraction] = {}
    for y, c in used:
        for i, p in enumerate(c.row):
            if p:
                row[i] = row.get(i, Fraction(0)) + y * p
    ends = inputs.exact_lower, inputs.exact_upper
    least = sum((p * ends[p < 0][i] for i, p in row.items()), Fraction(0))
    return least > sum((y * c.bound for y, c in used), Fraction(0))


def _proposed(inputs: InputSet) -> list[Fraction]:
    """Multipliers of  min t : P x <= q + t, x in the box  (rows scaled to 1), or zeros if it cannot be solved."""
    from scipy.optimize import linprog

    nothing = [Fraction(0)] * len(inputs.constraints)
    matrix = np.array([[float(p) for p in c.row] for c in inputs.constraints])
    # A row of zeros says nothing about the others: it stays as it is.
    largest = np.abs(matrix).max(axis=1)
    scale = np.where(largest > 0, largest, 1.0)
    bound = np.array([float(c.bound) for c in inputs.constraints])
    with np.errstate(all="ignore"):
        limits = bound / scale
    if not np.isfinite(limits).all():
        return nothing
    rows = np.hstack([matrix / scale[:, None], -np.ones((len(matrix), 1))])
    box = [*zip(inputs.lower.tolist(), inputs.upper.tolist(), strict=True), (-1.0, None)]
    cost = np.zeros(rows.shape[1])
    cost[-1] = 1.0
    found = linprog(cost, A_ub=rows, b_ub=limits, bounds=box, method="highs")
    if found.status != 0:
        return nothing
    with np.errstate(all="ignore"):
        multipliers = np.maximum(-found.ineqlin.marginals / scale, 0.0)
    return [Fraction(float(m)) for m in multipliers] if np.isfinite(multipliers).all() else nothing
