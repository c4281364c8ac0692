"""The search and the trusted checker read specifications with code of their own: their normal forms are equal."""

from __future__ import annotations

import gzip
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.check.specification import read_json, read_vnnlib
from provenn.verifier.spec import Ball, Case, Clause, InputSet, Specification
from provenn.verifier.spec_json import from_cases, robustness
from provenn.verifier.spec_reader import read_specification
from provenn.verifier.vnnlib import parse_vnnlib


def searched(specification: Specification) -> list[Any]:
    found = []
    for case in specification.cases:
        ball = case.inputs.ball
        clauses = [(c.matrix, c.bound) for c in case.clauses]
        plain = None if ball is None else (ball.centre, ball.radius, ball.norm)
        found.append((case.inputs.exact_lower, case.inputs.exact_upper, clauses, plain))
    return found


def checked(specification: Specification) -> list[Any]:
    read = read_json if specification.form == "json" else read_vnnlib
    cases = read(specification.text)
    return [(c.lower, c.upper, [(k.matrix, k.bound) for k in c.clauses], c.ball) for c in cases]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("family", "step"), [("acasxu", 1), ("mnist_fc", 3), ("oval21", 10), ("rl_benchmarks", 1), ("sri_resnet_a", 24)]
)
def test_competition_files(shared: Path, family: str, step: int) -> None:
    for path in sorted((shared / "vnncomp2022" / family / "vnnlib").iterdir())[::step]:
        specification = read_specification(gzip.decompress(path.read_bytes()))
        assert searched(specification) == checked(specification), path.name


@settings(deadline=None)
@given(
    st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=4),
    st.fractions(0, 1, max_denominator=300),
    st.sampled_from(["inf", "2", "1"]),
    st.sampled_from([None, 0, 2]),
    st.sampled_from([None, (-2, 2), ("-2.5", "7/3")]),
)
def test_robustness(values: list[float], epsilon: Any, norm: str, target: int | None, clip: Any) -> None:
    given_ = np.array(values, np.float32)
    specification = robustness(given_, label=1, epsilon=epsilon, norm=norm, target=target, outputs=3, clip=clip)
    assert searched(specification) == checked(specification)


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.fractions(-2, 2), st.fractions(0, 1)), min_size=1, max_size=3),
    st.sampled_from([1.0, 2.0]),
    st.sampled_from([1, Fraction(1, 3)]),
)
def test_balls_with_any_clauses(sides: list[tuple[Fraction, Fraction]], norm: float, radius: Fraction) -> None:
    low, high = tuple(a for a, _ in sides), tuple(a + b for a, b in sides)
    clauses = (Clause(((Fraction(1), Fraction(-1)), (Fraction(0), Fraction(1))), (Fraction(0), radius)),)
    boxes = [InputSet(low, high, ball) for ball in (None, Ball(low, Fraction(radius), norm))]
    specification = from_cases([Case(each, clauses) for each in boxes])
    assert searched(specification) == checked(specification)


HEAD = "(declare-const X_0 Real)(declare-const Y_0 Real)(declare-const Y_1 Real)(assert (<= -1 X_0))(assert (<= X_0 1))"
ATOMS = ["(>= Y_0 Y_1)", "(<= Y_0 0.25)", "(< X_0 (* 2 0.25))", "(> (- Y_0 (* 1e-1 Y_1) 3) (+ Y_1 1.))", "(<= X_0 0.5)"]
formula = st.recursive(
    st.sampled_from(ATOMS),
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda pair: f"({pair[0]} {' '.join(pair[1])})"
    ),
    max_leaves=6,
)


@settings(max_examples=200, deadline=None)
@given(st.lists(formula, min_size=1, max_size=4))
def test_disjunctive_normal_forms(formulas: list[str]) -> None:
    specification = parse_vnnlib((HEAD + "".join(f"(assert {part})" for part in formulas)).encode())
    assert searched(specification) == checked(specification)


def test_translations_of_the_new_form() -> None:
    text = b"""(vnnlib-version <2.0>)(declare-network N (declare-input X real [1])(declare-output Y real [1,2]))
    (assert (and (>= X[0] 0.1) (<= X[0] 1.0)))(assert (or (<= Y[0,0] 0.3) (and (> Y[0,1] Y[0,0]) (<= X[0] 0.5))))"""
    specification = read_specification(text)
    assert len(specification.cases) == 2
    assert searched(specification) == checked(specification)
