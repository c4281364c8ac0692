"""A threshold is passed if it holds whatever the undecided inputs turn out to be, and failed if it never does."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from provenn.api.gate import checks
from provenn.api.gate.found import Item
from provenn.api.gate.report import Report
from provenn.api.gate.thresholds import Outcome, Tally, at_least, at_most, overall

COUNTS = st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(0, 9)).filter(any)
SHARES = st.integers(0, 30).map(lambda part: Fraction(part, 30))
NUMBERS = st.floats(0, 1e6) | st.none()


@given(COUNTS, SHARES)
def test_it_is_decided_by_every_completion(counts: tuple[int, int, int], least: Fraction) -> None:
    proved, undecided, refuted = counts
    total = sum(counts)
    holds = {Fraction(proved + more, total) >= least for more in range(undecided + 1)}
    expected = {frozenset({True}): Outcome.PASSED, frozenset({False}): Outcome.FAILED}
    assert at_least(least, Tally(proved, undecided, total)) == expected.get(frozenset(holds), Outcome.UNKNOWN)
    assert refuted == total - Tally(proved, undecided, total).possible


def test_nothing_is_known_of_no_inputs() -> None:
    assert at_least(Fraction(0), Tally(0, 0, 0)) == Outcome.UNKNOWN


@given(st.integers(0, 1000).map(Fraction), NUMBERS, NUMBERS)
def test_a_number_between_its_bounds(most: Fraction, lower: float | None, upper: float | None) -> None:
    found = at_most(most, lower, upper)
    assert (found == Outcome.PASSED) == (upper is not None and upper <= most)
    assert (found == Outcome.FAILED) <= (lower is not None and lower > most)


def test_all_of_them() -> None:
    passed, failed, unknown = Outcome
    assert overall([passed, unknown, failed]) == failed
    assert overall([passed, unknown]) == unknown
    assert overall([passed]) == passed
    assert overall([]) == unknown
    assert Report("provenn.toml", (), tolerant=True, seconds=0.0).outcome == unknown


def item(verdict: str, assurance: str | None = None, certificate: str | None = None) -> Item:
    return Item(verdict, assurance, certificate, name="7", radius="0.1", label=3, predicted=3)


SURE = item("verified", "checked", "a" * 64)


def test_only_a_checked_certificate_counts() -> None:
    half = Fraction(1, 2)
    computed, unnamed = item("verified", "computed"), item("verified", "checked")
    assert checks.certified([SURE, item("falsified")], half, "0.1").outcome == Outcome.PASSED
    for weaker in (computed, unnamed, item("unknown"), item("timeout")):
        assert checks.certified([weaker, item("falsified")], half, "0.1").outcome == Outcome.UNKNOWN
        assert checks.certified([weaker, item("falsified"), item("falsified")], half, "0.1").outcome == Outcome.FAILED


def test_an_attack_that_did_not_end_decides_nothing() -> None:
    share = Fraction(9, 10)
    assert checks.attacked([SURE, item("unknown")], share, "0.1").outcome == Outcome.PASSED
    late = checks.attacked([SURE, item("timeout")], share, "0.1")
    assert (late.outcome, late.reason) == (Outcome.UNKNOWN, checks.LATE)
    assert checks.attacked([SURE, item("falsified")], share, "0.1").outcome == Outcome.FAILED


def test_a_wrong_class_is_refuted_whatever_is_said_of_the_inputs_around_it() -> None:
    for said in (item("unknown"), item("timeout"), SURE):
        wrong = replace(said, predicted=4)
        assert checks.attacked([wrong], Fraction(1, 2), "0.1").outcome == Outcome.FAILED
        assert checks.certified([wrong], Fraction(1, 2), "0.1").outcome == Outcome.FAILED


def test_why_it_is_not_known() -> None:
    undecided = Item("unknown", reason="operator Foo is not read", radius="0.1", label=3, predicted=3)
    assert checks.certified([SURE, undecided], Fraction(1), "0.1").reason == "operator Foo is not read"
    assert checks.holds([item("timeout")]).reason == checks.LATE
    assert checks.holds([item("unknown")]).reason == "no method decided it"


def test_what_holds_vacuously_says_so() -> None:
    vacuous = checks.holds([Item("verified", "vacuous", reason="vacuously true: X_0 is at least 2 and at most 1")])
    assert vacuous.outcome == Outcome.PASSED
    assert "vacuously" in vacuous.measured
    assert checks.holds([Item("unknown", "vacuous")]).outcome == Outcome.UNKNOWN
