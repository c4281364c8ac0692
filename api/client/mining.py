"""Activation patterns that a service mines: counts are its word; what patterns those counts make is seen here."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypedDict

from pydantic import ValidationError

from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.client.evidence import Answer
from provenn.api.client.verbs import said
from provenn.api.pattern_schemas import PatternCoverage, PatternsRequest
from provenn.api.results import Origin
from provenn.models.activation_pattern import Pattern, relaxed
from provenn.verifier.errors import InvalidSpecification


class HowPatterns(TypedDict, total=False):
    """What `Client.patterns` takes besides network and data, by name; the defaults are those of `PatternsAsked`."""

    delta: float | str
    classes: Sequence[int] | None
    layers: Sequence[str] | None
    labels: Literal["dataset", "predicted"]
    wrong: bool
    share: float | None
    timeout: float
    seed: int


@dataclass(frozen=True)
class PatternsAsked:
    """How patterns are to be mined; see `PatternsRequest`."""

    delta: float | str = 1.0
    classes: Sequence[int] | None = None
    layers: Sequence[str] | None = None
    labels: Literal["dataset", "predicted"] = "dataset"
    wrong: bool = False
    share: float | None = None
    timeout: float = 60.0
    seed: int = 0
    method: str = "auto"

    def request(self, dataset: str, held_out: str | None) -> PatternsRequest:
        """About these datasets.   Raises: InvalidSpecification naming the member that makes no sense."""
        try:
            return PatternsRequest(
                dataset=dataset,
                delta=self.delta,
                classes=None if self.classes is None else list(self.classes),
                layers=None if self.layers is None else list(self.layers),
                labels=self.labels,
                wrong=self.wrong,
                held_out=held_out,
                share=self.share,
            )
        except ValidationError as error:
            raise InvalidSpecification(said(error)) from None


@dataclass(frozen=True, eq=False)
class MinedPatterns:
    """A pattern a class, and its coverage in the same order: of `held_out` samples, or, if 0, of those mined from."""

    patterns: tuple[Pattern, ...]
    coverage: tuple[PatternCoverage, ...]
    held_out: int
    seconds: float
    origin: Origin


@dataclass(frozen=True, eq=False)
class Judge:
    """Knows what was asked."""

    asked: PatternsRequest

    def judged(self, answer: Answer) -> MinedPatterns:
        """Patterns of the very network and delta.   Raises: UnexpectedAnswer for others."""
        told = answer.item.patterns
        if told is None:
            raise UnexpectedAnswer("the service has mined no patterns")
        model, delta = hashlib.sha256(answer.model).hexdigest(), self.asked.exact_delta
        if not all(self._is_own(pattern, model, delta) for pattern in told.patterns):
            raise UnexpectedAnswer("the service's patterns are about another network, or not what its counts make")
        labels = [pattern.label for pattern in told.patterns]
        if labels != [row.label for row in told.coverage] or labels != (self.asked.classes or labels):
            raise UnexpectedAnswer("the service's patterns are of other classes than those asked about")
        patterns, coverage = tuple(told.patterns), tuple(told.coverage)
        return MinedPatterns(patterns, coverage, told.held_out, answer.item.seconds, answer.origin)

    def _is_own(self, pattern: Pattern, model: str, delta: Fraction) -> bool:
        counted = all(layer.counts is not None for layer in pattern.layers)
        return counted and pattern.model == model and relaxed(pattern, delta) == pattern
