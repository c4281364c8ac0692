"""Claims of kind `lipschitz-jacobian`: the least number that the kernel proves of one row by bounds of its Jacobian."""

from __future__ import annotations

from typing import Literal

import numpy as np

from provenn.verifier.certificate.emit import ABSOLUTE, Single, loosened
from provenn.verifier.certificate.lipschitz import Proved, Prover
from provenn.verifier.check.jacobian import claimed_steps, norm, row_bounds
from provenn.verifier.check.network import Elementwise, Index, Network
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.rows import Bounds, Box

Method = Literal["crown", "interval"]
"""How intervals inside the Jacobian are found: by backward passes where they matter, or by interval arithmetic alone.

The last bound is one backward pass in both.
"""


class JacobianProver:
    """Proves rows of a statement in the l-infinity norm over a region; `prover` bundles what it proves.

    network: the kernel's one from a row c to |c J|, whose step t has the interval of the row's derivative by step t.
    Raises: CertificateRejected for another norm, no region, or an operator without slopes there.
    """

    def __init__(self, prover: Prover) -> None:
        if prover.bounds is None or prover.statement.norm != "inf":
            raise CertificateRejected("claims", "Jacobians are bounded over a region, in the l-infinity norm")
        self.prover, self.network = prover, prover.units.adjoint

    def prove(self, row: int, method: Method = "crown") -> Proved:
        """The least number that is proved for a row, and the intervals behind it.

        Raises: CertificateRejected where nothing finite is proved.
        """
        stated, found = self.prover.stated, dict[str, tuple[Single, Single]]()
        with np.errstate(all="ignore"):
            bounds = row_bounds(self.network, stated.rows[row], self.prover.tick)
            for name, index in claimed_steps(self.network).items():
                box = bounds.box(index)
                if method == "crown":
                    box = _improved(bounds, index, box)
                found[name] = loosened(box)
                bounds.accept(index, Box(*(end.astype(np.float64) for end in found[name])))
            upper = norm(bounds, stated.scale)
        ends = [np.stack(pair) for pair in found.values()]
        if not (np.isfinite(upper) and all(np.isfinite(e).all() and (e[0] <= e[1]).all() for e in ends)):
            raise CertificateRejected("claims", f"nothing finite is proved of row {row}")
        return Proved((row,), upper, {}, None, boxes=found)


def _improved(bounds: Bounds, index: int, box: Box) -> Box:
    """The box cut by rows where that could make a line tighter."""
    open_, lower, upper = _open(bounds.network, index, box), box.lower.copy(), box.upper.copy()
    lower[open_] = np.fmax(lower[open_], bounds.neuron_bounds(index, open_, 1))
    upper[open_] = np.fmin(upper[open_], -bounds.neuron_bounds(index, open_, -1))
    return Box(lower, upper)


def _open(network: Network, index: int, box: Box) -> Index:
    """Neurons on both sides of 0, clearly, whose reader has not the same slope on both: a gain with a < b, or |.|."""
    different = np.zeros(len(box.lower), bool)
    for step in network.steps:
        if isinstance(step, Elementwise) and step.sources[0] == index:
            a, b = step.function.slopes(*box)
            different |= a < b
    reach = np.minimum(-box.lower, box.upper)
    return np.flatnonzero(different & (reach > ABSOLUTE * box.largest.max(initial=0.0)))
