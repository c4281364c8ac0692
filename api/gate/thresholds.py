"""Whether a threshold is met, as far as what is proved decides that: by exact numbers, never by what is likely."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction


class Outcome(StrEnum):
    """Of one check, and of all."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Tally:
    """Of `total` inputs `proved` certainly count, `undecided` may, and the others certainly do not."""

    proved: int
    undecided: int
    total: int

    @property
    def possible(self) -> int:
        """How many may count at most."""
        return self.proved + self.undecided


def at_least(least: Fraction, tally: Tally) -> Outcome:
    """passed: proved / total >= least; failed: it stays below even if every undecided input counts."""
    if tally.total and tally.proved >= least * tally.total:
        return Outcome.PASSED
    return Outcome.FAILED if tally.total and tally.possible < least * tally.total else Outcome.UNKNOWN


def at_most(most: Fraction, lower: float | None, upper: float | None) -> Outcome:
    """Of a number of which bounds are known; passed: upper <= most; failed: lower > most."""
    if upper is not None and Fraction(upper) <= most:
        return Outcome.PASSED
    return Outcome.FAILED if lower is not None and Fraction(lower) > most else Outcome.UNKNOWN


def overall(outcomes: list[Outcome]) -> Outcome:
    """Failed if one has; else unknown if one is, or if there is none; passed if all have."""
    order = (Outcome.FAILED, Outcome.UNKNOWN)
    return next((outcome for outcome in order if outcome in outcomes), Outcome.PASSED if outcomes else Outcome.UNKNOWN)
