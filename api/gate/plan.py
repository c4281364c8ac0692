"""From the configuration to its checks, and to the questions that they ask: in the order of the file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Protocol

from provenn.api.gate import checks
from provenn.api.gate.checks import Judged
from provenn.api.gate.config import Accuracy, Config, Equivalence, Lipschitz, Model, Norm
from provenn.api.gate.found import Item
from provenn.api.gate.questions import Constant, Difference, Network, Property, Question, Robustness, Sample, Trend
from provenn.api.specifications import monotone_in
from provenn.verifier.numbers import spoken, written


class AtRadius(Protocol):
    """Judges the items at one radius."""

    def __call__(self, items: Sequence[Item], least: Fraction, radius: str) -> Judged:
        """Whether at least this share of them counts."""
        ...


@dataclass(frozen=True, eq=False)
class Check:
    """One line of the report; key: of the model's checks; needed: the threshold in words."""

    model: str
    key: str
    title: str
    needed: str
    question: Question
    judge: Callable[[Sequence[Item]], Judged]


@dataclass(frozen=True)
class Planned:
    """A model with its name, and its files where they are."""

    name: str
    model: Model
    root: Path

    @property
    def network(self) -> Network:
        """Its file, and what is put before it."""
        return Network(self.root / self.model.file, self.model.preprocessing)

    @property
    def sample(self) -> Sample:
        """Its data."""
        labels = self.model.labels
        elsewhere = labels is not None and labels.endswith(".npy")
        return Sample(self.root / str(self.model.data), str(self.root / str(labels)) if elsewhere else labels)

    def robustness(self, norm: Norm) -> Robustness:
        """At all radii that matter in a norm."""
        radii = tuple(written(spoken(radius)) for radius in self.model.radii_in(norm))
        return Robustness(self.network, self.sample, norm, radii, self.model.clip)

    @property
    def robustnesses(self) -> tuple[Robustness, ...]:
        """A question a norm that is measured; without any, what is classified rightly alone."""
        if self.model.data is None:
            return ()
        asked = bool(self.model.checks.accuracies) or self.regression is not None
        norms = self.model.measured if asked else ()
        return tuple(map(self.robustness, norms)) or (Robustness(self.network, self.sample),)

    @property
    def regression(self) -> Fraction | None:
        """The tolerance, if regressions are checked."""
        tolerance = self.model.checks.no_regression
        return None if tolerance is None else spoken(tolerance)

    def constant(self, check: Lipschitz) -> Constant:
        """The question of a threshold."""
        return Constant(self.network, check.norm, check.to, check.rows)


def planned(config: Config) -> tuple[Planned, ...]:
    """The models."""
    return tuple(Planned(name, model, config.root) for name, model in config.gate.models.items())


def thresholds(config: Config) -> tuple[Check, ...]:
    """All checks but those against a baseline."""
    return tuple(check for each in planned(config) for check in _of(each))


def percent(share: Fraction) -> str:
    """In a few digits."""
    return f"{float(100 * share):.4g} %"


def within(radius: str, norm: str) -> str:
    """A radius and its norm, in words; l-infinity unless it says otherwise."""
    return f"within {radius}" + ("" if norm == "inf" else f" (l{norm})")


def _of(each: Planned) -> Iterator[Check]:
    asked, name = each.model.checks, each.name
    if asked.clean_accuracy is not None:
        least = spoken(asked.clean_accuracy)
        judge, needed = partial(checks.clean, least=least), f"at least {percent(least)}"
        yield Check(name, "clean_accuracy", "clean accuracy", needed, each.robustnesses[0], judge)
    for accuracy in asked.certified_accuracy:
        yield from _accuracies(each, accuracy, "certified_accuracy", checks.certified)
    for accuracy in asked.attacked_accuracy:
        yield from _accuracies(each, accuracy, "attacked_accuracy", checks.attacked)
    for constant in asked.lipschitz:
        most = spoken(constant.max)
        needed = f"at most {constant.max:g}"
        judge = partial(checks.lipschitz, most=most)
        yield Check(name, "lipschitz", constant_title(constant), needed, each.constant(constant), judge)
    for trend in asked.monotone:
        question = Trend(each.network, trend.features, each.root / trend.domain, trend.expect, trend.rows)
        title = f"outputs {trend.rows} {trend.expect} with {', '.join(trend.features)}"
        yield Check(name, "monotone", title, "for all inputs of the domain", question, checks.holds)
    for file in asked.properties:
        yield Check(name, "properties", file, "holds", _property(each, each.root / file), checks.holds)
    for equivalence in asked.equivalence:
        yield _equivalence(each, equivalence)


def _property(each: Planned, path: Path) -> Question:
    """What a file asks.   Raises: InvalidFile, InvalidSpecification naming it."""
    asked = monotone_in(path) if path.is_file() else None
    if asked is None:
        return Property(each.network, path)
    return Trend(each.network, asked.features, path, asked.expect, asked.rows, document=True)


def constant_title(constant: Lipschitz) -> str:
    """What is bounded, in words."""
    rows = "" if constant.rows == "all" else f" of outputs {constant.rows}"
    return f"Lipschitz constant{rows}, {constant.norm} to {constant.to or '2'}"


def _accuracies(each: Planned, accuracy: Accuracy, key: str, judge: AtRadius) -> Iterator[Check]:
    """One a norm and radius that the threshold is about."""
    least = spoken(accuracy.min)
    for norm in (accuracy.norm,) if accuracy.norm else each.model.norms:
        for radius in each.model.radii if accuracy.radius is None else (accuracy.radius,):
            exactly = written(spoken(radius))
            title = f"{key.replace('_', ' ')} {within(str(radius), norm)}"
            decide = partial(judge, least=least, radius=exactly)
            yield Check(each.name, key, title, f"at least {percent(least)}", each.robustness(norm), decide)


def _equivalence(each: Planned, asked: Equivalence) -> Check:
    region, about = asked.region, (each.network, each.root / asked.other, written(spoken(asked.delta)))
    if region.radius is None:
        where = f"all values in {list(region.box or ())}"
        question = Difference(*about, box=region.box)
    else:
        where = f"inputs within {region.radius} of the data's"
        question = Difference(*about, None, each.sample, written(spoken(region.radius)), each.model.clip)
    needed = f"every output differs by less than {asked.delta:g}"
    return Check(each.name, "equivalence", f"as {asked.other}, {where}", needed, question, checks.holds)
