"""Constants by bounds of the Jacobian, over a region as a whole, or by branch and bound over its parts."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from provenn.api import parts
from provenn.solvers.base import Budget, Phase, Progress
from provenn.solvers.branch_and_bound.derivative import Goal, Search
from provenn.verifier.certificate.jacobian import JacobianProver, loosened
from provenn.verifier.certificate.lipschitz import Leaves, Method, Proved, Prover
from provenn.verifier.certificate.slopes import CaseSlopes, optimised_neurons, relu_names
from provenn.verifier.check import CertificateRejected, Network
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region

Numbers = NDArray[np.float64]

METHODS: dict[str, Method] = {
    "crown": "crown",
    "alpha-crown": "crown",
    "recurjac": "recurjac",
    "ibp": "interval",
    "bab": "crown",
}
"""Name -> how the Jacobian is bounded. The network has CROWN's bounds, for alpha-crown by optimised slopes."""

NAMED = {
    "crown": "bounds of the Jacobian by CROWN",
    "alpha-crown": "the same, bounds of the network by optimised slopes, around an input",
    "recurjac": "the same, a factor of unknown sign by its interval alone (RecurJac)",
    "ibp": "the same by intervals inside the Jacobian",
    "bab": "crown, and branch and bound over parts of the region until the time ends",
}
"""What `--method` says of them."""

SHARE, ALONE, BRANCHING, LEFT = 0.4, 0.45, 0.5, 0.75
"""Shares of the time that `auto` has for the region as a whole, and where nothing comes after it; of what is left for
parts; for those where `bab` was asked for. The rest is for the certificate, whose check takes as long as its proofs."""

OPEN, SMALL = 128, 2048
"""Neurons that may switch in the region, and inputs and neurons in all, at most, for `auto` to try parts."""

SLICE = 0.5
"""Seconds for one row before another one may be more urgent."""

EXACT = 1e-9
"""Share by which a bound may lie above what a pair shows, and be called exact."""


def method_name(proved: Proved) -> str:
    """Of a proof by bounds of the Jacobian, what it is called."""
    leaves = proved.jacobian or Leaves()
    return "bab" if leaves.chunks else {"interval": "ibp"}.get(leaves.method, leaves.method)


def own_slopes(network: Network, graph: Graph, region: Region | None, method: str, budget: Budget) -> CaseSlopes:
    """Of the network's neurons, for alpha-crown.   Raises: BackendError without a region."""
    if method != "alpha-crown":
        return CaseSlopes()
    if region is None:
        raise BackendError(method, "slopes are optimised over a region: give --at and --eps")
    until = budget.left * (1 - SHARE)
    return optimised_neurons(graph, region, relu_names(graph, network), lambda: budget.left < until)


class _ShareOver(Exception):
    """The share of the time for the region as a whole has ended."""


@dataclass(eq=False)
class Local:
    """What is proved of the rows of a statement, by groups."""

    prover: Prover
    budget: Budget
    progress: Progress
    known: dict[tuple[int, ...], Proved] = field(default_factory=dict)

    @property
    def columns(self) -> bool:
        """Whether rows are bounded together that multipliers bound one by one: l1 to l1, column by column."""
        return self.prover.stated.inward == self.prover.stated.outward == "1"

    @property
    def groups(self) -> list[tuple[int, ...]]:
        """Rows that are bounded together."""
        stated = self.prover.stated
        every = tuple(range(len(stated.rows)))
        return [every] if self.columns or stated.outward == "2" else [(row,) for row in every]

    @property
    def methods(self) -> list[str]:
        """What bounded the groups."""
        return list(dict.fromkeys(map(method_name, self.known.values())))

    @property
    def proved(self) -> list[Proved] | None:
        """One claim a group, in order; None as long as one is missing."""
        return [self.known[rows] for rows in self.groups] if len(self.known) == len(self.groups) else None

    def bound(self, method: str) -> None:
        """Over the region as a whole.   Raises: CertificateRejected where nothing is proved; what the tick raises."""
        jacobians = JacobianProver(self.prover)
        for number, rows in enumerate(self.groups):
            self.progress(number, len(self.groups), "Jacobian")
            self.known[rows] = jacobians.prove(rows, METHODS[method])

    def bound_in(self, share: float) -> bool:
        """By intervals, and then by crown, the largest first, until this share of the time is over; whether all groups
        have some bound.
        """
        until = self.budget.left * (1 - share)

        def tick() -> None:
            if self.budget.left < until:
                raise _ShareOver

        jacobians = JacobianProver(self.prover, tick)
        try:
            for rows in self.groups:
                self.known[rows] = jacobians.prove(rows, METHODS["ibp"])
            for number, rows in enumerate(sorted(self.groups, key=lambda rows: -self.known[rows].upper)):
                self.progress(number, len(self.groups), "Jacobian")
                found = jacobians.prove(rows, METHODS["crown"])
                self.known[rows] = min(found, self.known[rows], key=lambda proved: proved.upper)
        except (_ShareOver, CertificateRejected):
            return len(self.known) == len(self.groups)
        return True

    @property
    def divisible(self) -> bool:
        """Whether parts may help: there is a region, every row is a group, and few neurons may switch."""
        slopes = self.prover.units.slopes.values()
        opened, size = sum(int((a < b).sum()) for a, b in slopes), sum(len(a) for a, _ in slopes)
        few = 0 < opened <= OPEN and size + self.prover.network.steps[0].length <= SMALL
        return self.prover.bounds is not None and len(self.groups[0]) == 1 and few

    def branch(self, lowers: Sequence[float], share: float) -> tuple[bool, dict[int, Numbers]]:
        """By branch and bound in this share of the time: whether more could gain nothing, and by row an input where the
        derivative may be largest.

        lowers: what pairs of inputs show, of the whole or, for "each", of every row; needs what `bound` finds.
        Raises: BackendError where there is nothing to split, or the kernel does not bound parts of the network.
        """
        if self.prover.bounds is None or len(self.groups[0]) > 1:
            raise BackendError("bab", "it splits a region, row by row: give --at and --eps, and --to inf, 1 or each")
        branching = _Branching(self, lowers, Budget(self.budget.left * share))
        done = branching.run()
        points = {row: search.promising() for row, search in sorted(branching.searches.items())}
        return done, {row: point for row, point in points.items() if point is not None}


class _Branching:
    """Branch and bound of several rows."""

    def __init__(self, local: Local, lowers: Sequence[float], budget: Budget) -> None:
        self.local, self.budget, self.slice = local, budget, 0.0
        prover, stated = local.prover, local.prover.stated
        assert prover.bounds is not None
        self.largest = stated.outward == "inf"
        self.spent = {row: 0.0 for (row,) in local.groups}
        self.enough = dict.fromkeys(self.spent, lowers[0] if self.largest else 0.0)
        if stated.outward == "each":
            self.enough = {row: lowers[row] for row in self.spent}
        self.searches: dict[int, Search] = {}
        self.bounds, self.units = prover.bounds, prover.units
        self.goals = {row: Goal(stated.rows[row], stated.inward, stated.scale) for row in self.spent}

    def run(self) -> bool:
        """Slice by slice the row that matters most."""
        waiting = dict(self.spent)
        while waiting and self.budget.left > 0:
            row = max(waiting, key=self._urgency)
            words = Phase(f"parts: at most {self._whole():.6g}", self._whole())
            self.local.progress(len(self.spent) - len(waiting), len(self.spent), words)
            start = time.monotonic()
            done = self._search(row)
            self.spent[row] += time.monotonic() - start
            if done:
                del waiting[row]
                if self.largest and self.upper(row) >= max(map(self.upper, waiting), default=0.0):
                    waiting = {}
        self._keep()
        return not waiting

    def upper(self, row: int) -> float:
        """What is proved of a row."""
        known = self.local.known[row,].upper
        return min(known, self.searches[row].upper) if row in self.searches else known

    def _whole(self) -> float:
        return max(map(self.upper, self.spent))

    def _urgency(self, row: int) -> float:
        return self.upper(row) if self.largest else -self.spent[row]

    def _search(self, row: int) -> bool:
        """One slice; whether the row is finished: exact, or at what is enough."""
        enough = self.enough[row] * (1 + EXACT)
        if self.upper(row) <= enough:
            return True
        if row not in self.searches:
            self.searches[row] = parts.search_over(self.bounds, self.units, self.goals[row])
        search = self.searches[row]
        return parts.run(search, enough, Budget(min(SLICE, self.budget.left))) <= enough or search.exact

    def _keep(self) -> None:
        """Trees whose bounds are smaller than that of the region as a whole."""
        for row, search in self.searches.items():
            if loosened(search.upper) < self.local.known[row,].upper:
                upper, leaves = loosened(search.upper), parts.leaves(search)
                self.local.known[row,] = Proved((row,), upper, {}, None, jacobian=leaves)
