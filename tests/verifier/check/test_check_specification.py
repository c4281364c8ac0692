"""The kernel's own specification readers: exact numbers, one normal form, nothing guessed; and against the search's."""

from __future__ import annotations

import gzip
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.rounding import float_below
from provenn.verifier.check.specification import Case, number, read_json, read_vnnlib
from provenn.verifier.spec_reader import read_specification

BASE: dict[str, Any] = {
    "format": "provenn-specification/1",
    "kind": "robustness",
    "input": [0.1, "1/255", "0x1.8p-3"],
    "label": 1,
    "outputs": 3,
    "target": None,
    "epsilon": "0.03",
    "norm": "inf",
    "clip": [0, 1],
}


def read(**changes: Any) -> Case:
    (case,) = read_json(json.dumps({**BASE, **changes}).encode())
    return case


def test_robustness_is_a_clipped_box_and_a_clause_for_every_other_class() -> None:
    case = read()
    assert case.lower == (Fraction("0.07"), Fraction(0), Fraction(3, 16) - Fraction("0.03"))
    assert case.upper == (Fraction("0.13"), Fraction(1, 255) + Fraction("0.03"), Fraction(3, 16) + Fraction("0.03"))
    assert [clause.matrix for clause in case.clauses] == [((1, -1, 0),), ((0, -1, 1),)]
    assert [clause.bound for clause in case.clauses] == [(0,), (0,)]
    assert case.ball is None
    assert len(read(target=2).clauses) == 1


@pytest.mark.parametrize("norm", ["1", "2"])
def test_other_norms_add_a_ball(norm: str) -> None:
    case = read(norm=norm, clip=None)
    assert case.ball is not None
    assert case.ball[1:] == (Fraction("0.03"), int(norm))
    box, ball = case.region()
    assert ball is not None
    assert Fraction(ball.radius) >= Fraction("0.03")
    assert all(Fraction(float(v)) <= x for v, x in zip(box.lower, case.lower, strict=True))
    assert all(Fraction(float(v)) >= x for v, x in zip(box.upper, case.upper, strict=True))


@given(st.fractions(min_value=-(10**30), max_value=10**30))
def test_floats_are_rounded_down_to_a_neighbour(x: Fraction) -> None:
    below = float_below(x)
    assert Fraction(below) <= x
    assert Fraction(float(np.nextafter(np.nextafter(below, np.inf), np.inf))) > x


def test_floats_beyond_the_range_stay_on_the_safe_side() -> None:
    assert float_below(Fraction(10**400)) == np.finfo(np.float64).max
    assert float_below(Fraction(-(10**400))) == -np.inf


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_hexadecimal_floats_are_exact(x: float) -> None:
    assert number(x.hex()) == Fraction(x)
    assert number(repr(x)) == Fraction(repr(x))


@pytest.mark.parametrize(
    "text", ["", " 1", "1_0", "nan", "inf", "1e9999999", "1/0", "0x1p99999", "0x2p0", "٣", "1.2.3", "--1"]
)
def test_other_numbers_are_refused(text: str) -> None:
    with pytest.raises(CertificateRejected):
        number(text)


@pytest.mark.parametrize(
    "changes",
    [
        {"epsilon": -1},
        {"epsilon": None},
        {"epsilon": True},
        {"label": 3},
        {"label": -1},
        {"label": 1.5},
        {"label": [1]},
        {"target": 1},
        {"target": -1},
        {"target": 7},
        {"outputs": 10**9},
        {"norm": 2},
        {"norm": "3"},
        {"clip": [0]},
        {"clip": [0, 1, 2]},
        {"input": []},
        {"input": "123"},
        {"input": [None]},
        {"input": [[1]]},
        {"input": {}},
        {"kind": "other"},
        {"format": "provenn-specification/2"},
        {"unknown": 1},
    ],
)
def test_broken_robustness_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(CertificateRejected) as refusal:
        read(**changes)
    assert refusal.value.claim == "specification"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": NaN}',
        b"[" * 100000,
        b'{"format": "provenn-specification/1", "kind": "box", "kind": "box"}',
        b'{"format": "provenn-specification/1", "kind": "box", "lower": [0], "upper": [1]}',
        b'{"format": "provenn-specification/1", "kind": "box", "lower": [0], "upper": [1], "unsafe": [3]}',
        b'{"format": "provenn-specification/1", "kind": "box", "lower": [0], "upper": [1], "unsafe": [{"C": [[1]]}]}',
        b'{"format": "provenn-specification/1", "kind": "cases", "cases": {}}',
        b'{"format": "provenn-specification/1", "kind": "robustness", "epsilon": 1e999999999}',
    ],
)
def test_broken_json_is_refused(text: bytes) -> None:
    with pytest.raises(CertificateRejected):
        read_json(text)


def test_cases_and_boxes() -> None:
    box = {"lower": [0, 1], "upper": ["1/3", 2], "unsafe": [{"C": [[1, -1], [0.5, 0]], "d": [0, "1e-3"]}]}
    (one,) = read_json(json.dumps({"format": "provenn-specification/1", "kind": "box", **box}).encode())
    assert one.upper == (Fraction(1, 3), 2)
    assert one.clauses[0].matrix == ((1, -1), (Fraction(1, 2), 0))
    assert one.clauses[0].bound == (0, Fraction(1, 1000))
    both = read_json(json.dumps({"format": "provenn-specification/1", "kind": "cases", "cases": [box, box]}).encode())
    assert both == (one, one)
    cut = {**box, "ball": {"input": [0, "1/3"], "epsilon": 2, "norm": "1"}}
    (case,) = read_json(json.dumps({"format": "provenn-specification/1", "kind": "box", **cut}).encode())
    assert case == one._replace(ball=((0, Fraction(1, 3)), 2, 1))


@pytest.mark.parametrize(
    "changes",
    [{"norm": None}, {"norm": "inf"}, {"norm": 2}, {"epsilon": -1}, {"epsilon": None}, {"input": []}, {"clip": [0, 1]}],
)
def test_broken_balls_are_refused(changes: dict[str, Any]) -> None:
    ball = {"input": [0], "epsilon": 1, "norm": "2", **changes}
    box = {"lower": [0], "upper": [1], "unsafe": [{"C": [[1]], "d": [0]}], "ball": ball}
    with pytest.raises(CertificateRejected):
        read_json(json.dumps({"format": "provenn-specification/1", "kind": "box", **box}).encode())


def test_centres_beyond_float64_are_refused() -> None:
    with pytest.raises(CertificateRejected, match="the centre of a ball is out of range"):
        read(norm="2", input=["1" + "0" * 399] * 3, clip=None).region()


HEAD = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)\n"
BOX = "(assert (<= X_0 1))(assert (>= X_0 -1.5e-1))(assert (and (<= X_1 2) (>= (* 2 X_1) (- 3))))\n"


def vnnlib(text: str, head: str = HEAD + BOX) -> tuple[Case, ...]:
    return read_vnnlib((head + text).encode())


def test_vnnlib_rows_and_bounds() -> None:
    (case,) = vnnlib("(assert (>= Y_0 (+ Y_1 0.5))) ; a comment\n(assert (< (- Y_1 (* 3 Y_0) 1) 2))")
    assert (case.lower, case.upper) == ((Fraction("-0.15"), Fraction(-3, 2)), (1, 2))
    assert case.clauses == (((((1, -1), (3, -1))), (Fraction(1, 2), -3)),)


def test_vnnlib_disjunctions_over_outputs_and_inputs() -> None:
    (case,) = vnnlib("(assert (or (and (<= Y_0 0) (<= Y_1 0)) (>= Y_0 5)))")
    assert [len(clause.bound) for clause in case.clauses] == [2, 1]
    two = vnnlib("(assert (or (and (<= X_0 0) (<= Y_0 0)) (and (>= X_0 0.5) (<= Y_1 0)) (and (<= X_0 0) (<= Y_1 1))))")
    assert [case.upper[0] for case in two] == [0, 1]
    assert [case.lower[0] for case in two] == [Fraction("-0.15"), Fraction(1, 2)]
    assert [len(case.clauses) for case in two] == [2, 1]


def test_vnnlib_drops_empty_boxes() -> None:
    assert len(vnnlib("(assert (or (and (<= X_0 -9) (<= Y_0 0)) (<= Y_1 0)))")) == 1


@pytest.mark.parametrize(
    "text",
    [
        "(assert (<= (+ X_0 X_1) 1))",
        "(assert (<= X_0 Y_0))",
        "(assert (<= (* Y_0 Y_1) 1))",
        "(assert (<= 0 1))",
        "(assert (<= Y_0 Y_0))",
        "(assert (= Y_0 1))",
        "(assert (not (<= Y_0 1)))",
        "(assert (<= Y_0 Z_0))",
        "(assert (<= Y_0 1) (<= Y_1 1))",
        "(assert (or))",
        "(assert Y_0)",
        "(assert (<= Y_0))",
        "(assert (<= Y_0 ()))",
        "(check-sat)",
        "(declare-const X_0 Real)",
        "(declare-const X_00 Real)",
        "(declare-const Y_7 Real)",
        "(declare-const Y_2 Int)",
        "(assert (<= Y_0 1)",
        "(assert (<= Y_0 1)))",
        "stray",
        "()",
        "(assert (<= Y_0 nan))",
        "(assert " + "(and " * 100 + "(<= Y_0 1)" + ")" * 101,
        "(assert (<= Y_0 \u0663))",
        "".join("(assert (or " + "(<= Y_0 1)" * 10 + "))" for _ in range(8)),
    ],
)
def test_what_vnnlib_text_cannot_say_is_refused(text: str) -> None:
    with pytest.raises(CertificateRejected):
        vnnlib(text)


def test_unbounded_inputs_are_refused() -> None:
    with pytest.raises(CertificateRejected, match="no lower or no upper bound"):
        vnnlib("(assert (<= X_0 1))(assert (<= Y_0 1))", HEAD)


def same(text: bytes) -> None:
    """Both readers find the same cases."""
    theirs = read_specification(text)
    ours = read_json(theirs.text) if theirs.form == "json" else read_vnnlib(theirs.text)
    assert len(ours) == len(theirs.cases)
    for own, other in zip(ours, theirs.cases, strict=True):
        assert (own.lower, own.upper) == (other.inputs.exact_lower, other.inputs.exact_upper)
        assert (own.ball is None) == (other.inputs.ball is None)
        if own.ball is not None and other.inputs.ball is not None:
            assert own.ball == (other.inputs.ball.centre, other.inputs.ball.radius, int(other.inputs.ball.norm))
        assert [(c.matrix, c.bound) for c in own.clauses] == [(c.matrix, c.bound) for c in other.clauses]


def test_the_searchs_reader_finds_the_same() -> None:
    for norm in ("inf", "2", "1"):
        same(json.dumps({**BASE, "norm": norm}).encode())
    same(json.dumps({k: v for k, v in BASE.items() if k not in ("target", "clip")}).encode())
    box = {"lower": [0, "0.1"], "upper": [1, "1e0"], "unsafe": [{"C": [["1/3", -1]], "d": [0.25]}]}
    same(json.dumps({"format": "provenn-specification/1", "kind": "cases", "cases": [box, box]}).encode())
    same((HEAD + BOX + "(assert (or (and (<= X_0 0) (<= Y_0 0)) (and (>= X_0 0.5) (<= Y_1 (+ Y_0 1)))))").encode())


@pytest.mark.slow
@pytest.mark.shared
def test_both_readers_agree_on_the_reference_files(shared: Path) -> None:
    files: list[Path] = []
    for family in ("acasxu", "rl_benchmarks", "mnist_fc", "oval21", "sri_resnet_a"):
        found = sorted((shared / "vnncomp2022" / family / "vnnlib").glob("*.gz"))
        files += found if family == "acasxu" else found[:: max(1, len(found) // 6)]
    for path in files:
        same(gzip.decompress(path.read_bytes()))
