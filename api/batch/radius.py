"""The radius of every input, bracketed by bisection: a certificate below, a counterexample above.

All inputs of a chunk step together, one batch a round. First the attack alone, downwards, which costs little; then the
largest radius with a certificate is searched for, by one cheap method, then by the whole portfolio above what that
has proved. A radius without a proof ends this search there, and not the attack's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from math import ceil, inf, log2, prod

import numpy as np
from numpy.typing import NDArray

from provenn.api.batch.chunk import Answered, Chunk, Radii, Told
from provenn.api.batch.rows import exact_values
from provenn.api.certification import ItemResult, Options, certify
from provenn.solvers.base import Budget, Verdict
from provenn.verifier.bounds.auto import choose

ATTACK, AUTO = "attack", "auto"
LEAST = 2.0**-20
"""Radii below this share of the largest are not searched."""

COARSE = 4
"""By what the radius is divided while nothing has been certified."""

ATTACKING, CHEAP = 0.25, 0.25
"""Shares of the time that is left, at most: for the attack alone, and then for the cheap method."""

RETRIED = 0.25
"""Share of all time that must be left for another try of what was too late."""

OUTWARD = 1 + 1e-12
"""Above what a distance in float64 can lose to rounding."""

Reach = Callable[[ItemResult, float], float]
"""How far away a counterexample is that was found within a radius."""

CONTRADICTED = "executed in float32, an input {} away is misclassified, though real arithmetic has a proof at {}"


@dataclass(frozen=True, eq=False)
class Found:
    """A radius, and the certificate or the counterexample there."""

    radius: float
    item: ItemResult


@dataclass(eq=False)
class Bracket:
    """What is known of one input's radius, up to `largest`.

    open_from: the least radius at which there was no proof, None before the first attempt; certified, attacked: the
    ends, once there are some; resisted: the largest radius at which the attack alone has failed; last: the last answer
    that was neither; late: whether it was for lack of time that there was no proof; wrong: whether the input itself is
    misclassified; reason: why a proof was let go.
    """

    largest: float
    tolerance: float
    open_from: float | None = None
    certified: Found | None = None
    attacked: Found | None = None
    resisted: float = 0.0
    last: ItemResult | None = None
    late: bool = False
    wrong: bool = False
    reason: str | None = None

    @property
    def low(self) -> float:
        """The certified end, or 0."""
        return self.certified.radius if self.certified else 0.0

    @property
    def high(self) -> float:
        """The attacked end, or infinity."""
        return self.attacked.radius if self.attacked else inf

    @property
    def narrow(self) -> bool:
        """Whether the ends are close enough."""
        return _between(self.low, min(self.high, self.largest), self.tolerance) is None

    def to_certify(self) -> float | None:
        """The next radius to certify; None when the search is over."""
        if self.open_from is None:
            return None if self.certified else self.largest
        if self.certified is None:
            return None if self.open_from <= LEAST * self.largest else _rounded(self.open_from / COARSE)
        return _between(self.low, self.open_from, self.tolerance)

    def to_attack(self) -> float | None:
        """The next radius to attack, between what is certified or has resisted and what is broken."""
        if self.attacked is None:
            return None if max(self.low, self.resisted) >= self.largest else self.largest
        if self.high <= LEAST * self.largest:
            return None
        return _between(max(self.low, self.resisted), self.high, self.tolerance)

    def learn(self, radius: float, item: ItemResult, reach: Reach) -> None:
        """Takes in what was found at a radius.

        A counterexample where a proof was, which rounding in the executor may allow, is what counts.
        """
        if item.verdict == Verdict.VERIFIED:
            self.certified = Found(radius, item)
            return
        if item.verdict == Verdict.FALSIFIED:
            away = reach(item, radius)
            self.attacked = Found(away, item) if away < self.high else self.attacked
            if self.certified and away <= self.certified.radius:
                self.reason = CONTRADICTED.format(away, self.certified.radius)
                self.certified = None
            radius = min(radius, away)
        else:
            self.last = item
        if self.open_from is None or radius <= self.open_from:
            self.open_from, self.late = radius, item.verdict == Verdict.TIMEOUT

    def reopen(self) -> None:
        """Begins to search for proofs again, between the two ends."""
        self.late = False
        if not self.wrong:
            self.open_from = self.high if self.attacked else self.largest if self.certified else None


def brackets(chunk: Chunk, budget: Budget, told: Told) -> Answered:
    """One row an input: verified if any radius is certified, falsified if the input itself is misclassified."""
    question = chunk.asked.question
    largest = question.largest or 0.0
    search = Search(chunk, [Bracket(largest, question.tolerance) for _ in range(len(chunk))], [0.0] * len(chunk))
    for place, bracket in enumerate(search.brackets):
        wrong = chunk.misclassified(place)
        item = chunk.replayed(chunk.specification(place, largest), chunk.point(place)) if wrong else None
        if item is not None:
            bracket.learn(largest, item, search.reach(place))
            bracket.wrong, bracket.open_from, bracket.resisted = True, 0.0, bracket.high
    search.run(budget, told)
    answered = Answered()
    for place, bracket in enumerate(search.brackets):
        item = replace(_item(bracket), seconds=search.spent[place])
        ends = Radii(None, *(each.radius if each else None for each in (bracket.certified, bracket.attacked)))
        answered.add(chunk, place, item, ends)
    return answered


@dataclass(frozen=True, eq=False)
class Search:
    """The brackets of a chunk, and the seconds spent on each."""

    chunk: Chunk
    brackets: list[Bracket]
    spent: list[float]

    def run(self, budget: Budget, told: Told) -> None:
        """Everything, until no bracket is open or the time ends."""
        model, options, count = self.chunk.asked.model, self.chunk.asked.options, len(self.brackets)
        self.attack(Budget(ATTACKING * budget.left), told)
        if options.method == AUTO:
            rows = count * (prod(model.graph.output_shape) - 1)
            cheap = replace(options, method=choose(model.graph, count, rows, CHEAP * budget.left))
            self.certify(cheap, Budget(CHEAP * budget.left), told)
            for bracket in self.brackets:
                bracket.reopen()
        self.certify(options, budget, told)
        while budget.left > RETRIED * budget.seconds:
            late = [bracket for bracket in self.brackets if bracket.late]
            for bracket in late:
                bracket.reopen()
            if not self._wanted(Bracket.to_certify):
                break
            self.certify(options, budget, told)
        self.attack(budget, told)

    def certify(self, options: Options, budget: Budget, told: Told) -> None:
        """Raises the certified ends, round by round."""
        while budget.left > 0 and (wanted := self._wanted(Bracket.to_certify)):
            for place, radius, item in self._answers(wanted, options, budget, told):
                self.brackets[place].learn(radius, self.chunk.asked.proved(item), self.reach(place))

    def attack(self, budget: Budget, told: Told) -> None:
        """Lowers the attacked ends likewise."""
        options = replace(self.chunk.asked.options, method=ATTACK, certificates=False, semantics="real")
        while budget.left > 0 and (wanted := self._wanted(Bracket.to_attack)):
            for place, radius, item in self._answers(wanted, options, budget, told):
                if item.verdict == Verdict.FALSIFIED:
                    self.brackets[place].learn(radius, item, self.reach(place))
                else:
                    self.brackets[place].resisted = radius

    def reach(self, place: int) -> Reach:
        """How far a counterexample is from an input: the least radius, rounded up, whose region has it."""

        def reach(item: ItemResult, radius: float) -> float:
            assert item.counterexample is not None
            witness = np.array(item.counterexample.input, dtype=np.float32)
            centre = exact_values(self.chunk.data.inputs[place])
            near = _distance(witness, centre, self.chunk.asked.question.norm) * OUTWARD
            if near < radius and self.chunk.specification(place, near).cases[0].inputs.contains(witness):
                return near
            return radius

        return reach

    def _wanted(self, upcoming: Callable[[Bracket], float | None]) -> dict[int, float]:
        """The next radius of every bracket that is open, by its place."""
        return {place: radius for place, each in enumerate(self.brackets) if (radius := upcoming(each)) is not None}

    def _answers(
        self, wanted: dict[int, float], options: Options, budget: Budget, told: Told
    ) -> Iterator[tuple[int, float, ItemResult]]:
        """One round, in one batch."""
        closed = sum(bracket.narrow for bracket in self.brackets)
        told(closed, f"bisection by {options.method}")
        rounds = max(_rounds(self.brackets[place]) for place in wanted)
        shared = replace(options, seconds=budget.left / rounds)
        specifications = [self.chunk.specification(place, radius) for place, radius in wanted.items()]
        items = certify(self.chunk.asked.model, specifications, shared, lambda done, total, phase: told(closed, phase))
        for (place, radius), item in zip(wanted.items(), items, strict=True):
            self.spent[place] += item.seconds
            yield place, radius, item


def _rounds(bracket: Bracket) -> int:
    """About how many are left, to share the time."""
    top = bracket.largest if bracket.open_from is None else bracket.open_from
    return 1 + max(0, ceil(log2((top - bracket.low) / (bracket.tolerance * top))) if top > bracket.low else 0)


def _distance(x: NDArray[np.float32], centre: NDArray[np.float64], norm: str) -> float:
    return float(np.linalg.norm(x.astype(np.float64) - centre, {"inf": inf, "2": 2, "1": 1}[norm]))


def _between(low: float, high: float, tolerance: float) -> float | None:
    """The middle; None where the two are close enough."""
    return None if high - low <= tolerance * high else _rounded((low + high) / 2)


def _rounded(radius: float) -> float:
    return float(f"{radius:.7g}")


def _item(bracket: Bracket) -> ItemResult:
    """The certified end's, with the counterexample of the other; else the counterexample's, or the last answer's."""
    shown = bracket.attacked.item.counterexample if bracket.attacked else None
    if bracket.certified:
        return replace(bracket.certified.item, counterexample=shown, reason=bracket.reason)
    if bracket.wrong and bracket.attacked:
        return bracket.attacked.item
    item = bracket.last or (bracket.attacked.item if bracket.attacked else NOTHING)
    reason = bracket.reason or item.reason
    verdict = item.verdict if item.verdict == Verdict.TIMEOUT else str(Verdict.UNKNOWN)
    return replace(item, verdict=verdict, assurance=None, counterexample=shown, reason=reason, certificate=None)


NOTHING = ItemResult(str(Verdict.TIMEOUT), "none", None, 0.0)
"""Of an input that was not reached in time."""
