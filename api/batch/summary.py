"""What share of the inputs is classified rightly, resists the attack, and is certified: with how much confidence."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from provenn.api.batch.question import Question
from provenn.api.batch.rows import Row
from provenn.verifier.check.manifest import ASSURANCES

CONFIDENCE = 0.95
STEPS = 20
"""Radii at which accuracies are told where every input's own radius was asked for."""


@dataclass(frozen=True)
class Share:
    """count of total; low, high: Wilson's interval of the probability, at 95 %: the inputs are a sample of others."""

    count: int
    total: int
    low: float
    high: float

    @classmethod
    def of(cls, count: int, total: int) -> Share:
        """With its interval; of nothing it is anywhere."""
        if total == 0:
            return cls(0, 0, 0.0, 1.0)
        from scipy.stats import binomtest  # longer to import than all else of a supervisor but torch

        low, high = binomtest(count, total).proportion_ci(CONFIDENCE, method="wilson")
        return cls(count, total, float(low), float(high))

    @property
    def value(self) -> float:
        """The share itself; 0 of nothing."""
        return self.count / self.total if self.total else 0.0

    def as_json(self) -> dict[str, float]:
        """With its value."""
        return {"count": self.count, "total": self.total, "value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Accuracy:
    """At one radius: the share certified, the share without a known counterexample, and the number of every verdict.

    certified: of the verified ones those that the trusted checker has accepted; without certificates there are none.
    The accuracy of the network against the worst inputs within the radius lies between the first two.
    """

    epsilon: float
    certified: Share
    attacked: Share
    verdicts: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """Everything."""
        shares = {"certified": self.certified.as_json(), "attacked": self.attacked.as_json()}
        return {"epsilon": self.epsilon, **shares, "verdicts": dict(self.verdicts)}


@dataclass(frozen=True)
class Summary:
    """Of all inputs; clean: the share classified rightly; radii: in ascending order; classes: the same, by label."""

    clean: Share
    radii: tuple[Accuracy, ...]
    classes: Mapping[int, Summary] = field(default_factory=dict)

    def at(self, epsilon: float) -> Accuracy:
        """What was found at this radius.   Raises: KeyError if it is none of them."""
        for accuracy in self.radii:
            if accuracy.epsilon == epsilon:
                return accuracy
        raise KeyError(epsilon)

    def as_json(self) -> dict[str, Any]:
        """Everything; classes: by their number as text."""
        found: dict[str, Any] = {"clean": self.clean.as_json(), "radii": [each.as_json() for each in self.radii]}
        classes = {str(label): each.as_json() for label, each in sorted(self.classes.items())}
        return found | ({"classes": classes} if classes else {})


@dataclass(frozen=True)
class Known:
    """What a summary needs of one input; verdicts: by radius, in ascending order; certified: likewise."""

    label: int
    right: bool
    verdicts: tuple[str, ...]
    certified: tuple[bool, ...]


def summarize(rows: Iterable[Row], question: Question) -> Summary:
    """Of all rows, all radii of an input together as `certify_batch` gives them."""
    if question.largest is None:
        radii = sorted(map(float, question.radii))
    else:
        radii = [float(f"{question.largest * k / STEPS:.6g}") for k in range(1, STEPS + 1)]
    known = []
    for _, group in groupby(rows, lambda row: row.index):
        each = sorted(group, key=lambda row: row.epsilon or 0.0)
        one = each[0]
        if question.largest is None:
            verdicts = tuple(row.verdict for row in each)
        else:
            each, verdicts = [one] * len(radii), tuple(_at(one, radius) for radius in radii)
        certified = tuple(
            verdict == "verified" and row.assurance in ASSURANCES.values()
            for row, verdict in zip(each, verdicts, strict=True)
        )
        known.append(Known(one.label, one.predicted == one.label, verdicts, certified))
    labels = sorted({one.label for one in known})
    classes = {label: _of([one for one in known if one.label == label], radii) for label in labels}
    whole = _of(known, radii)
    return Summary(whole.clean, whole.radii, classes)


def _of(known: Sequence[Known], radii: Sequence[float]) -> Summary:
    clean = Share.of(sum(one.right for one in known), len(known))
    found = []
    for place, radius in enumerate(radii):
        verdicts = [one.verdicts[place] for one in known]
        counts = {verdict: verdicts.count(verdict) for verdict in ("verified", "falsified", "unknown", "timeout")}
        safe = Share.of(sum(one.certified[place] for one in known), len(known))
        resisting = Share.of(len(known) - counts["falsified"], len(known))
        found.append(Accuracy(radius, safe, resisting, counts))
    return Summary(clean, tuple(found))


def _at(row: Row, radius: float) -> str:
    """What a bracket says of a radius."""
    if row.certified is not None and radius <= row.certified:
        return "verified"
    return "falsified" if row.attacked is not None and row.attacked <= radius else "unknown"
