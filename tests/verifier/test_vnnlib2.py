"""VNN-LIB 2.0 means what the same property means in VNN-LIB 1.0; what is beyond the subset is named."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.spec_json import parse_json
from provenn.verifier.vnnlib import parse_vnnlib
from provenn.verifier.vnnlib2 import parse_vnnlib2

HEAD = """(vnnlib-version <2.0>)
(declare-network N (declare-input X {type} [2,2]) (declare-output Y {type} [1,3]))
"""
BOX = "".join(f"(assert (>= X[{i},{j}] -0.1))(assert (<= X[{i},{j}] 1.0))\n" for i in range(2) for j in range(2))
DECLARED = "".join(f"(declare-const X_{i} Real)" for i in range(4)) + "".join(
    f"(declare-const Y_{i} Real)" for i in range(3)
)


def old(text: str) -> str:
    """The same assertions in VNN-LIB 1.0."""
    text = re.sub(r"X\[(\d),(\d)\]", lambda m: f"X_{2 * int(m[1]) + int(m[2])}", text)
    return DECLARED + re.sub(r"Y\[0,(\d)\]", r"Y_\1", text)


def shape(cases: Any) -> list[Any]:
    return [(c.inputs.exact_lower, c.inputs.exact_upper, c.inputs.constraints, c.clauses) for c in cases]


constant = st.decimals(-2, 2, places=2).map(lambda v: f"{v:.2f}")
output = st.sampled_from(["Y[0,0]", "Y[0,1]", "Y[0,2]"])
term = (
    output
    | st.tuples(constant, output).map(lambda p: f"(* {p[0]} {p[1]})")
    | st.tuples(output, constant).map(lambda p: f"(- {p[0]} {p[1]})")
    | st.tuples(output, output, constant).map(lambda p: f"(+ {p[0]} (- {p[1]}) {p[2]})")
)
compare = st.sampled_from(["<=", "<", ">=", ">"])
atom = st.tuples(compare, term, constant).map(lambda p: f"({p[0]} {p[1]} {p[2]})") | st.tuples(
    compare, st.sampled_from(["X[0,1]", "X[1,0]"]), constant
).map(lambda p: f"({p[0]} {p[1]} {p[2]})")
atom |= st.tuples(compare, constant).map(lambda p: f"({p[0]} (- X[0,1] (* 2.0 X[1,0])) {p[1]})")
formula = st.recursive(
    atom,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda p: f"({p[0]} {' '.join(p[1])})"
    ),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(formula, min_size=1, max_size=3), st.sampled_from(["real", "float32"]))
def test_it_means_the_same_as_the_old_form(asserted: list[str], kind: str) -> None:
    body = BOX + "".join(f"(assert {part})\n" for part in asserted)
    texts = old(body).encode(), (HEAD.format(type=kind) + body).encode()
    try:
        expected = shape(parse_vnnlib(texts[0]).cases)
    except InvalidSpecification:
        with pytest.raises(InvalidSpecification):
            parse_vnnlib2(texts[1])
        return
    found = parse_vnnlib2(texts[1])
    assert shape(found.cases) == expected
    if expected:
        assert shape(parse_json(found.text).cases) == expected
        assert found.form == "json"
    else:
        assert found.warnings


def test_decimals_are_exact() -> None:
    text = HEAD.format(type="float32") + BOX + "(assert (>= Y[0,0] 0.100000000000000005551115123125782702))"
    assert parse_vnnlib2(text.encode()).cases[0].clauses[0].bound == (
        Fraction("0.100000000000000005551115123125782702"),
    )


def test_equality_is_two_inequalities() -> None:
    text = HEAD.format(type="real") + BOX + "(assert (== X[1,1] 0.5))(assert (== Y[0,1] Y[0,2]))"
    (case,) = parse_vnnlib2(text.encode()).cases
    assert case.inputs.exact_lower[3] == case.inputs.exact_upper[3] == Fraction(1, 2)
    assert case.clauses[0].matrix == ((0, 1, -1), (0, -1, 1))


def test_a_scalar_tensor() -> None:
    text = "(vnnlib-version <2.0>)(declare-network N (declare-input X real [])(declare-output Y real []))"
    text += "(assert (>= X 0.0))(assert (<= X 1.0))(assert (>= Y 2.0))"
    (case,) = parse_vnnlib2(text.encode()).cases
    assert (case.inputs.exact_upper, case.clauses[0].matrix) == ((1,), ((1,),))


BAD = {
    "(assert (<= (* X[0,0] X[0,1]) 1.0))": "line 7: a product of variables",
    "(assert (<= X[0,0] Y[0,1]))": "line 7: a constraint over inputs and outputs together is not read here; provenn-v",
    "(assert (!= Y[0,0] 1.0))": r"line 7: \(!= Y \[0, 0\] 1.0\)  is not read",
    "(assert (<= X[0,9] 1.0))": "line 7: VNN-LIB 2.0: Index out of bounds",
    "(assert (<= Z[0,0] 1.0))": "line 7: VNN-LIB 2.0: Undeclared variable",
    "(assert (<= X[0,0.7] 1.0))": r"line 7: '\[0,0.7\]' is not a list of whole numbers",
    "(assert (<= X[0,99999999999999999999999999] 1.0))": "line 7: VNN-LIB 2.0: a whole number beyond 64 bits",
    "(assert (>= X[0,0] 3.0)": "line 7: VNN-LIB 2.0 syntax error",
    '(assert (>= X[0,0] "))': "line 7: an unexpected '\"'",
    "(assert (>= X[0,0] \\))": r"line 7: an unexpected",
    "(assert (>= X[0,0] é))": r"line 7: an unexpected",
    "(assert (>= X[0,0] \0))": r"line 7: an unexpected",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidSpecification, match="^" + BAD[text]):
        parse_vnnlib2((HEAD.format(type="real") + BOX + text).encode())


@pytest.mark.parametrize("text", ["(assert (<= (+ X[0,0] X[0,1]) -5.0))", "(assert (>= X[0,0] 3.0))"])
def test_a_text_that_allows_no_input_has_no_cases_and_says_where(text: str) -> None:
    data = (HEAD.format(type="real") + BOX + text).encode()
    found = parse_vnnlib2(data)
    assert (found.cases, found.text, found.input_size, found.output_size) == ((), data, 4, 3)
    assert re.fullmatch(r"empty region: (X_0 must be|no point of the box) .* \(line (\d, )?7\)", found.warnings[0])


def test_an_empty_disjunct_is_dropped_with_a_warning() -> None:
    some = "(assert (or (and (>= X[0,0] 3.0) (>= Y[0,0] 0.0)) (>= Y[0,0] 1.0)))"
    found = parse_vnnlib2((HEAD.format(type="real") + BOX + some).encode())
    assert [clause.bound for case in found.cases for clause in case.clauses] == [(1,)]
    assert found.warnings[0].startswith("1 of 2 disjuncts allow no input and hold vacuously: X_0 must be at least 3.0")


NETWORKS = {
    "(declare-input X int32 [1])\n(declare-output Y int32 [1])": "line 1: tensor 'X' is not of real or float elements",
    "(declare-input X real [1])\n(declare-input Z real [1])(declare-output Y real [1])": "line 1: network 'N' of 2 in",
    '(declare-input X real [1])\n(declare-hidden H real [1] "h")(declare-output Y real [1])': "line 2: hidden tensor",
    "(declare-input X real [1]) ; declare-network M\n(declare-output Y real [1]))\n(declare-network M (equal-to N)"
    "(declare-input A real [1])(declare-output B real [1])": "line 3: 2 networks are declared: what relates them",
}


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_beyond_the_subset(network: str) -> None:
    text = f"(vnnlib-version <2.0>)(declare-network N {network})"
    one = "1" if "int32" in network else "1.0"
    with pytest.raises(InvalidSpecification, match=f"^{NETWORKS[network]}.* provenn-vnnlib decides such queries$"):
        parse_vnnlib2((text + f"(assert (<= X[0] {one}))").encode())


def test_an_unbounded_input_is_named() -> None:
    with pytest.raises(InvalidSpecification, match=r"^line 2: X_3 has no upper bound"):
        parse_vnnlib2((HEAD.format(type="real") + BOX).replace("(assert (<= X[1,1] 1.0))", "").encode())


def test_another_version() -> None:
    with pytest.raises(InvalidSpecification, match="Incompatible VNNLib version"):
        parse_vnnlib2((HEAD.format(type="real") + BOX).replace("<2.0>", "<3.0>").encode())


@pytest.mark.parametrize("hidden", ["", '"a\\" b" ', "; "])
def test_depth_is_counted_before_the_parser_that_crashes_on_it(hidden: str) -> None:
    depth = 100_000
    body = f"(assert {hidden}\n" + "(and " * depth + "(<= Y[0,0] 1.0)" + ")" * depth + ")"
    with pytest.raises((ResourceLimit, InvalidSpecification), match=r"nesting depth|unexpected"):
        parse_vnnlib2((HEAD.format(type="real") + BOX + body).encode())


def test_sizes_are_limited() -> None:
    with pytest.raises(ResourceLimit, match="the size of tensor 'X'"):
        parse_vnnlib2((HEAD.format(type="real") + BOX).replace("[2,2]", "[99999,99999]").encode())
    with pytest.raises(ResourceLimit, match="line 7: the length of a number"):
        parse_vnnlib2((HEAD.format(type="real") + BOX + f"(assert (<= Y[0,0] {'1' * 5000}.0))").encode())


SAMPLE = (
    HEAD.format(type="real") + BOX + "(assert (or (<= Y[0,0] 1.5) (and (>= Y[0,1] Y[0,2]) (<= X[0,0] 0.5))))"
).encode()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.integers(0, 9), st.binary(max_size=4)), min_size=1, max_size=3)
)
def test_damaged_text_raises_nothing_but_our_errors(edits: list[tuple[int, int, bytes]]) -> None:
    data = SAMPLE
    for at, cut, new in edits:
        data = data[:at] + new + data[at + cut :]
    try:
        found = parse_vnnlib2(data)
        assert found.cases or found.warnings
    except ProvennError as error:
        assert str(error)
