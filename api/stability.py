"""Regions of attraction: the largest level of a Lyapunov candidate that can be proved, found by bisection.

Every level is certified on its own, as any specification is; what is proved of one holds for all below it, and a state
at which a condition fails limits all levels above its own. What the levels prove: models.specification.lyapunov.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api.certification import Counterexample, ItemResult, LoadedModel, Options, certify, load_model
from provenn.api.files import read_file
from provenn.api.notebook import Card, Table, short
from provenn.api.results import described
from provenn.api.specifications import beside
from provenn.api.statements import at_least, at_most
from provenn.models.closed_loop import ROLES
from provenn.models.reading import Executor, executor
from provenn.models.specification.documents import document_of, no_files, require_meaning
from provenn.models.specification.lyapunov import Conditions, conditions
from provenn.models.specification.stated import Stated
from provenn.solvers.base import Budget, Progress, Verdict, silent
from provenn.verifier.errors import InvalidSpecification, ProvennError, in_file
from provenn.verifier.spec import Case, Clause
from provenn.verifier.spec_json import from_cases
from provenn.verifier.spec_reader import gunzipped

SAMPLES, SEED = 1 << 15, 0
"""Points where conditions are looked at before anything is proved, so that hopeless levels cost nothing."""

NEARLY = 1 / 128
"""By what share the first level that is tried lies below the least V at which a condition was seen to fail."""

ROOM, LEAST = 1 / 32, 1e-6
"""By what share of the largest V seen in the small box, or of this, its level is above that, at first."""

DOUBLINGS = 6
SHARE = 0.5
"""Of the time that is left, for one level."""
TOLERANCE = Fraction(1, 64)
"""Share of the level within which the search ends."""

INTERRUPTED = "interrupted: more time may prove a larger level"
ERRORS = "a condition fails only within the errors of broken lines: more pieces may help"


def read_conditions(
    given: str | Path | Mapping[str, Any], controller: bytes, networks: Mapping[str, bytes] | None = None
) -> Conditions:
    """What a document of kind lyapunov, or a file of one, asks of a controller.

    networks: by the names that the document has for them; others are files, relative to the document's.
    Raises: InvalidFile, InvalidSpecification, ResourceLimit, naming the file; InvalidModel, UnsupportedOp.
    """
    path = None if isinstance(given, Mapping) else Path(given)
    others = no_files if path is None else beside(path)
    own = networks or {}
    try:
        document = document_of(gunzipped(read_file(path))) if path is not None else given
        if not isinstance(document, Mapping) or document.get("kind") != "lyapunov":
            raise InvalidSpecification('a document of "kind" lyapunov was expected here')
        _require_named(own, document)
        return conditions(document, controller, lambda name: own[name] if name in own else others(name))
    except ProvennError as error:
        raise error if path is None else in_file(path, error) from None


def _require_named(own: Mapping[str, bytes], document: Mapping[str, Any]) -> None:
    """Raises: InvalidSpecification for a network that was given under a name that is none of the document's."""
    names = [name for role in ROLES if isinstance(name := document.get(role), str)]
    for name in own:
        if name not in names:
            named = f"it names {', '.join(map(repr, names))}"
            raise InvalidSpecification(f"the document does not name the network {name!r} that was given; {named}")


@dataclass(frozen=True, eq=False)
class Attempt:
    """One level rho that was tried, what came of it, and how long it took."""

    level: float
    verdict: str
    seconds: float


@dataclass(frozen=True, eq=False)
class StabilityResult:
    """What is known of a loop.

    level, inner: rho and sigma, exactly, if verified; item: the certification of the largest level that was proved, or
    of the one that failed; limit: a level that cannot be proved, since a condition fails at a state below it (inf if
    none was seen); counterexample: that state, with the composition's outputs there, if nothing is verified. attempts:
    every level that was tried. words: what is proved; stated: the composition and its specification, which the
    certificate is about. interrupted: whether Ctrl-C ended the search.
    """

    conditions: Conditions
    item: ItemResult
    seconds: float
    level: Fraction | None = None
    inner: Fraction | None = None
    limit: float = inf
    attempts: tuple[Attempt, ...] = ()
    words: str = ""
    stated: Stated | None = None
    interrupted: bool = False

    @property
    def verdict(self) -> str:
        """Of the item."""
        return self.item.verdict

    def _repr_html_(self) -> str:
        """For notebooks: what is proved, and a row a level that was tried."""
        facts = [] if self.level is None else [("rho", at_least(self.level))]
        facts += [] if self.inner is None else [("sigma", at_most(self.inner))]
        facts += described(self.item.method, self.seconds, self.item.assurance)
        rows = [[short(each.level), each.verdict, short(each.seconds)] for each in self.attempts]
        table = Table("levels that were tried", ["V <=", "verdict", "seconds"], rows)
        notes = [text for text in (self.words, self.item.reason) if text]
        return Card("Region of attraction", self.verdict, facts, [table], notes).html()


def stability(
    asked: Conditions, options: Options, progress: Progress = silent, tolerance: Fraction = TOLERANCE
) -> StabilityResult:
    """The largest level up to the tolerance, within the options' seconds. Ctrl-C keeps what is proved.

    Verified where any level is; falsified where a condition fails at the least level there could be; levels that the
    document gives are taken as they are.   Raises: as `certify`; InvalidSpecification for float32 executions.
    """
    require_meaning(asked.document.kind, options.semantics)
    return _Search(asked, options, progress, tolerance).run()


@dataclass(eq=False)
class _Search:
    """exact: runs the composition before functions were enclosed: what fails there is no matter of their errors.

    found: the largest level that was proved so far, with the small region's and the item.
    """

    conditions: Conditions
    options: Options
    progress: Progress
    tolerance: Fraction
    attempts: list[Attempt] = field(default_factory=list)
    found: tuple[Fraction, Fraction, ItemResult] | None = None

    def __post_init__(self) -> None:
        self.budget = Budget(self.options.seconds)
        self.model: LoadedModel = load_model(self.conditions.model)
        self.exact: Executor = executor(self.conditions.loop.model)
        self.limit = inf
        """A level at which, and above which, a condition fails."""

    def run(self) -> StabilityResult:
        """See stability."""
        start, interrupted = time.monotonic(), False
        try:
            item = self._searched()
        except KeyboardInterrupt:
            interrupted, wasted = True, time.monotonic() - start
            item = ItemResult(str(Verdict.UNKNOWN), self.options.method, None, wasted, reason=INTERRUPTED)
        seconds, tried = time.monotonic() - start, tuple(self.attempts)
        result = StabilityResult(self.conditions, item, seconds, None, None, self.limit, tried, interrupted=interrupted)
        if self.found is None:
            return result
        level, inner, item = self.found
        if interrupted:
            item = replace(item, reason="; ".join([INTERRUPTED, *([item.reason] if item.reason else [])]))
        words = self.conditions.words(level, inner)
        stated = Stated(self.conditions.model, from_cases(self.conditions.all(level, inner)), words)
        return replace(result, item=item, level=level, inner=inner, words=words, stated=stated)

    def _searched(self) -> ItemResult:
        """The last item; what was proved is in `found`."""
        asked = self.conditions.document
        states, outputs = self._seen()
        inner, item = (asked.inner, None) if asked.inner is not None else self._inner(outputs)
        if inner is None:
            assert item is not None
            return item
        if asked.level is not None:
            inner = min(inner, asked.level)  # else nothing would follow; whether N lies in it is tried, too
            return self._tried(asked.level, inner)
        self.limit = min(self._limit(states, outputs), self._face(states))
        return self._bisected(inner)

    def _seen(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Random inputs of the model, half of them in the small box, and its outputs there."""
        box, near, others = self.conditions.box, self.conditions.document.near, self.conditions.others
        generator = np.random.default_rng(SEED)
        parts = []
        for ends in ((*box, *others), (*near, *others)):
            low, high = np.array(ends, dtype=np.float64).T
            unit = generator.random((SAMPLES, len(ends)))
            corners = generator.random((SAMPLES, 1)) < 1 / 16
            parts.append(low + np.where(corners, unit.round(), unit) * (high - low))
        points = np.concatenate(parts)
        graph = self.model.graph
        with torch.no_grad():
            shaped = torch.from_numpy(points).reshape(-1, *graph.input_shape)
            outputs = torch.cat([graph.forward(part).flatten(1) for part in torch.split(shaped, 1 << 12)])
        return points, outputs.numpy()

    def _inner(self, outputs: NDArray[np.float64]) -> tuple[Fraction | None, ItemResult]:
        """The least sigma of a few that is proved, and what became of the last one."""
        seen = outputs[len(outputs) // 2 :]
        later = seen[:, 1].clip(min=0) if self.conditions.loop.steps else 0.0
        most = float((seen[:, 0] + later).max())
        for doubling in range(DOUBLINGS):
            inner = _short(most + max(abs(most), LEAST) * ROOM * 2**doubling)
            cases = [self.conditions.centre(inner)]
            item = self._replayed(self._certified(cases, certificates=False), cases)
            if item.verdict == Verdict.VERIFIED:
                return inner, item
        return None, item

    def _limit(self, states: NDArray[np.float64], outputs: NDArray[np.float64]) -> float:
        """The least V at a random state where a condition fails."""
        half, count = len(outputs) // 2, len(self.conditions.box)
        states, outputs = states[:half], outputs[:half]
        low, high = np.array(self.conditions.document.near, dtype=np.float64).T
        within = states[:, :count]
        fails = outputs[:, 1] >= -float(self.conditions.threshold)
        if self.conditions.loop.steps:
            floor, ceiling = np.array(self.conditions.box, dtype=np.float64).T
            following = outputs[:, 2 : 2 + count]
            fails |= ((following <= floor) | (following >= ceiling)).any(1)
        fails &= ((within <= low) | (within >= high)).any(1)
        return min(outputs[fails, 0].tolist(), default=inf)

    def _face(self, states: NDArray[np.float64]) -> float:
        """The least V at random states that are moved to a face."""
        count = len(self.conditions.box)
        moved, ends = states.copy(), np.array(self.conditions.box, dtype=np.float64)
        rows = np.arange(len(moved))
        moved[rows, rows % count] = ends[rows % count, (rows // count) % 2]
        with torch.no_grad():
            shaped = torch.from_numpy(moved).reshape(-1, *self.model.graph.input_shape)
            return float(torch.cat([self.model.graph.forward(p)[..., 0] for p in torch.split(shaped, 1 << 12)]).min())

    def _bisected(self, inner: Fraction) -> ItemResult:
        """The last item.

        Down from the limit by steps that double until a level is proved, then by halves.
        """
        fall, high, low = min(NEARLY, float(self.tolerance) / 2), self.limit, inner
        level = max(inner, _short(high * (1 - fall)))
        while True:
            item = self._tried(level, inner)
            if item.verdict == Verdict.VERIFIED:
                low = level
            else:
                high = min(float(level), self.limit)
            if self.budget.left <= 0 or (level == inner and self.found is None):
                return item
            if self.found is None:
                fall = min(2 * fall, 0.5)
                level = max(inner, _short(high * (1 - fall)))
                continue
            level = _short((float(low) + high) / 2)
            if high - low <= self.tolerance * high or not low < level < high:
                return item

    def _tried(self, level: Fraction, inner: Fraction) -> ItemResult:
        """All conditions at a level above all that were proved."""
        self.progress(len(self.attempts), len(self.attempts) + 1, f"level {float(level):.6g}")
        cases = self.conditions.all(level, inner)
        item = self._certified(cases, self.options.certificates)
        if item.counterexample is not None and item.counterexample.output[0] > 0:
            self.limit = min(self.limit, item.counterexample.output[0])
        item = self._replayed(item, cases)
        self.attempts.append(Attempt(float(level), item.verdict, item.seconds))
        if item.verdict == Verdict.VERIFIED:
            self.found = level, inner, item
        return item

    def _certified(self, cases: list[Case], certificates: bool) -> ItemResult:
        """Within half of the time that is left."""
        seconds = max(self.budget.left, 0.0) * SHARE
        options = replace(self.options, seconds=seconds, certificates=certificates)
        (item,) = certify(self.model, [from_cases(cases)], options)
        return item

    def _replayed(self, item: ItemResult, cases: list[Case]) -> ItemResult:
        """Where functions are enclosed: what fails counts if it does so without errors, in the composition itself."""
        loop, found = self.conditions.loop, item.counterexample
        if found is None or not self.conditions.arguments:
            return item
        point = np.array(found.input[: loop.states + loop.disturbances], dtype=np.float32)
        output = self.exact.run(point.reshape(1, *self.exact.input_shape)).ravel().tolist()
        y = [Fraction(v) for v in output]
        for case in cases:
            lower, upper = case.inputs.exact_lower, case.inputs.exact_upper
            inside = all(a <= Fraction(v) <= b for v, a, b in zip(point.tolist(), lower, upper, strict=False))
            own = (clause for clause in case.clauses if not any(any(row[len(y) :]) for row in clause.matrix))
            if inside and any(Clause(tuple(r[: len(y)] for r in c.matrix), c.bound).holds(y) for c in own):
                return replace(item, counterexample=Counterexample(point.tolist(), output))
        return replace(item, verdict=str(Verdict.UNKNOWN), assurance=None, counterexample=None, reason=ERRORS)


def _short(value: float) -> Fraction:
    """Nearly the value, in few decimals."""
    return Fraction(f"{value:.5g}")
