"""Whether outputs only rise, or only fall, with a feature: proved for all inputs of the regions, or shown by a pair.

What is called increasing or decreasing the trusted kernel has proved, once while it was found and once more from the
finished certificate; a pair of inputs counts after onnxruntime agreed on it. A rise is meant in the weak sense.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import version
from math import inf, prod

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api import parts
from provenn.api.certification import LoadedModel
from provenn.api.domain import Place
from provenn.api.lipschitz_jacobian import METHODS, own_slopes
from provenn.api.lipschitz_question import matrix
from provenn.api.proofs import OutOfTime
from provenn.solvers.base import Budget, Progress, silent
from provenn.solvers.branch_and_bound.derivative import Goal
from provenn.solvers.trend import Lines, Pair
from provenn.verifier.certificate.entries import EntriesProver, Entry, EntryClaim
from provenn.verifier.certificate.lipschitz import Leaves
from provenn.verifier.check import CertificateRejected, check
from provenn.verifier.errors import BackendError, InvalidSpecification
from provenn.verifier.region import Region

SEARCHING, BRANCHING = 0.15, 0.8
"""Shares of the time for pairs, and for branch and bound of what is left then; the rest is for the certificate."""

GRACE = 0.5
"""Share of all seconds that bounds of the regions as a whole may take beyond the time."""


class Trend(StrEnum):
    """What is known of one output's dependence on one feature."""

    INCREASING = "increasing"
    DECREASING = "decreasing"
    CONSTANT = "constant"
    NEITHER = "neither"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Question:
    """rows: of outputs, as for Lipschitz constants; columns: inputs; places: regions, in each of which it is asked."""

    columns: tuple[int, ...]
    places: tuple[Place, ...]
    rows: str = "all"


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


@dataclass(frozen=True, eq=False)
class MonotonicityResult:
    """What is known: a dependence for every row and column, rows first.

    assurance: `checked` where something is proved; certificate: the bundle's files then; reason: why nothing is.
    """

    dependences: tuple[Dependence, ...]
    method: str
    seconds: float
    assurance: str | None = None
    certificate: dict[str, bytes] | None = None
    reason: str | None = None
    stats: dict[str, float] = field(default_factory=dict)


class Contradiction(RuntimeError):
    """A proved bound says otherwise than a pair of inputs shows: our mistake, and a grave one."""


def monotonicity(
    model: LoadedModel, question: Question, options: Options, progress: Progress = silent
) -> MonotonicityResult:
    """Searches for pairs, then proves what no pair contradicts, until the time ends.

    Raises: InvalidSpecification, ResourceLimit for a question that does not fit; BackendError; Contradiction.
    """
    inputs, outputs = prod(model.graph.input_shape), prod(model.graph.output_shape)
    if not question.columns or not all(0 <= column < inputs for column in question.columns):
        raise InvalidSpecification(f"features are inputs 0 to {inputs - 1}, at least one of them")
    for place in question.places:
        if len(place.set.exact_lower) != inputs:
            raise InvalidSpecification(f"a region has {len(place.set.exact_lower)} numbers for {inputs} inputs")
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
        self.model, self.question, self.rows, self.options = model, question, rows, options
        self.progress, self.budget = progress, Budget(options.seconds)
        self.found = [Dependence(row, column) for row in range(len(rows)) for column in question.columns]
        self.known: dict[tuple[int, int, int, int], tuple[float, Leaves]] = {}
        self.stats: dict[str, float] = {"regions": len(question.places)}

    def answer(self) -> MonotonicityResult:
        start, reason = time.monotonic(), None
        self._pairs()
        try:
            prover = self._prover()
        except CertificateRejected as refusal:
            reason, prover = f"no proof is possible: {refusal.reason}", None
        except OutOfTime:
            reason, prover = "the time ended before the regions were bounded", None
        files = None if prover is None else self._proved(prover)
        for each in self.found:
            if (each.fall and each.lower >= 0) or (each.rise and each.upper <= 0):
                raise Contradiction(
                    f"output row {each.row}, input {each.column}: proved {each.trend}, but a pair differs"
                )
        seconds, checked = time.monotonic() - start, None if files is None else "checked"
        about = (tuple(self.found), self.options.method, seconds, checked, files, reason, self.stats)
        return MonotonicityResult(*about)

    def _lines(self, case: int, column: int) -> Lines:
        place, seed = self.question.places[case], self.options.seed + case
        return Lines(self.model.graph, self.model.executor, place.set, column, seed)

    def _pairs(self) -> None:
        """By search, in turn over regions, until a share of the time is over; every question is tried once."""
        total, limit = len(self.found) * len(self.question.places), self.budget.left * (1 - SEARCHING)
        for number, (case, each) in enumerate((c, e) for c in range(len(self.question.places)) for e in self.found):
            self.progress(number, total, "pairs of inputs")
            if number >= len(self.found) and self.budget.left < limit:
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
        if self.budget.left <= -GRACE * self.options.seconds:
            raise OutOfTime

    def _proved(self, prover: EntriesProver) -> dict[str, bytes] | None:
        """Bounds of the regions as a whole, then of their parts; the certificate of what they say."""
        columns = list(dict.fromkeys(self.question.columns))
        try:
            for case, row in ((c, r) for c in range(len(prover.regions)) for r in range(len(self.rows))):
                self.progress(case, len(prover.regions), "derivatives")
                ends = prover.intervals(case, row, columns, METHODS[self.options.method])
                for column, *end in zip(columns, *ends, strict=True):
                    for sign, value in zip((-1, 1), (-end[0], end[1]), strict=True):
                        self.known[case, row, column, sign] = (float(value), Leaves(METHODS[self.options.method]))
            self._gather()
            if self.options.method == "bab":
                self._branch(prover)
        except OutOfTime:
            return None
        return self._certificate(prover)

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
            for case in range(len(prover.regions)):
                if sign not in self._open(each) or not self._divided(prover, case, (each, sign), share):
                    break
            self._gather()

    def _open(self, each: Dependence) -> Iterator[int]:
        """Signs s for which s times the derivative may be proved to be at most 0."""
        signs = sorted((-1, 1), key=lambda sign: each.upper if sign > 0 else -each.lower)
        for sign in signs:
            proved = each.upper <= 0 if sign > 0 else each.lower >= 0
            if not proved and (each.rise if sign > 0 else each.fall) is None:
                yield sign

    def _divided(self, prover: EntriesProver, case: int, asked: tuple[Dependence, int], share: Budget) -> bool:
        """Whether the sign is proved in a region; if not, the place where it may fail is searched for a pair."""
        each, sign = asked
        key = (case, each.row, each.column, sign)
        if self.known[key][0] <= 0:
            return True
        region, row = prover.regions[case], prover.stated.rows[each.row]
        search = parts.search_over(region.bounds, region.units, Goal(row, column=each.column, sign=sign))
        upper = parts.run(search, 0.0, share)
        self.stats["parts"] = self.stats.get("parts", 0.0) + search.partition.parts
        if upper <= 0:
            self.known[key] = (upper, parts.leaves(search))
            return True
        point = search.promising()
        if point is not None:
            self._look(case, each, point)
        return False

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
        files = prover.bundle(stated, claims, {"provenn": version("provenn"), "torch": torch.__version__})
        start = time.monotonic()
        check(files, prover.network)
        self.stats["check_seconds"] = time.monotonic() - start
        return files
