"""The nearest point of a polyhedron: a small quadratic program, solved exactly (up to rounding)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

Numbers = NDArray[np.float64]

EMPTY = 1e-12
"""Residual up to which the half-spaces are taken to have no point in common."""


def project(matrix: Numbers, bound: Numbers, y: Numbers) -> Numbers | None:
    """Min |z - y|^2 / 2  subject to  C z >= d;  None where no z is feasible, as far as float64 can see.

    matrix C [rows, n], bound d [rows], y [n]. As least-distance programming, z = y + s x with s the largest violation:
    min |x|^2 subject to C x >= h = (d - C y) / s. With u the minimiser of |(C^T u, h u) - (0, 1)| over u >= 0 and r
    that difference, x = -r_1..n / r_(n+1); r = 0 exactly where no x is feasible. Nonnegative least squares ends after
    finitely many exchanges of its active set.   Source: Lawson and Hanson 1974, chapter 23.
    """
    missing = bound - matrix @ y
    worst = missing.max(initial=0.0)
    if worst <= 0:
        return y.copy()
    stacked = np.vstack([matrix.T, missing / worst])
    wanted = np.zeros(len(stacked))
    wanted[-1] = 1.0
    try:
        multipliers, _ = nnls(stacked, wanted)
    except RuntimeError:  # more exchanges than it allows itself: rows that all but repeat each other
        return None
    residual = stacked @ multipliers - wanted
    if -residual[-1] <= EMPTY:
        return None
    found: Numbers = y - worst * residual[:-1] / residual[-1]
    return found
