"""Intervals for the entries of a network's Jacobian over a region, proved; beside them what points of it show."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api import parts
from provenn.api.certification import LoadedModel
from provenn.api.domain import Place
from provenn.api.lipschitz import Contradiction
from provenn.api.lipschitz_jacobian import METHODS, own_slopes
from provenn.api.lipschitz_question import matrix
from provenn.api.monotonicity import BRANCHING, INTERRUPTED, SEARCHING, Options
from provenn.api.notebook import Card, Intervals
from provenn.api.proofs import OutOfTime
from provenn.api.results import Origin, described, traced
from provenn.api.timing import overdue
from provenn.solvers.base import Budget, Progress, Verdict, silent
from provenn.solvers.branch_and_bound.derivative import Goal
from provenn.solvers.ranges import Ranges, seen
from provenn.verifier.certificate.entries import EntriesProver, Entry, EntryClaim, loosened
from provenn.verifier.certificate.lipschitz import Leaves
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.errors import BackendError, InvalidSpecification
from provenn.verifier.region import Region
from provenn.verifier.version import provenn_version

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """rows: of outputs, as for Lipschitz constants; place: the region."""

    place: Place
    rows: str = "all"


@dataclass(frozen=True, eq=False)
class JacobianResult:
    """Proved ends [rows, inputs] of every entry of C J over the region, None unless verified.

    seen: the least and the greatest derivative that float64 has at points of the region. verdict: verified, unknown or
    timeout, with the reason, or why the bounds are no tighter; assurance `checked` where verified; certificate: the
    bundle's files then. origin: where a service has answered; `seen` is then what it says.
    """

    verdict: str
    method: str
    seconds: float
    seen: Ranges
    lower: Numbers | None = None
    upper: Numbers | None = None
    assurance: str | None = None
    certificate: dict[str, bytes] | None = None
    reason: str | None = None
    stats: dict[str, float] = field(default_factory=dict)
    origin: Origin | None = None

    def _repr_html_(self) -> str:
        """For notebooks: the proved interval of every derivative."""
        facts = [*described(self.method, self.seconds, self.assurance), *traced(self.certificate, self.origin)]
        figures = []
        if self.lower is not None and self.upper is not None:
            names = [f"{row}, {column}" for row, column in np.ndindex(self.lower.shape)]
            spans = list(zip(self.lower.ravel().tolist(), self.upper.ravel().tolist(), strict=True))
            figures = [Intervals("proved derivatives (output, input)", spans, names)]
        return Card("Jacobian", self.verdict, facts, figures, [self.reason] if self.reason else []).html()


def jacobian(model: LoadedModel, question: Question, options: Options, progress: Progress = silent) -> JacobianResult:
    """Bounds over the region as a whole; with method bab then over its parts, the loosest ends first, until Ctrl-C.

    Raises: InvalidSpecification for a question that does not fit; Contradiction.
    """
    inputs, outputs = prod(model.graph.input_shape), prod(model.graph.output_shape)
    if len(question.place.set.exact_lower) != inputs:
        raise InvalidSpecification(f"the region has {len(question.place.set.exact_lower)} numbers for {inputs} inputs")
    return _Run(model, question, matrix(question.rows, outputs), options, progress).answer()


class _Run:
    """One question."""

    def __init__(
        self,
        model: LoadedModel,
        question: Question,
        rows: tuple[tuple[float, ...], ...],
        options: Options,
        progress: Progress,
    ) -> None:
        self.model, self.place, self.rows, self.options = model, question.place, rows, options
        self.progress, self.budget = progress, Budget(options.seconds)
        self.trees: dict[tuple[int, int, int], Leaves] = {}
        self.stats: dict[str, float] = {}
        self.reason: str | None = None

    def answer(self) -> JacobianResult:
        graph = self.model.graph
        region = Region.of([self.place.set], graph.input_shape, "cpu", torch.float64)
        rows = torch.tensor(self.rows, dtype=torch.float64)
        self.progress(0, len(self.rows), "derivatives at points")
        found = seen(graph, region, rows, SEARCHING * self.options.seconds, self.options.seed)
        try:
            known = self._proved(region, found)
        except CertificateRejected as refusal:
            return self._said(Verdict.UNKNOWN, found, f"no proof is possible: {refusal.reason}")
        except OutOfTime:
            return self._said(Verdict.TIMEOUT, found, "the time ended before everything was bounded")
        return replace(known, seconds=self.options.seconds - self.budget.left)

    def _said(self, verdict: Verdict, found: Ranges, reason: str | None = None) -> JacobianResult:
        seconds = self.options.seconds - self.budget.left
        return JacobianResult(str(verdict), self.options.method, seconds, found, reason=reason, stats=self.stats)

    def _tick(self) -> None:
        if overdue(self.budget):
            raise OutOfTime

    def _proved(self, region: Region, found: Ranges) -> JacobianResult:
        network = self.model.network
        if network is None:
            raise CertificateRejected("model", self.model.unreadable or "it is not read")
        slopes = own_slopes(network, self.model.graph, region, self.options.method, self.budget)
        prover = EntriesProver(network, self.rows, [self.place.stated], self._tick, [slopes])
        columns, method = list(range(network.steps[0].length)), METHODS[self.options.method]
        ends: list[tuple[Numbers, Numbers]] = []
        for row in range(len(self.rows)):
            self.progress(row, len(self.rows), "derivatives")
            ends.append(prover.intervals(0, row, columns, method))
        lower, upper = (np.stack(side) + 0.0 for side in zip(*ends, strict=True))
        if not (np.isfinite(lower).all() and np.isfinite(upper).all()):
            raise CertificateRejected("entries", "some entry has no finite bound")
        if self.options.method == "bab":
            try:
                self._branch(prover, (lower, upper), found)
            except BackendError as refusal:
                self.reason = refusal.status
            except KeyboardInterrupt:
                self.reason = INTERRUPTED
        if (found.lower < lower).any() or (found.upper > upper).any():
            raise Contradiction("a proved bound of a derivative is violated at a point")
        files = self._certificate(prover, lower, upper)
        known = self._said(Verdict.VERIFIED, found, self.reason)
        return replace(known, lower=lower, upper=upper, assurance="checked", certificate=files)

    def _branch(self, prover: EntriesProver, ends: tuple[Numbers, Numbers], found: Ranges) -> None:
        """The ends that lie farthest from what was seen first; each gets its share of the time left."""
        lower, upper = ends
        slack = np.stack([found.lower - lower, upper - found.upper])
        order = np.argsort(-slack, axis=None)
        order = order[slack.ravel()[order] > 0]
        budget, region = Budget(self.budget.left * BRANCHING), prover.regions[0]
        for number, place in enumerate(order.tolist()):
            if budget.left <= 0:
                break
            side, row, column = map(int, np.unravel_index(place, slack.shape))
            sign, share = 2 * side - 1, Budget(budget.left / (len(order) - number))
            self.progress(number, len(order), "parts")
            goal = Goal(prover.stated.rows[row], column=column, sign=sign)
            search = parts.search_over(region.bounds, region.units, goal)
            enough = float((found.upper if side else -found.lower)[row, column])
            new = float(loosened(np.array(parts.run(search, enough, share))))
            self.stats["parts"] = self.stats.get("parts", 0.0) + search.partition.parts
            if new < (upper if side else -lower)[row, column]:
                (upper if side else lower)[row, column] = sign * new + 0.0
                self.trees[row, column, sign] = parts.leaves(search)

    def _certificate(self, prover: EntriesProver, lower: Numbers, upper: Numbers) -> dict[str, bytes]:
        """Ends of the region as a whole in one claim a row, those of trees in claims of their own."""
        stated: list[Entry] = []
        claims: list[EntryClaim] = []
        for row in range(len(self.rows)):
            start, trees = len(stated), list[tuple[Entry, Leaves]]()
            for column in range(lower.shape[1]):
                both = [float(lower[row, column]), float(upper[row, column])]
                for side, sign in enumerate((-1, 1)):
                    if (row, column, sign) in self.trees:
                        alone = [end if i == side else None for i, end in enumerate(both)]
                        trees.append((Entry(row, column, *alone), self.trees[row, column, sign]))
                rest = [None if (row, column, s) in self.trees else end for s, end in zip((-1, 1), both, strict=True)]
                stated += [Entry(row, column, *rest)] if rest != [None, None] else []
            some = tuple(range(start, len(stated)))
            claims += [EntryClaim(0, row, some, Leaves(METHODS[self.options.method]))] if some else []
            for entry, leaves in trees:
                claims.append(EntryClaim(0, row, (len(stated),), leaves))
                stated.append(entry)
        files = prover.bundle(stated, claims, {"provenn": provenn_version(), "torch": torch.__version__})
        self.progress(0, 1, "check")
        start_time = time.monotonic()
        check(files, prover.network, tick=self._tick)
        self.stats["check_seconds"] = time.monotonic() - start_time
        return files
