"""A gate, run: what earlier runs know is not measured again, everything else in the time that is left."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from provenn.api.gate import checks as judges
from provenn.api.gate.baseline import Baseline, as_text, read_baseline, recorded, regressions
from provenn.api.gate.cache import PLACE, Cache
from provenn.api.gate.config import Config, InvalidConfig
from provenn.api.gate.found import Found
from provenn.api.gate.plan import Check, planned, thresholds
from provenn.api.gate.questions import Question
from provenn.api.gate.report import Line, Report
from provenn.api.gate.thresholds import Outcome
from provenn.api.gate.writing import write

if TYPE_CHECKING:
    from provenn.api.gate.statements import Subject

UNBEGUN = judges.Judged(Outcome.UNKNOWN, "not measured", "the budget ended before this was begun")
KEPT = "the baseline is as it was: the budget ended before everything was measured"
PARTLY = "the budget ended before everything was decided: the new baseline counts what is proved"


class Measurer(Protocol):
    """Who answers questions: this process, or a service."""

    def measure(self, question: Question, subject: Subject, seconds: float) -> Found:
        """What is found in the time."""
        ...


@dataclass(frozen=True)
class How:
    """update: write a new baseline; recheck: prove what the cache says again; server: who measures, if not we."""

    update: bool = False
    recheck: bool = False
    server: str | None = None


@dataclass(frozen=True)
class Answer:
    """What is found (None: the question was not begun), in how many seconds, and whether by an earlier run."""

    found: Found | None
    seconds: float
    cached: bool


def run(config: Config, how: How, measurer: Callable[[], Measurer]) -> Report:
    """The report.   Raises: ProvennError in one of its kinds: InvalidFile, InvalidBaseline, CannotWrite, ..."""
    start = time.monotonic()
    path = config.root / str(config.gate.baseline)
    fixed, wanted = thresholds(config), _regressing(config)
    if how.update and not wanted:
        raise InvalidConfig(config.path, "", "", "no model has no_regression, which a baseline is for")
    against = list(regressions(config, read_baseline(path), path)) if wanted and not how.update else []
    asked: dict[Question, list[Check]] = {}
    for check in (*fixed, *against):
        asked.setdefault(check.question, []).append(check)
    for question in wanted:
        asked.setdefault(question, [])
    answers = _answered(config, how, measurer, asked)
    notes: tuple[str, ...] = ()
    if how.update and wanted:
        renewed, notes = _renewed(config, answers, wanted)
        if renewed is not None:
            write(path, as_text(renewed))
            against = list(regressions(config, renewed, path))
    order = list(config.gate.models)
    every = sorted([*fixed, *against], key=lambda check: order.index(check.model))
    return Report(
        _named(config.path),
        _lines(config, every, answers),
        config.gate.on_unknown == "pass",
        time.monotonic() - start,
        notes,
    )


def _regressing(config: Config) -> tuple[Question, ...]:
    """What a baseline is made of."""
    found: list[Question] = []
    for each in planned(config):
        if each.regression is not None:
            found += [*each.robustnesses, *map(each.constant, each.model.checks.lipschitz)]
    return tuple(dict.fromkeys(found))


def _answered(
    config: Config, how: How, measurer: Callable[[], Measurer], asked: Mapping[Question, Sequence[Check]]
) -> dict[Question, Answer]:
    """First what the cache knows, then the others, which share the time that is left evenly."""
    end = time.monotonic() + config.gate.budget
    cache = Cache(config.root / PLACE, config.gate.seed, how.server)
    keys = {question: cache.key(question) for question in asked}
    answers: dict[Question, Answer] = {}
    for question, checks in asked.items():
        start = time.monotonic()
        found = cache.read(keys[question])
        usable = found is not None and _decisive(found, checks)
        if found is not None and usable and (not how.recheck or _trusted(question, found, checks)):
            answers[question] = Answer(found, time.monotonic() - start, True)
    todo = [question for question in asked if question not in answers]
    who = measurer() if todo else None
    for number, question in enumerate(todo):
        start = time.monotonic()
        if who is None or start >= end:
            answers[question] = Answer(None, 0.0, False)
            continue
        found = who.measure(question, _subject(question), (end - start) / (len(todo) - number))
        if cache.key(question) == keys[question]:  # else a file has changed since, and who knows which one was read
            cache.write(keys[question], found)
        answers[question] = Answer(found, time.monotonic() - start, False)
    return answers


def _decisive(found: Found, checks: Sequence[Check]) -> bool:
    """Whether more time would change nothing that is asked."""
    return not found.late or (
        bool(checks) and all(check.judge(found.items).outcome != Outcome.UNKNOWN for check in checks)
    )


def _trusted(question: Question, found: Found, checks: Sequence[Check]) -> bool:
    """Whether everything in an entry that speaks for a threshold is proved again, here and now."""
    from provenn.api.gate.proofs import proved_again

    again = proved_again(question, _subject(question), found)
    if again is None:
        return False
    outcomes = [(check.judge(found.items).outcome, check.judge(again).outcome) for check in checks]
    return all(now == Outcome.PASSED for before, now in outcomes if before == Outcome.PASSED)


def _subject(question: Question) -> Subject:
    """Its network, read when it is needed."""
    from provenn.api.gate.statements import Subject

    return Subject.of(question)


def _renewed(
    config: Config, answers: Mapping[Question, Answer], wanted: Sequence[Question]
) -> tuple[Baseline | None, tuple[str, ...]]:
    """A new baseline if everything was measured, and what to say of it."""
    found = {question: answers[question].found for question in wanted}
    whole = {question: each.items for question, each in found.items() if each is not None}
    if len(whole) < len(wanted):
        return None, (KEPT,)
    late = any(each is not None and each.late for each in found.values())
    return recorded(config, whole), (PARTLY,) if late else ()


def _lines(config: Config, checks: Sequence[Check], answers: Mapping[Question, Answer]) -> tuple[Line, ...]:
    """A question's seconds are those of the first check that asks it."""
    lines: list[Line] = []
    told: set[Question] = set()
    for check in checks:
        answer = answers[check.question]
        judged = UNBEGUN if answer.found is None else check.judge(answer.found.items)
        lines.append(
            Line(
                model=check.model,
                file=config.gate.models[check.model].file,
                key=check.key,
                line=config.line(check.model, check.key),
                title=check.title,
                needed=check.needed,
                outcome=judged.outcome,
                measured=judged.measured,
                reason=judged.reason if judged.outcome == Outcome.UNKNOWN else None,
                examples=judged.examples if judged.outcome != Outcome.PASSED else (),
                seconds=0.0 if check.question in told else answer.seconds,
                cached=answer.cached,
            )
        )
        told.add(check.question)
    return tuple(lines)


def _named(path: Path) -> str:
    """As a reader of the repository names it: relative to where the gate runs, if it is below."""
    whole, here = path.resolve(), Path.cwd()
    return whole.relative_to(here).as_posix() if whole.is_relative_to(here) else str(path)
