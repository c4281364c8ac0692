"""Networks that begin with convolutions, frequency by frequency: where they are too large for anything else."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import sqrt

from provenn.solvers.base import Budget, Phase, Progress
from provenn.solvers.lipsdp.layout import METHOD
from provenn.solvers.lipsdp.torus import Choice, bounded
from provenn.verifier.certificate.lipschitz import Proved, Prover
from provenn.verifier.check.quadratic import COORDINATES
from provenn.verifier.graph import Graph

SHARE = 0.6
"""Share of the time for the search; proving and checking take the rest."""


def wanted(prover: Prover, method: str) -> bool:
    """Whether the method is asked for, or chosen: for l2 and everywhere, where the dense program is too large."""
    fits = prover.statement.norm == "2" and prover.statement.region is None
    return method == METHOD or (method == "auto" and fits and prover.units.increments.end > COORDINATES)


def proofs(graph: Graph, prover: Prover, seconds: float, progress: Progress) -> list[Proved] | None:
    """One a group of rows, with an equal share of the seconds; None where one has no bound.

    Raises: BackendError, CertificateRejected or ResourceLimit where the network or the question is none for it.
    """
    found, groups, budget = list[Proved](), prover.statement.groups, Budget(seconds)
    for number, rows in enumerate(groups):
        share = Budget(budget.left * SHARE / (len(groups) - number))
        best = bounded(graph, prover, rows, _watch(progress, (number, len(groups)), share), partial(_over, share))
        proved = None if best is None else prover.least_by_frequency(rows, *best)
        if proved is None:
            return None
        found.append(proved)
    return found


def _watch(progress: Progress, place: tuple[int, int], share: Budget) -> Callable[[Choice], bool]:
    def improved(choice: Choice) -> bool:
        value = sqrt(choice.bound)
        progress(*place, Phase(f"{METHOD}: at most about {value:.6g}", value))
        return share.left > 0

    return improved


def _over(share: Budget) -> bool:
    return share.left <= 0
