"""Whether outputs only rise, or only fall, with a feature: proved for all inputs of the regions, or shown by a pair.

What is called increasing or decreasing the trusted kernel has proved, once while it was found and once more from the
finished certificate; a pair of inputs counts after onnxruntime agreed on it. A rise is meant in the weak sense.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf, prod

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api import parts
from provenn.api.certification import LoadedModel
from provenn.api.domain import Place
from provenn.api.lipschitz import Contradiction
from provenn.api.lipschitz_jacobian import METHODS, own_slopes
from provenn.api.lipschitz_question import matrix
from provenn.api.notebook import Card, Table, short
from provenn.api.proofs import OutOfTime
from provenn.api.results import Origin, described, traced
from provenn.api.timing import overdue
from provenn.solvers.base import Budget, Progress, Verdict, silent
from provenn.solvers.branch_and_bound.derivative import Goal
from provenn.solvers.trend import Lines, Pair
from provenn.verifier.certificate.entries import EntriesProver, Entry, EntryClaim
from provenn.verifier.certificate.lipschitz import Leaves
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.errors import BackendError, InvalidSpecification
from provenn.verifier.region import Region
from provenn.verifier.version import provenn_version

SEARCHING, BRANCHING = 0.15, 0.8
"""Shares of the time for pairs, and for branch and bound of what is left then; the rest is for the certificate."""

FIRST = 0.4
"""Share of the time for pairs until every dependence was looked at once."""

SHOWN = 20
"""Dependences that a notebook shows."""

LATE = "the time ended before everything was decided"
INTERRUPTED = "interrupted: more time may decide more"
WHOLE = "{method} bounds the region as a whole; method bab divides it"


class Trend(StrEnum):
    """What is known of one output's dependence on one feature."""

    INCREASING = "increasing"
    DECREASING = "decreasing"
    CONSTANT = "constant"
    NEITHER = "neither"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Question:
    """rows: of outputs, as for Lipschitz constants; columns: inputs; places: regions, in each of which it is asked.

    expected: the trend that every dependence has to have, "increasing" or "decreasing"; None: either.
    """

    columns: tuple[int, ...]
    places: tuple[Place, ...]
    rows: str = "all"
    expected: str | None = None


@dataclass(frozen=True)
class Options:
    """method: of METHODS, `bab` by default; wall-clock seconds for everything; seed of the search for pairs.

    Raises: BackendError for an unknown method.
    """

    method: str = "bab"
    seconds: float = 60.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BackendError(self.method, f"no such method; there are {', '.join(METHODS)}")


@dataclass(eq=False)
class Dependence:
    """Of one row of outputs on one input: proved bounds of the derivative, pairs that fall and rise, the verdict.

    lower, upper: over all places; infinite where nothing is known.
    """

    row: int
    column: int
    lower: float = -inf
    upper: float = inf
    fall: Pair | None = None
    rise: Pair | None = None

    @property
    def trend(self) -> Trend:
        """The verdict."""
        match (self.lower >= 0, self.upper <= 0):
            case (True, True):
                return Trend.CONSTANT
            case (True, _):
                return Trend.INCREASING
            case (_, True):
                return Trend.DECREASING
        return Trend.NEITHER if self.fall and self.rise else Trend.UNKNOWN

    def contradicts(self, expected: str | None) -> bool:
        """Whether a pair shows another trend; without one expected: both that it falls and that it rises."""
        if expected is None:
            return self.trend == Trend.NEITHER
        return (self.fall if expected == Trend.INCREASING else self.rise) is not None

    def is_as(self, expected: str | None) -> bool:
        """Whether this trend is proved; without one expected: whether any is."""
        decided = (Trend.INCREASING, Trend.DECREASING) if expected is None else (expected,)
        return self.trend in (*decided, Trend.CONSTANT)


@dataclass(frozen=True, eq=False)
class MonotonicityResult:
    """What is known: a dependence for every row and column, rows first.

    assurance: `checked` where something is proved; certificate: the bundle's files then; reason: why not everything is
    decided; timed_out, interrupted: whether the end of the time, or Ctrl-C, is why. origin: where a service has
    answered. expected: as the question has it.
    """

    dependences: tuple[Dependence, ...]
    method: str
    seconds: float
    assurance: str | None = None
    certificate: dict[str, bytes] | None = None
    reason: str | None = None
    stats: dict[str, float] = field(default_factory=dict)
    timed_out: bool = False
    interrupted: bool = False
    origin: Origin | None = None
    expected: str | None = None

    @property
    def verdict(self) -> str:
        """Falsified where pairs contradict, verified where all are proved, as expected; else timeout or unknown."""
        if any(each.contradicts(self.expected) for each in self.dependences):
            return str(Verdict.FALSIFIED)
        if all(each.is_as(self.expected) for each in self.dependences):
            return str(Verdict.VERIFIED)
        return str(Verdict.TIMEOUT if self.timed_out else Verdict.UNKNOWN)

    def _repr_html_(self) -> str:
        """For notebooks: a row a dependence."""
        facts = [*described(self.method, self.seconds, self.assurance), *traced(self.certificate, self.origin)]
        rows = [
            [str(each.row), str(each.column), str(each.trend), short(each.lower), short(each.upper)]
            for each in self.dependences[:SHOWN]
        ]
        more = f", {len(rows)} of {len(self.dependences)}" if len(self.dependences) > len(rows) else ""
        table = Table("outputs by inputs" + more, ["row", "input", "trend", "derivative from", "to"], rows)
        return Card("Monotonicity", self.verdict, facts, [table], [self.reason] if self.reason else []).html()


def monotonicity(
    model: LoadedModel, question: Question, options: Options, progress: Progress = silent
) -> MonotonicityResult:
    """Searches for pairs, then proves what no pair contradicts, until the time ends. Ctrl-C keeps what is proved.

    Raises: InvalidSpecification, ResourceLimit for a question that does not fit; Contradiction.
    """
    inputs, outputs = prod(model.graph.input_shape), prod(model.graph.output_shape)
    if not question.columns or not all(0 <= column < inputs for column in question.columns):
        raise InvalidSpecification(f"features are inputs 0 to {inputs - 1}, at least one of them")
    if len(set(question.columns)) < len(question.columns) or not question.places:
        raise InvalidSpecification("every feature is asked about once, over at least one region")
    for place in question.places:
        if len(place.set.exact_lower) != inputs:
            raise InvalidSpecification(f"a region has {len(place.set.exact_lower)} numbers for {inputs} inputs")
        require_several(question.columns, place)
    return _Run(model, question, matrix(question.rows, outputs), options, progress).answer()


def require_several(columns: Sequence[int], place: Place) -> None:
    """Raises: InvalidSpecification for an input that has one value alone there."""
    lower, upper = place.set.exact_lower, place.set.exact_upper
    single = [column for column in columns if lower[column] == upper[column]]
    if single:
        raise InvalidSpecification(f"input {single[0]} has one value alone: there is nothing to be monotone in")


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
        self.model, self.question, self.rows, self.options = model, question, rows, options
        self.progress, self.budget = progress, Budget(options.seconds)
        self.found = [Dependence(row, column) for row in range(len(rows)) for column in question.columns]
        self.known: dict[tuple[int, int, int, int], tuple[float, Leaves]] = {}
        self.stats: dict[str, float] = {"regions": len(question.places)}
        self.reason: str | None = None
        self.timed_out = self.interrupted = False

    def answer(self) -> MonotonicityResult:
        start, prover = time.monotonic(), None
        try:
            self._pairs()
            prover = self._prover()
            self._whole(prover)
            if self.options.method == "bab":
                self._branch(prover)
        except CertificateRejected as refusal:
            self.reason = f"no proof is possible: {refusal.reason}"
        except OutOfTime:
            self.timed_out = True
        except KeyboardInterrupt:
            self.interrupted = True
        self._gather()
        for each in self.found:
            if (each.fall and each.lower >= 0) or (each.rise and each.upper <= 0):
                raise Contradiction(
                    f"output row {each.row}, input {each.column}: proved {each.trend}, but a pair differs"
                )
        files = None if prover is None else self._certificate(prover)
        seconds, checked = time.monotonic() - start, None if files is None else "checked"
        about = (tuple(self.found), self.options.method, seconds, checked, files, self._why(), self.stats)
        ended, expected = (self.timed_out, self.interrupted), self.question.expected
        return MonotonicityResult(*about, *ended, expected=expected)

    def _why(self) -> str | None:
        """Not everything is decided."""
        if all(each.trend != Trend.UNKNOWN for each in self.found):
            self.timed_out = False
            return None
        if self.interrupted:
            return INTERRUPTED
        if self.reason is None and self.timed_out:
            return LATE
        return self.reason or (None if self.options.method == "bab" else WHOLE.format(method=self.options.method))

    def _lines(self, case: int, column: int) -> Lines:
        place, seed = self.question.places[case], self.options.seed + case
        return Lines(self.model.graph, self.model.executor, place.set, column, seed, place.values)

    def _pairs(self) -> None:
        """By search, in turn over regions, until a share of the time is over; once everywhere until a larger one is."""
        total, seconds = len(self.found) * len(self.question.places), self.budget.left
        for number, (case, each) in enumerate((c, e) for c in range(len(self.question.places)) for e in self.found):
            self.progress(number, total, "pairs of inputs")
            share = FIRST if number < len(self.found) else SEARCHING
            if number and self.budget.left < seconds * (1 - share):
                break
            if not (each.fall and each.rise):
                self._look(case, each)

    def _look(self, case: int, each: Dependence, near: NDArray[np.float64] | None = None) -> None:
        row = torch.tensor(self.rows[each.row], dtype=torch.float64)
        fall, rise = self._lines(case, each.column).pairs(row, near)
        each.fall, each.rise = each.fall or fall, each.rise or rise

    def _prover(self) -> EntriesProver:
        """Raises: CertificateRejected where the kernel does not read the network or a region; OutOfTime."""
        network, graph = self.model.network, self.model.graph
        if network is None:
            raise CertificateRejected("model", self.model.unreadable or "it is not read")
        places = self.question.places
        regions = [Region.of([place.set], graph.input_shape, "cpu", torch.float64) for place in places]
        slopes = [own_slopes(network, graph, region, self.options.method, self.budget) for region in regions]
        return EntriesProver(network, self.rows, [place.stated for place in places], self._tick, slopes)

    def _tick(self) -> None:
        if overdue(self.budget):
            raise OutOfTime

    def _whole(self, prover: EntriesProver) -> None:
        """Bounds of the regions as a whole.   Raises: OutOfTime; CertificateRejected where some step has no slopes."""
        columns, method = list(self.question.columns), METHODS[self.options.method]
        for case, row in ((c, r) for c in range(len(prover.regions)) for r in range(len(self.rows))):
            self.progress(case, len(prover.regions), "derivatives")
            lower, upper = prover.intervals(case, row, columns, method)
            for column, low, high in zip(columns, lower.tolist(), upper.tolist(), strict=True):
                self.known[case, row, column, -1] = (-low, Leaves(method))
                self.known[case, row, column, 1] = (high, Leaves(method))
        self._gather()

    def _gather(self) -> None:
        """Of every dependence the bounds over all regions."""
        cases = range(len(self.question.places))
        for each in self.found:
            place = (each.row, each.column)
            if all((case, *place, 1) in self.known for case in cases):
                each.lower = -max(self.known[case, *place, -1][0] for case in cases) + 0.0
                each.upper = max(self.known[case, *place, 1][0] for case in cases)

    def _branch(self, prover: EntriesProver) -> None:
        """Branch and bound where no pair speaks against a sign, the more likely one first."""
        tasks = [(each, sign) for each in self.found for sign in self._open(each)]
        budget = Budget(self.budget.left * BRANCHING)
        for number, (each, sign) in enumerate(tasks):
            self.progress(number, len(tasks), "parts")
            share = Budget(budget.left / (len(tasks) - number))
            try:
                self._divided(prover, (each, sign), share)
            except BackendError as refusal:
                self.reason = refusal.status
                return
            self._gather()

    def _open(self, each: Dependence) -> Iterator[int]:
        """Signs s for which s times the derivative may be proved to be at most 0."""
        signs = sorted((-1, 1), key=lambda sign: each.upper if sign > 0 else -each.lower)
        for sign in signs:
            proved = each.upper <= 0 if sign > 0 else each.lower >= 0
            if not proved and (each.rise if sign > 0 else each.fall) is None:
                yield sign

    def _divided(self, prover: EntriesProver, asked: tuple[Dependence, int], share: Budget) -> None:
        """Proves a sign in one region after the other; where it may fail a pair is searched for.

        Raises: BackendError where the kernel does not bound parts of the network.
        """
        each, sign = asked
        for case, region in enumerate(prover.regions):
            key = (case, each.row, each.column, sign)
            if sign not in self._open(each):
                return
            if self.known[key][0] <= 0:
                continue
            if share.left <= 0:
                self.timed_out = True
                return
            goal = Goal(prover.stated.rows[each.row], column=each.column, sign=sign)
            search = parts.search_over(region.bounds, region.units, goal)
            upper = parts.run(search, 0.0, share)
            self.stats["parts"] = self.stats.get("parts", 0.0) + search.partition.parts
            if upper < self.known[key][0]:
                self.known[key] = (upper, parts.leaves(search) if upper <= 0 else self.known[key][1])
            if upper > 0:
                self.timed_out |= not search.exact
                point = search.promising()
                if point is not None:
                    self._look(case, each, point)
                return

    def _certificate(self, prover: EntriesProver) -> dict[str, bytes] | None:
        """Of the signs that are proved; None if there is none."""
        stated: list[Entry] = []
        signs: list[int] = []
        for each in self.found:
            for sign, holds in ((-1, each.lower >= 0), (1, each.upper <= 0)):
                if holds:
                    stated.append(Entry(each.row, each.column, *((0.0, None) if sign < 0 else (None, 0.0))))
                    signs.append(sign)
        if not stated:
            return None
        claims: list[EntryClaim] = []
        for case in range(len(prover.regions)):
            whole: dict[int, list[int]] = {}
            for number, (entry, sign) in enumerate(zip(stated, signs, strict=True)):
                leaves = self.known[case, entry.row, entry.column, sign][1]
                if leaves.chunks:
                    claims.append(EntryClaim(case, entry.row, (number,), leaves))
                else:
                    whole.setdefault(entry.row, []).append(number)
            method = METHODS[self.options.method]
            claims += [EntryClaim(case, row, tuple(some), Leaves(method)) for row, some in whole.items()]
        files = prover.bundle(stated, claims, {"provenn": provenn_version(), "torch": torch.__version__})
        start = time.monotonic()
        try:
            check(files, prover.network, tick=self._tick)
        except (CertificateRejected, OutOfTime) as refusal:
            self.timed_out |= isinstance(refusal, OutOfTime)
            self.reason = f"not proved: {refusal.reason}" if isinstance(refusal, CertificateRejected) else LATE
            for each in self.found:
                each.lower, each.upper = -inf, inf
            return None
        self.stats["check_seconds"] = time.monotonic() - start
        return files
