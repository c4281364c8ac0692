"""The cases of a query hold wherever the query does, and nowhere else but at the edges of open conditions."""

from __future__ import annotations

from fractions import Fraction
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.errors import EmptyRegion
from provenn.verifier.query.meaning import Layout, Meaning, Watched, layout, meaning, watching
from provenn.verifier.query.query import Query, strict
from provenn.verifier.query.reading import read_query

HEAD = """(vnnlib-version <2.0>)
(declare-network f (declare-input X real [2]) (declare-hidden H real [1] "h") (declare-output Y real [2]))
(declare-network g (equal-to f) (declare-input U real [2]) (declare-output V real [2]))
"""
INPUTS, COMPUTED = ["X[0]", "X[1]", "U[0]", "U[1]"], ["H[0]", "Y[0]", "Y[1]", "V[0]", "V[1]"]
NAMES = ["X[0]", "X[1]", "H[0]", "Y[0]", "Y[1]", "U[0]", "U[1]", "V[0]", "V[1]"]
BOX = "".join(f"(assert (>= {x} -1.0))(assert (<= {x} 1.0))" for x in INPUTS)
VALUES = st.sampled_from([Fraction(k, 2) for k in range(-2, 3)])

single = st.sampled_from(INPUTS + COMPUTED)
number = st.sampled_from(["0.5", "-0.5", "0.0", "1.0"])
product = st.tuples(single, single).map(lambda p: f"(* {p[0]} {p[1]})")
scaled = st.tuples(number, single).map(lambda p: f"(* {p[0]} {p[1]})")
side = single | product | scaled | st.tuples(single, single).map(lambda p: f"(- {p[0]} {p[1]})")
atom = st.tuples(st.sampled_from(["<=", "<", ">=", ">", "==", "!="]), side, side | number).map(
    lambda p: f"({p[0]} {p[1]} {p[2]})"
)
formula = st.recursive(
    atom,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda p: f"({p[0]} {' '.join(p[1])})"
    ),
    max_leaves=5,
)


def read(*asserted: str, box: str = BOX) -> Query:
    return read_query((HEAD + box + "".join(f"(assert {part})\n" for part in asserted)).encode())


def unsafe(meant: Meaning, where: Layout, numbers: list[Fraction]) -> bool:
    """Whether some case allows the inputs and has a clause for the terms' values; no: inputs that must agree differ."""
    x = [numbers[element] for element in where.first]
    if any(numbers[element] != x[column] for element, column in where.column.items()):
        return False
    y = [prod(numbers[i] for i in monomial) for monomial in where.terms]
    return any(
        all(lo <= v <= hi for lo, v, hi in zip(case.inputs.exact_lower, x, case.inputs.exact_upper, strict=True))
        and all(c.holds(x) for c in case.inputs.constraints)
        and any(clause.holds(y) for clause in case.clauses)
        for case in meant.specification.cases
    )


@settings(max_examples=400, deadline=None)
@given(
    st.lists(formula, min_size=1, max_size=3),
    st.lists(VALUES, min_size=9, max_size=9),
    st.booleans(),
    st.sampled_from([Fraction(0), Fraction(-1, 1000)]),
)
def test_the_cases_hold_where_the_query_does(
    asserted: list[str], numbers: list[Fraction], paired: bool, slack: Fraction
) -> None:
    if paired:
        numbers[5:7] = numbers[0:2]
        asserted = [*asserted, "(and (== X[0] U[0]) (<= X[1] U[1]) (<= U[1] X[1]))"]
    query = read(*asserted)
    where = layout(query)
    try:
        meant = meaning(query, where, slack)
    except EmptyRegion:
        assert not query.holds(numbers.__getitem__)
        return
    assert not meant.missing
    found, holds = unsafe(meant, where, numbers), query.holds(numbers.__getitem__)
    assert found or not holds
    if not strict(query.asserted) and not slack:
        assert found == holds


@settings(max_examples=200, deadline=None)
@given(st.lists(formula, min_size=1, max_size=2), st.lists(VALUES, min_size=9, max_size=9))
def test_with_slack_the_cases_hold_only_where_the_query_does(asserted: list[str], numbers: list[Fraction]) -> None:
    query = read(*asserted)
    where = layout(query)
    try:
        meant = meaning(query, where, Fraction(1, 1000))
    except EmptyRegion:
        return
    assert query.holds(numbers.__getitem__) or not unsafe(meant, where, numbers)


def test_equal_inputs_share_a_column() -> None:
    where = layout(read("(== X[0] U[1])", "(and (<= X[1] U[0]) (>= X[1] U[0]))", "(>= Y[0] V[0])"))
    assert where.free == 2
    assert [where.column[i] for i in (0, 1, 5, 6)] == [0, 1, 1, 0]
    assert list(where.terms) == [(3,), (7,)]
    assert layout(read("(or (== X[0] U[0]) (== X[1] U[1]))")).free == 4


def test_inputs_beside_outputs_and_products_become_terms() -> None:
    where = layout(read("(>= Y[0] (+ X[0] 0.5))", "(<= (* Y[1] X[0] Y[1]) 1.0)", "(<= (+ X[0] X[1]) 1.0)"))
    assert list(where.terms) == [(3,), (0,), (0, 4, 4)]


def test_bounds_follow_from_linear_constraints() -> None:
    box = "(assert (>= X[0] 0.0))(assert (<= X[0] 1.0))(assert (== X[1] 0.5))"
    close = ["(<= (- U[0] X[0]) 0.25)", "(<= (- X[0] U[0]) 0.25)", "(<= (* 2.0 U[1]) (+ U[0] X[1]))", "(>= U[1] -1.0)"]
    query = read(*close, "(>= Y[0] V[0])", box=box)
    meant = meaning(query, layout(query))
    (case,) = meant.specification.cases
    assert not meant.missing
    assert case.inputs.exact_lower == (0, Fraction(1, 2), Fraction(-1, 4), -1)
    assert case.inputs.exact_upper == (1, Fraction(1, 2), Fraction(5, 4), Fraction(7, 8))


def test_missing_bounds_are_named() -> None:
    query = read("(>= Y[0] 0.0)", "(or (<= U[0] 1.0) (<= U[1] 1.0))", box=BOX.split("(assert (>= U[0]")[0])
    assert meaning(query, layout(query)).missing == (
        "U[0] has no lower bound",
        "U[0] has no upper bound",
        "U[1] has no lower bound",
        "U[1] has no upper bound",
    )


EMPTY = {
    "(>= X[1] 2.0)": r"empty region: X\[1\] must be at least 2.0 and at most 1.0 \(line 4\)",
    "(and (== X[0] U[0]) (>= (- X[0] U[0]) 0.5))": r"empty region: .* cancel out is false \(line 4\)",
    "(>= (+ U[0] U[1]) 2.5)": r"empty region: no point of the box .* inputs \(line 4\)",
    "(or (>= U[1] 2.0) (<= U[0] -2.0))": r"empty region: U\[1\]",
}


@pytest.mark.parametrize("text", EMPTY)
def test_an_empty_region_is_one(text: str) -> None:
    query = read(text, "(>= Y[0] 0.0)")
    with pytest.raises(EmptyRegion, match=EMPTY[text]):
        meaning(query, layout(query))


def test_watched_outputs_must_behave() -> None:
    query = read("(>= Y[0] Y[1])")
    where = layout(query)
    watched = Watched(ranged=1, apart=1, limit=Fraction(8), gap=Fraction(1, 4))
    (case,) = watching(meaning(query, where), 2, watched).specification.cases
    assert [(c.matrix, c.bound) for c in case.clauses] == [
        (((1, -1, 0, 0),), (0,)),
        (((0, 0, 1, 0),), (8,)),
        (((0, 0, -1, 0),), (8,)),
        (((0, 0, 0, 1), (0, 0, 0, -1)), (Fraction(-1, 4), Fraction(-1, 4))),
    ]
