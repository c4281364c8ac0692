"""Whether what was found meets a threshold: one function a kind of check, each with what a reader needs to see why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from provenn.api.gate.found import Item
from provenn.api.gate.thresholds import Outcome, Tally, at_least, at_most

LATE = "the budget ended before this was decided"
EXAMPLES = 5


@dataclass(frozen=True)
class Judged:
    """The outcome, what was measured in words, why it is not known, and the first inputs that speak against it."""

    outcome: Outcome
    measured: str
    reason: str | None = None
    examples: tuple[str, ...] = ()


def clean(items: Sequence[Item], least: Fraction) -> Judged:
    """The share of inputs that the executor classifies as their labels say."""
    plain = [item for item in items if item.radius is None]
    wrong = [item for item in plain if item.label is None or item.predicted != item.label]
    tally = Tally(len(plain) - len(wrong), 0, len(plain))
    words = f"{_share(tally.proved, tally.total)} classified rightly"
    return Judged(at_least(least, tally), words, None, _examples(wrong))


def certified(items: Sequence[Item], least: Fraction, radius: str) -> Judged:
    """The share of inputs with a checked certificate at a radius; what is undecided may still count."""
    here = [item for item in items if item.radius == radius]
    refuted = [item for item in here if item.refuted]
    proved = sum(item.proved and not item.refuted for item in here)
    tally = Tally(proved, len(here) - proved - len(refuted), len(here))
    words = f"{_share(proved, tally.total)} certified"
    return Judged(at_least(least, tally), words + _beside(refuted, tally), _why(here), _examples(refuted))


def attacked(items: Sequence[Item], least: Fraction, radius: str) -> Judged:
    """The share of inputs without a counterexample at a radius; where the time ended the attack may not have."""
    here = [item for item in items if item.radius == radius]
    refuted = [item for item in here if item.refuted]
    late = sum(item.late and not item.refuted for item in here)
    tally = Tally(len(here) - len(refuted) - late, late, len(here))
    words = f"{_share(len(here) - len(refuted), tally.total)} without a counterexample"
    return Judged(at_least(least, tally), words, LATE if late else None, _examples(refuted))


def lipschitz(items: Sequence[Item], most: Fraction) -> Judged:
    """The constant: a proved bound from above, and what a pair of inputs shows from below."""
    (item,) = items
    upper = item.upper if item.proved else None
    low = "" if item.lower is None else f"at least {item.lower:.6g}"
    high = "" if upper is None else f"at most {upper:.6g}"
    words = " and ".join(part for part in (low, high) if part) or "not bounded"
    return Judged(at_most(most, item.lower, upper), words, _why([item]) or "the proved bound is above it")


def holds(items: Sequence[Item]) -> Judged:
    """Something that is verified, or contradicted by inputs: of several items all, or one."""
    refuted = [item for item in items if item.verdict == "falsified"]
    sure = [item for item in items if item.proved or item.vacuous]
    if refuted:
        many = "" if len(items) == 1 else f" for {len(refuted)} of {len(items)} inputs"
        return Judged(Outcome.FAILED, f"contradicted{many}", None, _examples(refuted))
    if len(sure) == len(items) and items:
        vague = next((item.reason for item in sure if item.vacuous), None)
        return Judged(Outcome.PASSED, vague or "proved")
    many = "" if len(items) == 1 else f" for {len(items) - len(sure)} of {len(items)} inputs"
    return Judged(Outcome.UNKNOWN, f"neither proved nor contradicted{many}", _why(items))


def _why(items: Sequence[Item]) -> str | None:
    """Why something is not decided: the time if that ended, else the first reason that an item gives."""
    undecided = [item for item in items if not (item.proved or item.vacuous or item.refuted)]
    if any(item.late for item in undecided):
        return LATE
    given = next((item.reason for item in undecided if item.reason), None)
    return given or ("no method decided it" if undecided else None)


def _share(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / total:.1f} %)" if total else "no inputs"


def _beside(refuted: Sequence[Item], tally: Tally) -> str:
    parts = [f"{count} {word}" for count, word in ((len(refuted), "refuted"), (tally.undecided, "undecided")) if count]
    return "".join(f", {part}" for part in parts)


def _examples(items: Sequence[Item]) -> tuple[str, ...]:
    """The first ones, in words."""
    more = (f"... and {len(items) - EXAMPLES} more",) if len(items) > EXAMPLES else ()
    return (*map(_example, items[:EXAMPLES]), *more)


def _example(item: Item) -> str:
    if item.label is None:
        return item.shown or "an input contradicts"
    if item.predicted != item.label:
        return f"input {item.name}: class {item.label} is taken for class {item.predicted} as it is"
    rival = "another class" if item.rival is None else f"class {item.rival}"
    found = f"input {item.name}: class {item.label} becomes {rival} within {item.radius}"
    return found + (f", with {item.shown}" if item.shown else "")
