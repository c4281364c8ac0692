"""Answers to questions, found in this process."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from provenn.api import certification, lipschitz, monotonicity
from provenn.api.batch.bundle import opened
from provenn.api.batch.question import Question as Batch
from provenn.api.batch.results import BUNDLE
from provenn.api.batch.run import certify_batch
from provenn.api.certification import LoadedModel, load_model
from provenn.api.cli.outcome import CannotWrite
from provenn.api.gate.answers import at_radius, classified, constant_found, kept, trend_found
from provenn.api.gate.found import Found, Item, sha256
from provenn.api.gate.questions import Constant, Difference, Property, Question, Robustness, Trend
from provenn.api.gate.shown import unsafe
from provenn.api.gate.statements import Subject, differences, stated_property, trends
from provenn.api.lipschitz_question import Question as Asked
from provenn.api.results import ItemResult
from provenn.solvers.base import Progress

T = TypeVar("T")


@dataclass(eq=False)
class Once(Generic[T]):
    """Reads every file once."""

    read: Callable[[bytes], T]
    known: dict[str, T] = field(default_factory=dict)

    def __call__(self, subject: Subject) -> T:
        """As it was read."""
        key = sha256(subject.data)
        if key not in self.known:
            self.known[key] = self.read(subject.data)
        return self.known[key]


class Local:
    """Measures here. seed: of everything that is searched; progress: of every question."""

    def __init__(self, seed: int, progress: Progress) -> None:
        self._seed, self._progress = seed, progress
        self._model: Once[LoadedModel] = Once(load_model)
        self._sloped: Once[LoadedModel] = Once(lambda data: load_model(data, slopes=True))
        self._bounded: Once[lipschitz.Readings] = Once(lipschitz.load)

    def measure(self, question: Question, subject: Subject, seconds: float) -> Found:
        """What is found in the time.   Raises: ProvennError in one of its kinds, CannotWrite among them."""
        match question:
            case Robustness():
                return self._robustness(question, subject, seconds)
            case Constant():
                asked = Asked(question.norm, question.to, question.rows)
                limits = lipschitz.Options(seconds=seconds, seed=self._seed)
                return constant_found(lipschitz.bound(self._bounded(subject), asked, limits, self._progress))
            case Trend():
                return self._trend(question, subject, seconds)
            case Property():
                stated = [(0, "", stated_property(question, subject))]
            case Difference():
                stated = list(differences(question, subject))
        options = certification.Options(seconds=seconds, seed=self._seed)
        results = certification.certify(self._model(subject), [each for *_, each in stated], options, self._progress)
        return _joined([(index, name, result) for (index, name, _), result in zip(stated, results, strict=True)])

    def _robustness(self, question: Robustness, subject: Subject, seconds: float) -> Found:
        data = subject.sample(question.sample)
        plain = classified(subject, data)
        if not question.radii:
            return Found(tuple(plain), {})
        asked = Batch(question.radii, norm=question.norm, clip=question.clip)
        options = certification.Options(seconds=seconds, seed=self._seed)
        model = self._model(subject)
        with tempfile.TemporaryDirectory(prefix="provenn-gate-") as folder:
            try:
                rows = list(certify_batch(model, data, asked, options, Path(folder), self._progress).rows)
                with opened(Path(folder) / BUNDLE) as bundle:
                    certificates = {digest: bundle.certificate(digest) for digest in sorted(bundle.certificates)}
            except OSError as error:
                raise CannotWrite(folder, error) from error
        items: list[Item] = []
        for number, row in enumerate(rows):
            place = number % len(question.radii)
            items += [plain[row.index]] if place == 0 else []
            told = Item(row.verdict, row.assurance, row.certificate, row.reason, row.index, margin=row.margin)
            items.append(at_radius(subject, data, plain, question.radii[place], (told, row.counterexample)))
        return Found(tuple(items), certificates)

    def _trend(self, question: Trend, subject: Subject, seconds: float) -> Found:
        asked = trends(question, subject)
        limits = monotonicity.Options(seconds=seconds, seed=self._seed)
        about = monotonicity.Question(asked.columns, asked.places, question.rows)
        result = monotonicity.monotonicity(self._sloped(subject), about, limits, self._progress)
        return trend_found(question, asked, result)


def _joined(results: Sequence[tuple[int, str, ItemResult]]) -> Found:
    """Items of (index, name, result)."""
    items, certificates = [], dict[str, bytes]()
    for index, name, result in results:
        digest, made = kept(result.certificate)
        certificates |= made
        found, where = result.counterexample, f"around input {name}: " if name else ""
        shown = None if found is None else where + unsafe(found.output, found.input, found.original)
        about = (result.verdict, result.assurance, digest, result.reason, index, name)
        items.append(Item(*about, margin=result.margin, shown=shown))
    return Found(tuple(items), certificates)
