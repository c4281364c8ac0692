"""Questions, rows and summaries: what is refused, what survives a round trip, and what the shares are."""

from __future__ import annotations

from dataclasses import fields, replace
from fractions import Fraction
from math import sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.api.batch.question import Question
from provenn.api.batch.results import write_parquet, write_rows
from provenn.api.batch.rows import KINDS, Row, canonical, input_digest
from provenn.api.batch.summary import Share, summarize
from provenn.verifier.errors import InvalidSpecification

ROW = Row(
    0, "a/b.png", 1, 1, 0.5, "verified", 0.25, "ibp", "checked", 0.125, None, "0" * 64, None, None, None, "1" * 64
)
reals = st.floats(allow_nan=False, allow_infinity=False, width=32)


def test_a_question_is_exact_and_comes_back() -> None:
    asked = Question((0.03, "8/255"), norm="2", clip=(0, 0.1))
    assert asked.radii == (Fraction(3, 100), Fraction(8, 255))
    again = Question.from_json(asked.as_json())
    assert again.as_json() == asked.as_json()
    assert again.radii == asked.radii
    bracketed = Question(largest=0.3, tolerance=0.05)
    assert Question.from_json(bracketed.as_json()) == bracketed


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "one of the two"),
        ({"epsilons": (0.1,), "largest": 1.0}, "one of the two"),
        ({"epsilons": ("-1",)}, "not a radius"),
        ({"epsilons": ("0.1", 0.1)}, "the same"),
        ({"epsilons": ("x",)}, "'x' is not a number"),
        ({"largest": 0.0}, "above 0"),
        ({"largest": float("inf")}, "above 0"),
        ({"largest": 1.0, "tolerance": 0.0}, "tolerance"),
        ({"largest": 1.0, "norm": "3"}, "norm"),
        ({"largest": 1.0, "clip": (1, 0)}, "range"),
        ({"largest": 1.0, "clip": (float("nan"), 0)}, "range"),
    ],
)
def test_questions_without_sense_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidSpecification, match=said):
        Question(**given)  # type: ignore[arg-type]


def test_other_json_is_no_question() -> None:
    for wrong in ({}, {"epsilons": [1]}, Question((1,)).as_json() | {"more": 1}):
        with pytest.raises(InvalidSpecification):
            Question.from_json(wrong)


@given(st.text(), reals, st.none() | reals, st.none() | st.lists(reals).map(tuple))
def test_rows_survive_json(name: str, seconds: float, margin: float | None, shown: tuple[float, ...] | None) -> None:
    row = replace(ROW, name=name, seconds=seconds, margin=margin, counterexample=shown)
    assert Row.from_json(row.line()) == row
    assert Row.from_json(row.leaf()) == replace(row, seconds=0.0)


def test_other_json_is_no_row() -> None:
    assert tuple(KINDS) == tuple(field.name for field in fields(Row))
    good = ROW.as_json()
    for name in good:
        for wrong in ([], {}, True, "x" if not isinstance(good[name], str) else 1):
            if name == "counterexample" and wrong == []:
                continue
            with pytest.raises(ValueError, match=r"is|verdict"):
                Row.from_json(canonical(good | {name: wrong}) if wrong != "x" or name not in ("reason",) else b"[]")
    with pytest.raises(ValueError, match="members"):
        Row.from_json(b"{}")
    with pytest.raises(ValueError, match="no number"):
        Row.from_json(ROW.leaf().replace(b'"margin":0.25', b'"margin":NaN'))


def test_a_zero_has_no_sign() -> None:
    assert input_digest(np.array([-0.0, 1])) == input_digest(np.array([0.0, 1], np.float32))


def test_rows_of_a_file_are_read_when_asked_for(tmp_path: Path) -> None:
    some = [replace(ROW, index=k, counterexample=(0.5, 0.1 * k)) for k in range(5)]
    rows = write_rows(tmp_path / "results.jsonl", some)
    assert list(rows) == some
    assert rows[-1] == some[-1]
    assert rows[1:3] == some[1:3]
    with pytest.raises(IndexError):
        rows[5]


def test_rows_as_a_table(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    odd = replace(ROW, index=1, name="\udcff.png", counterexample=(0.5, 0.25))
    write_parquet(tmp_path / "t.parquet", [ROW, odd])
    table = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    assert table[0] == ROW.as_json()
    assert (table[1]["counterexample"], table[1]["name"]) == ([0.5, 0.25], "?.png")
    assert Row.from_json(odd.line()) == odd


@given(st.integers(0, 60), st.integers(1, 60))
def test_intervals_are_wilsons(count: int, total: int) -> None:
    share = Share.of(min(count, total), total)
    z, n, p = 1.959963984540054, total, share.value
    middle, half = p + z * z / 2 / n, z * sqrt(p * (1 - p) / n + z * z / 4 / n / n)
    assert share.low == pytest.approx((middle - half) / (1 + z * z / n), abs=1e-9)
    assert share.high == pytest.approx((middle + half) / (1 + z * z / n), abs=1e-9)
    assert Share.of(0, 0).as_json() == {"count": 0, "total": 0, "value": 0.0, "low": 0.0, "high": 1.0}


def test_accuracies_by_radius_and_class() -> None:
    verdicts = {0: ("verified", "falsified"), 1: ("verified", "unknown"), 2: ("falsified", "falsified")}
    rows = [
        replace(ROW, index=i, label=i % 2, predicted=i % 2 if i < 2 else 1, epsilon=e, verdict=v)
        for i, each in verdicts.items()
        for e, v in zip((0.2, 0.1), reversed(each), strict=True)
    ]
    found = summarize(rows, Question((0.2, 0.1)))
    assert (found.clean.count, found.clean.total) == (2, 3)
    assert [each.epsilon for each in found.radii] == [0.1, 0.2]
    assert [each.certified.count for each in found.radii] == [2, 0]
    assert [each.attacked.count for each in found.radii] == [2, 1]
    assert found.at(0.2).verdicts == {"verified": 0, "falsified": 2, "unknown": 1, "timeout": 0}
    assert found.classes[1].at(0.1).certified.value == 1.0
    assert found.classes[0].clean.count == 1
    with pytest.raises(KeyError):
        found.at(0.3)
    computed = summarize([replace(row, assurance="computed") for row in rows], Question((0.2, 0.1)))
    assert [each.certified.count for each in computed.radii] == [0, 0]
    assert computed.at(0.1).verdicts == found.at(0.1).verdicts


def test_accuracies_from_brackets() -> None:
    ends = [(0.5, 0.6), (0.2, None), (None, 0.0)]
    rows = [replace(ROW, index=i, epsilon=None, certified=c, attacked=a) for i, (c, a) in enumerate(ends)]
    found = summarize(rows, Question(largest=1.0))
    assert len(found.radii) == 20
    assert [found.at(r).certified.count for r in (0.2, 0.5, 0.55)] == [2, 1, 0]
    assert [found.at(r).attacked.count for r in (0.2, 0.55, 0.6)] == [2, 2, 1]
