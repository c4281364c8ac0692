"""Claims of kind `lipschitz-jacobian`: the least number that the kernel proves by bounds of a Jacobian."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from provenn.verifier.certificate.lipschitz import Leaves, Method, Proved, Prover
from provenn.verifier.check.jacobian import norm, row_bounds
from provenn.verifier.check.rounding import CertificateRejected

SLACK = 2.0**-22
"""Share by which a number is above what was proved here, so that it is on machines that round products otherwise."""


class JacobianProver:
    """Proves rows of a statement, over its region as a whole; `prover` bundles what it proves.

    tick: called now and then, instead of the prover's; what it raises ends a proof.
    """

    def __init__(self, prover: Prover, tick: Callable[[], object] | None = None) -> None:
        self.prover, self.tick = prover, tick or prover.tick

    def prove(self, rows: Sequence[int], method: Method = "crown") -> Proved:
        """The least number that is proved for rows together, in the statement's norms.

        Raises: CertificateRejected where nothing finite is proved, or an operator has no slopes there.
        """
        stated, units = self.prover.stated, self.prover.units
        with np.errstate(all="ignore"):
            network = units.adjoint.over(units.slopes, method)
            each = [row_bounds(network, stated.rows[i], method, self.tick) for i in rows]
            upper = loosened(norm(each, stated.scale, stated.inward, stated.outward))
        if not np.isfinite(upper):
            raise CertificateRejected("claims", f"nothing finite is proved of rows {', '.join(map(str, rows))}")
        return Proved(tuple(rows), upper, {}, None, jacobian=Leaves(method))


def loosened(upper: float) -> float:
    """A bound to claim of what this one was found for."""
    return float(upper * (1 + SLACK) + np.finfo(np.float64).tiny)
