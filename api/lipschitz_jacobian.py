"""Constants in the l-infinity norm over a region by bounds of the Jacobian, row by row."""

from __future__ import annotations

from collections.abc import Iterator

from provenn.solvers.base import Budget, Progress
from provenn.verifier.certificate.jacobian import JacobianProver, Method
from provenn.verifier.certificate.lipschitz import Proved, Prover
from provenn.verifier.check import CertificateRejected
from provenn.verifier.errors import BackendError

METHODS: dict[str, Method] = {"crown": "crown", "ibp": "interval"}
"""Name -> how intervals inside the Jacobian are found. Those of the network are CROWN's, for both."""

NAMED = {
    "crown": "bounds of the Jacobian over a region by CROWN, for --norm inf",
    "ibp": "the same by intervals inside the Jacobian",
}
"""What `--method` says of them."""

SHARE = 0.4
"""Share of the time that `auto` spends here at most, before LipSDP."""


def answers(prover: Prover) -> bool:
    """Whether the statement is one for them: l-infinity of the inputs, over a region, each row by itself."""
    stated = prover.statement
    return stated.norm == "inf" and stated.region is not None and stated.output != "2"


def proofs(prover: Prover, method: str, progress: Progress) -> list[Proved]:
    """Of every row, in their order.

    Raises: BackendError where the question is none for them; CertificateRejected where nothing is proved.
    """
    if not answers(prover):
        wanted = "--norm inf with --to inf, 1 or each, around an input (--at with --eps)"
        raise BackendError(method, f"it bounds Jacobians over a region: ask for {wanted}; or use auto")
    return list(_each(prover, METHODS[method], progress))


def first(prover: Prover, budget: Budget, progress: Progress) -> dict[int, Proved]:
    """For `auto`: by row what CROWN proves in a share of the time; rows are left out where it ends, or nothing is."""
    found: dict[int, Proved] = {}
    if not answers(prover):
        return found
    until = budget.left * (1 - SHARE)
    try:
        for row, proved in enumerate(_each(prover, "crown", progress)):
            found[row] = proved
            if budget.left < until:
                break
    except CertificateRejected:
        return found
    return found


def _each(prover: Prover, method: Method, progress: Progress) -> Iterator[Proved]:
    jacobians, rows = JacobianProver(prover), len(prover.stated.rows)
    for row in range(rows):
        progress(row, rows, "Jacobian")
        yield jacobians.prove(row, method=method)
