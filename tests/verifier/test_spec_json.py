"""provenn-specification/1: what is written is read back exactly; what is malformed is refused by name."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.emptiness import proved_empty
from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.numbers import exact, hexadecimal, written
from provenn.verifier.spec import Ball, Case, Clause, Constraint, InputSet, Specification
from provenn.verifier.spec_json import FORMAT, from_cases, parse_json, robustness

rationals = st.fractions(-10, 10, max_denominator=10**6) | st.floats(allow_nan=False, allow_infinity=False).filter(
    lambda v: abs(v) < 1e300
).map(Fraction)


def same(left: Specification, right: Specification) -> bool:
    def parts(spec: Specification) -> list[Any]:
        balls = [c.inputs.ball for c in spec.cases]
        return [
            [(c.inputs.exact_lower, c.inputs.exact_upper, c.inputs.constraints, c.clauses) for c in spec.cases],
            [ball and (ball.centre, ball.radius, ball.norm) for ball in balls],
        ]

    return parts(left) == parts(right) and left.text == right.text and left.form == right.form == "json"


@given(rationals)
def test_written_numbers_read_back_exactly(value: Fraction) -> None:
    assert exact(written(value)) == value


@given(st.floats(allow_nan=False, allow_infinity=False).filter(lambda v: abs(v) < 1e300))
def test_floats_are_written_exactly(value: float) -> None:
    assert exact(hexadecimal(value)) == Fraction(value) == Fraction(float.fromhex(hexadecimal(value)))


@pytest.mark.parametrize(
    ("text", "value"),
    [("0.03", (3, 100)), ("-1e-3", (-1, 1000)), ("1/255", (1, 255)), ("0x1.8p-3", (3, 16)), ("-0x0p+0", (0, 1))],
)
def test_forms_of_a_number(text: str, value: tuple[int, int]) -> None:
    assert exact(text) == Fraction(*value)


ODD = ["", "nan", "inf", "1_0", " 1", "1e", "1/0", "1/-2", "0x2p0", "0x1.00000000000001p0", "0x1p1100", "１", "1e302"]
HUGE = ["1e999999999", "1e-999999999", "9" * 1001, "1/" + "9" * 5000, "9" * 5000 + "/1"]


@pytest.mark.parametrize("text", [*ODD, *HUGE])
def test_what_is_no_number_or_too_long_a_one(text: str) -> None:
    with pytest.raises(InvalidSpecification):
        exact(text)


@st.composite
def case_lists(draw: st.DrawFn) -> list[Case]:
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def case() -> Case:
        pairs = [sorted(draw(st.tuples(rationals, rationals))) for _ in range(inputs)]
        rows = st.tuples(*[rationals] * outputs)
        sizes = draw(st.lists(st.integers(0, 2), min_size=1, max_size=3))
        matrices = [tuple(draw(rows) for _ in range(size)) for size in sizes]
        clauses = tuple(Clause(m, tuple(draw(rationals) for _ in m)) for m in matrices)
        low, high = tuple(p[0] for p in pairs), tuple(p[1] for p in pairs)
        over = draw(st.lists(st.tuples(*[rationals] * inputs).filter(any), max_size=2))
        constrained = InputSet(low, high, None, tuple(Constraint(row, draw(rationals)) for row in over))
        return Case(InputSet(low, high) if proved_empty(constrained) else constrained, clauses)

    return [case() for _ in range(draw(st.integers(1, 3)))]


@settings(deadline=None)
@given(case_lists())
def test_cases_are_written_and_read_back_exactly(cases: list[Case]) -> None:
    specification = from_cases(cases)
    assert same(specification, parse_json(specification.text))
    for ours, given_ in zip(specification.cases, cases, strict=True):
        assert ours.inputs.exact_lower == given_.inputs.exact_lower
        assert ours.inputs.exact_upper == given_.inputs.exact_upper
        assert ours.clauses == given_.clauses
        assert ours.inputs.constraints == given_.inputs.constraints


@settings(deadline=None)
@given(
    st.lists(st.floats(-2, 2, width=32), min_size=1, max_size=5),
    st.decimals(0, 1, places=3),
    st.sampled_from(["inf", "2", "1"]),
    st.integers(0, 3),
    st.booleans(),
    st.none() | st.just((-2.5, 2.5)),
)
def test_robustness_is_the_ball_around_the_input(
    values: list[float], epsilon: Any, norm: str, label: int, targeted: bool, clip: tuple[float, float] | None
) -> None:
    target = (label + 1) % 4 if targeted else None
    specification = robustness(
        np.array(values, np.float32),
        label=label,
        epsilon=float(epsilon),
        norm=norm,
        outputs=4,
        target=target,
        clip=clip,
    )
    assert same(specification, parse_json(specification.text))
    (case,) = specification.cases
    radius = Fraction(str(epsilon))
    for x, low, high in zip(values, case.inputs.exact_lower, case.inputs.exact_upper, strict=True):
        assert low == max(Fraction(x) - radius, Fraction(-5, 2) if clip else Fraction(x) - radius)
        assert high == min(Fraction(x) + radius, Fraction(5, 2) if clip else Fraction(x) + radius)
    ball = case.inputs.ball
    assert (ball is None) == (norm == "inf")
    assert ball is None or (ball.centre, ball.radius, ball.norm) == (tuple(map(Fraction, values)), radius, int(norm))
    for y in product((Fraction(0), Fraction(1), Fraction(-1)), repeat=4):
        lost = any(y[j] >= y[label] for j in range(4) if j != label and target in (None, j))
        assert any(clause.holds(y) for clause in case.clauses) == lost


def test_rivals_come_in_increasing_order() -> None:
    rows = [c.matrix[0] for c in robustness([0.0], label=1, epsilon=0, outputs=4).cases[0].clauses]
    assert rows == [(1, -1, 0, 0), (0, -1, 1, 0), (0, -1, 0, 1)]


@pytest.mark.parametrize(
    ("epsilon", "radius"),
    [(0.03, (3, 100)), (np.float32(0.03), (3, 100)), ("1/255", (1, 255)), (Fraction(2, 7), (2, 7)), (1, (1, 1))],
)
def test_an_epsilon_means_what_was_typed(epsilon: Any, radius: tuple[int, int]) -> None:
    inputs = robustness(np.zeros((1, 2, 2)), label=0, epsilon=epsilon, outputs=2).cases[0].inputs
    assert inputs.exact_upper == (Fraction(*radius),) * 4


def test_the_inputs_floats_are_exact() -> None:
    inputs = robustness(np.array([0.1], np.float32), label=0, epsilon=0, outputs=2).cases[0].inputs
    assert inputs.exact_lower == inputs.exact_upper == (Fraction(float(np.float32(0.1))),)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": [0.0, math.nan]}, '"input"[1] is nan: inputs must be finite'),
        ({"input": [-math.inf, 0.0]}, '"input"[0] is -inf'),
        ({"input": []}, '"input" is empty'),
        ({"input": [[1.0], [1.0, 2.0]]}, '"input" must be an array of numbers'),
        ({"epsilon": -0.1}, '"epsilon" is -0.1: it must not be negative'),
        ({"epsilon": math.nan}, "\"epsilon\": 'nan' is not a number"),
        ({"epsilon": "much"}, "\"epsilon\": 'much' is not a number"),
        ({"label": 3}, '"label" is 3: it must be a whole number from 0 to 2'),
        ({"label": -1}, '"label" is -1'),
        ({"label": 1.5}, '"label" is 1.5'),
        ({"target": 1}, '"target" and "label" are both 1'),
        ({"target": 9}, '"target" is 9'),
        ({"outputs": 1, "label": 0}, '"outputs" is 1: there is no other class'),
        ({"outputs": -1}, '"outputs" is -1'),
        ({"norm": "3"}, '"norm" must be one of the strings inf, 2, 1, not "3"'),
        ({"norm": 2}, '"norm" must be one of the strings inf, 2, 1, not 2'),
        ({"clip": (1, 0)}, '"clip" must be [lowest, highest], not ["1", "0"]'),
        ({"clip": (0, 1), "input": [0.5, 1.2]}, 'empty region: "input"[1] is 1.2'),
        ({"clip": (0, 1), "input": [1.08, 1.08], "norm": "2"}, 'empty region: "input" is further'),
    ],
)
def test_bad_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    asked = {"input": [0.5, 0.5], "label": 1, "epsilon": 0.1, "outputs": 3, **changes}
    with pytest.raises(InvalidSpecification) as caught:
        robustness(asked.pop("input"), **asked)
    assert str(caught.value).startswith(message)


ROBUST = {"format": FORMAT, "kind": "robustness", "input": ["0x1p-1", 0.25], "label": 0, "outputs": 2, "target": None}
ROBUST |= {"epsilon": "1/255", "norm": "inf", "clip": None}
BOX = {"format": FORMAT, "kind": "box", "lower": [0], "upper": [1], "unsafe": [{"C": [[1, "1/3"]], "d": [0.5]}]}
BALL = {"input": ["-1/3"], "epsilon": "1/2", "norm": "2"}
CASE = {name: BOX[name] for name in ("lower", "upper", "unsafe")}


def test_forms_agree() -> None:
    box, cases = (json.dumps(d).encode() for d in (BOX, {"format": FORMAT, "kind": "cases", "cases": [CASE]}))
    assert parse_json(box).cases[0].clauses == parse_json(cases).cases[0].clauses
    assert parse_json(box).cases[0].clauses == (Clause(((Fraction(1), Fraction(1, 3)),), (Fraction(1, 2),)),)
    assert parse_json(json.dumps(ROBUST).encode()).cases[0].inputs.exact_lower[1] == Fraction(1, 4) - Fraction(1, 255)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", 'a JSON specification is an object with "format"'),
        ('{"format": "other"}', 'a JSON specification is an object with "format"'),
        ('{"format": "provenn-specification/1",\n"kind": }', "line 2: not JSON: Expecting value (column 9)"),
        ('{"format": "provenn-specification/1", "kind": "magic"}', '"kind" must be "robustness", "box" or "cases"'),
        ('{"format": "a", "format": "b"}', '"format" is given twice'),
        ('{"format": NaN}', "'NaN' is not a number"),
        ('{"format": 1e999999999}', "'1e999999999' has an exponent beyond"),
        ('{"format": ' + "9" * 5000 + "}", "a number of 5000 characters"),
    ],
)
def test_text_that_is_no_specification(text: str, message: str) -> None:
    with pytest.raises(InvalidSpecification) as caught:
        parse_json(text.encode())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("data", [b"\xff\xfe{\x00}\x00", b'{"format": "\xff"}'])
def test_bytes_that_are_no_text(data: bytes) -> None:
    with pytest.raises(InvalidSpecification, match="line 1: not JSON: a byte is not UTF-8"):
        parse_json(data)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (ROBUST, {"input": "0.5"}, '"input" must be a list of numbers, not "0.5"'),
        (ROBUST, {"input": [0.5, True]}, '"input"[1] must be a number'),
        (ROBUST, {"input": [[0.5]]}, '"input"[0] must be a number'),
        (ROBUST, {"epsilon": None}, '"epsilon" must be a number'),
        (ROBUST, {"label": "1"}, '"label" is "1"'),
        (ROBUST, {"label": 0.5}, '"label" is 0.5'),
        (ROBUST, {"clip": [0]}, '"clip" must be [lowest, highest]'),
        (ROBUST, {"radius": 1}, '"radius" is not known here; known: input, label'),
        (BOX, {"lower": [2]}, "empty region: input 0 has lower bound 2.0 above upper bound 1.0"),
        (BOX, {"lower": [0, 0]}, '"lower" has 2 numbers, "upper" 1'),
        (BOX, {"lower": [], "upper": []}, '"lower" has 0 numbers'),
        (BOX, {"unsafe": []}, '"unsafe" is empty: there is nothing to prove'),
        (BOX, {"unsafe": {}}, '"unsafe" must be a list of clauses'),
        (BOX, {"unsafe": [3]}, '"unsafe"[0]: an object with C, d was expected, not 3'),
        (BOX, {"unsafe": [{"C": [[1]]}]}, '"unsafe"[0]: "d" is missing'),
        (BOX, {"unsafe": [{"C": [[1]], "d": []}]}, '"unsafe"[0]: "C" has 1 rows, "d" 0 numbers'),
        (BOX, {"unsafe": [{"C": [1], "d": [1]}]}, '"unsafe"[0]: "C"[0] must be a list of numbers'),
        (BOX, {"unsafe": [{"C": [[1], [1, 2]], "d": [1, 1]}]}, "it speaks of 1 and of 2 outputs"),
        (BOX, {"unsafe": [{"C": [[]], "d": [1]}]}, 'a row of "C" is empty'),
        (BOX, {"ball": 3}, '"ball": an object with input, epsilon, norm was expected, not 3'),
        (BOX, {"ball": {"input": [0], "norm": "2"}}, '"ball": "epsilon" is missing'),
        (BOX, {"ball": {**BALL, "input": [0, 0]}}, '"ball": "input" has 2 numbers for 1 inputs'),
        (BOX, {"ball": {**BALL, "epsilon": -1}}, '"ball": "epsilon" is -1: it must not be negative'),
        (BOX, {"ball": {**BALL, "norm": "inf"}}, '"ball": "norm" must be one of the strings 2, 1, not "inf"'),
        (BOX, {"ball": {**BALL, "norm": 2}}, '"ball": "norm" must be one of the strings 2, 1, not 2'),
        (BOX, {"ball": {**BALL, "input": [2]}}, 'empty region: no point of the box is within "epsilon" of the "ball"'),
        (BOX, {"constraints": 3}, '"constraints": an object with P, q was expected, not 3'),
        (BOX, {"constraints": {"P": [[1]], "q": []}}, '"constraints": "P" has 1 rows, "q" 0 numbers'),
        (BOX, {"constraints": {"P": [[1, 2]], "q": [1]}}, '"constraints": "P"[0] has 2 numbers for 1 inputs'),
        (BOX, {"constraints": {"P": [[0]], "q": [1]}}, '"constraints": "P"[0] is zero'),
        (BOX, {"constraints": {"P": [["1/2"]], "q": [-1]}}, "empty region: no point of the box satisfies"),
        (ROBUST, {"constraints": {"P": [[1]], "q": [1]}}, '"constraints": "P"[0] has 1 numbers for'),
        (BOX, {"kind": "cases"}, '"cases" is missing'),
        ({"format": FORMAT, "kind": "cases", "cases": []}, {}, '"cases" is empty'),
        ({"format": FORMAT, "kind": "cases", "cases": [CASE, 1]}, {}, '"cases"[1]: an object with lower'),
        (
            {"format": FORMAT, "kind": "cases", "cases": [CASE, {**CASE, "lower": [0, 0], "upper": [1, 1]}]},
            {},
            "it speaks of 1 and of 2 inputs",
        ),
    ],
)
def test_bad_members_are_named(kind: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSpecification) as caught:
        parse_json(json.dumps({**kind, **changes}).encode())
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", [name for name in ROBUST if name not in ("target", "clip")])
def test_a_missing_member_is_named(name: str) -> None:
    data = {key: value for key, value in ROBUST.items() if key != name}
    with pytest.raises(InvalidSpecification, match=name):
        parse_json(json.dumps(data).encode())


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_a_ball_is_not_lost_on_writing(norm: float) -> None:
    ball = Ball((Fraction(-1, 3),), Fraction(1, 3), norm)
    inputs = InputSet((Fraction(0),), (Fraction(1),), ball)
    (case,) = from_cases([Case(inputs, (Clause(((Fraction(1),),), (Fraction(0),)),))]).cases
    assert case.inputs.ball is not None
    assert vars(case.inputs.ball) == vars(ball)


def test_size_limits() -> None:
    with pytest.raises(ResourceLimit, match="nesting depth"):
        parse_json(b"[" * 10**6)
    with pytest.raises(ResourceLimit, match='"outputs"'):
        robustness([0.0], label=0, epsilon=0, outputs=10**6)
    assert len(robustness([0.0], label=0, target=1, epsilon=0, outputs=10**5).cases[0].clauses) == 1


SAMPLES = [
    json.dumps(data).encode()
    for data in (ROBUST, BOX, {**BOX, "ball": BALL}, {"format": FORMAT, "kind": "cases", "cases": [CASE]})
]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5), st.binary(max_size=4)), max_size=4),
)
def test_damaged_text_raises_nothing_but_our_errors(data: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    for at, cut, new in edits:
        data = data[:at] + new + data[at + cut :]
    try:
        assert parse_json(data).cases
    except ProvennError as error:
        assert str(error)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["C", "d", "lower"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([ROBUST, BOX]), st.data())
def test_any_value_anywhere_raises_nothing_but_our_errors(kind: dict[str, Any], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(kind)))
    try:
        assert parse_json(json.dumps({**kind, name: data.draw(values)}).encode()).cases
    except ProvennError as error:
        assert str(error)
