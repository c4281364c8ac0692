"""Proves that a symmetric matrix is positive definite: Cholesky's factorisation of it, shifted, goes through.

A (as its lower triangle holds it) is within E of the matrix M that is meant, and |E| z is bounded for any z > 0.
Scaled by d, powers of two near 1 / sqrt(A_ii): D M D >= 0 iff M >= 0, and D A D is exact but for underflow.

Collatz: |E| is symmetric and not negative, so for every x > 0:   ||D E D||_2 <= max_i (D |E| D x)_i / x_i.         (10)
Cholesky, in whatever order it sums (Higham, ASNA, theorem 10.3), completes with a real factor L of the float matrix B:
    L L' = B + F,   |F_ij| <= gamma_(k+1) (|L| |L|')_ij,                                                            (11)
k the products l_ir l_jr, r < min(i, j), that are not exactly 0. Row i of L is 0 where row i of B is, up to the first
entry f_i of it that is not (its envelope): k <= min(i - f_i, j - f_j). Two more roundings are allowed for a division
made of a reciprocal and a product, and all is doubled. With g_i = 2 gamma_(i - f_i + 4), sqrt(g_i g_j) is above the
least of g_i, g_j, so ||F||_2 <= || G |L| |L|' G ||, G = diag(sqrt(g)), bounded by (10) from the L that was found; and
(|L| |L|')_ij <= |l_i| |l_j|, |l_i|^2 = (B + F)_ii <= B_ii / (1 - g_i), so ||F||_2 <= sum_i g_i B_ii / (1 - g_i).   (12)
B = fl(D A D - c I): |B - (D A D - c I)| <= u |B_ii|, and B + F = L L' >= 0. So M > 0 if (Rump, BIT 2006)
    c > ||F||_2 + ||D E D||_2 + u max B_ii + underflow.                                                             (13)
The diagonal of D A D lies in [1/2, 2], so every |l_ij| < 2: underflow costs an entry below 8 n 2^-1074.
"""

from collections.abc import Callable

import numpy as np

from provenn.verifier.check.rounding import UNDERFLOW, Array

Product = Callable[[Array], Array]  # z > 0 -> above |E| z
SAFE = 1 + 2.0**-20  # above what rounding takes off a sum of 2^30 terms, none negative
ROUNDS = 3  # of (10), of (13)


def norm(product: Product, start: Array) -> float:
    """Above the 2-norm of a symmetric matrix without negative entries, by (10); inf or NaN where it overflows."""
    x, best = start, np.inf
    for _ in range(ROUNDS):
        y = product(x)
        best = min(best, float((y / x).max()) * SAFE)
        largest = float(y.max())
        if not 0 < largest < np.inf:
            break
        x = y / largest + 2.0**-20
    return best


def scaling(diagonal: Array) -> Array | None:
    """D; None where a number is not within 2^-300 .. 2^300, so not positive."""
    if not ((diagonal >= 2.0**-300) & (diagonal <= 2.0**300)).all():
        return None
    return np.asarray(np.ldexp(1.0, -(np.frexp(diagonal)[1] // 2)))


def _gram(factor: Array, root: Array) -> Product:
    """G |L| |L|' G, G the diagonal matrix of roots."""
    return lambda x: root * (factor @ (factor.T @ (root * x)))


def proved_positive(matrix: Array, error: Product) -> bool:
    """Whether every symmetric matrix within `error` of this one [n, n] is proved positive definite.

    Reads, and overwrites, the lower triangle and the diagonal.
    """
    d, n = scaling(matrix.diagonal()), len(matrix)
    if d is None:
        return False
    matrix *= d[:, None]
    matrix *= d
    first = (matrix != 0).argmax(axis=1)
    diagonal = matrix.diagonal().copy()
    terms = np.maximum(np.arange(n) - first, 0) + 4
    g = 2 * terms * 2.0**-53 * SAFE
    lost = norm(lambda x: d * error(d * x), np.ones(n)) + 2.0**-51 + UNDERFLOW
    ceiling = float((g * diagonal).sum()) * SAFE
    c = lost + min(ceiling, 16 * float(g.max()))
    for _ in range(ROUNDS):
        if not c < 0.25:
            return False
        np.fill_diagonal(matrix, diagonal - c)
        try:
            factor = np.linalg.cholesky(matrix)
        except np.linalg.LinAlgError:
            return False
        if not (np.isfinite(factor).all() and (factor.diagonal() > 0).all()):
            return False
        needed = lost + min(ceiling, norm(_gram(np.abs(factor), np.sqrt(g) * SAFE), np.ones(n)))
        if needed * SAFE < c:
            return True
        c = needed * (1 + 2.0**-10)
    return False
