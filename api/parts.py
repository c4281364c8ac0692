"""Branch and bound over the parts of a region, and the proof of what it found."""

from __future__ import annotations

from provenn.solvers.base import Budget
from provenn.solvers.branch_and_bound.derivative import Goal, Search
from provenn.verifier.certificate.lipschitz import Leaves
from provenn.verifier.certificate.parts import Partition
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.lipschitz import Units
from provenn.verifier.check.rows import Bounds
from provenn.verifier.errors import BackendError


def search_over(bounds: Bounds, units: Units, goal: Goal) -> Search:
    """A search that has not begun.   Raises: BackendError where the kernel does not bound parts of the network."""
    try:
        return Search(Partition(bounds), units, goal)
    except CertificateRejected as refusal:
        raise refused(refusal) from refusal


def run(search: Search, enough: float, budget: Budget) -> float:
    """Until the bound is at most `enough`, cannot fall, or the time is over: the bound.   Raises: BackendError."""
    try:
        return search.run(enough, lambda: budget.left <= 0)
    except CertificateRejected as refusal:
        raise refused(refusal) from refusal


def leaves(search: Search) -> Leaves:
    """The proof of its bound."""
    return Leaves("crown", search.partition.steps, tuple(search.partition.written()))


def refused(refusal: CertificateRejected) -> BackendError:
    """Method bab does not take a network."""
    return BackendError("bab", f"{refusal.reason}; method crown bounds the region as a whole")
