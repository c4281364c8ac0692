"""VNN-LIB 1.0: the cases mean what the text says, decided point by point with exact numbers."""

from __future__ import annotations

import gzip
import random
import re
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.spec import Case, Constraint, Specification
from provenn.verifier.spec_reader import read_specification
from provenn.verifier.vnnlib import parse_vnnlib
from provenn.verifier.vnnlib_logic import DEPTH

HEAD = "(declare-const X_0 Real)\n(declare-const X_1 Real)\n(declare-const Y_0 Real)\n(declare-const Y_1 Real)\n"
BOX = "(assert (>= X_0 -2))\n(assert (<= X_0 2.0))\n(assert (and (>= X_1 -2) (<= X_1 2)))\n"
GRID = [Fraction(v, 2) for v in range(-4, 5, 2)]


def read(text: str) -> Specification:
    return parse_vnnlib(text.encode())


def unsafe(cases: tuple[Case, ...], x: tuple[Fraction, ...], y: tuple[Fraction, ...]) -> bool:
    def inside(case: Case) -> bool:
        ends = zip(case.inputs.exact_lower, x, case.inputs.exact_upper, strict=True)
        return all(low <= v <= high for low, v, high in ends) and all(c.holds(x) for c in case.inputs.constraints)

    return any(inside(case) and any(clause.holds(y) for clause in case.clauses) for case in cases)


def evaluate(tree: Any, values: dict[str, Fraction]) -> Any:
    """Straight from the definition, with < and > closed."""
    if isinstance(tree, str):
        return values[tree] if tree in values else Fraction(tree)
    operands = [evaluate(part, values) for part in tree[1:]]
    match tree[0]:
        case "and":
            return all(operands)
        case "or":
            return any(operands)
        case "<=" | "<":
            return operands[0] <= operands[1]
        case ">=" | ">":
            return operands[0] >= operands[1]
        case "+":
            return sum(operands)
        case "*":
            return operands[0] * operands[1]
        case "-":
            return -operands[0] if len(operands) == 1 else operands[0] - sum(operands[1:])
    raise AssertionError(tree)


def rendered(tree: Any, rng: random.Random) -> str:
    space = rng.choice([" ", "\n", "  \t", " ; a comment (\n"])
    return tree if isinstance(tree, str) else "(" + space.join(rendered(part, rng) for part in tree) + space + ")"


numbers = st.sampled_from(["0", "1", "-1", "0.5", "-1.5", "2e0", "15e-1", ".5", "+1."])


def terms(names: list[str]) -> st.SearchStrategy[Any]:
    leaf = st.sampled_from(names)
    scaled = st.tuples(st.just("*"), numbers, leaf) | st.tuples(st.just("*"), leaf, numbers)
    single = leaf | scaled | st.tuples(st.just("-"), leaf)
    sums = st.tuples(st.sampled_from("+-"), single, numbers) | st.tuples(st.just("-"), numbers, single, numbers)
    return single | sums


def atoms() -> st.SearchStrategy[Any]:
    compare = st.sampled_from(["<=", ">=", "<", ">"])
    inputs = st.one_of(*(st.tuples(compare, terms([name]), numbers) for name in ("X_0", "X_1")))
    flipped = st.one_of(*(st.tuples(compare, numbers, terms([name])) for name in ("X_0", "X_1")))
    outputs = st.tuples(compare, terms(["Y_0", "Y_1"]), terms(["Y_0", "Y_1"]) | numbers)
    wide = st.tuples(compare, st.tuples(st.just("+"), terms(["Y_0"]), terms(["Y_1"]), numbers), numbers)
    across = st.tuples(compare, st.tuples(st.sampled_from("+-"), terms(["X_0"]), terms(["X_1"])), numbers)
    return inputs | flipped | outputs | wide | across


formulas = st.recursive(
    atoms(),
    lambda inner: st.lists(inner, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from(["and", "or"]).map(lambda op: (op, *parts))
    ),
    max_leaves=8,
)


@settings(max_examples=80, deadline=None)
@given(st.lists(formulas, min_size=1, max_size=3), st.integers(0, 2**32))
def test_the_cases_hold_exactly_where_the_text_does(asserted: list[Any], seed: int) -> None:
    text = HEAD + BOX + "".join(f"(assert {rendered(f, random.Random(seed))})" for f in asserted)
    try:
        cases = read(text).cases
    except InvalidSpecification as error:
        assert "cancel" in str(error)
        return
    for point in product(GRID, repeat=4):
        values = dict(zip(("X_0", "X_1", "Y_0", "Y_1"), point, strict=True))
        assert unsafe(cases, point[:2], point[2:]) == all(evaluate(f, values) for f in asserted), point


@pytest.mark.parametrize("digits", ["0.1", "0.100000000000000005551115123125782702", "1e-30", "3.991125645861615"])
def test_decimals_are_exact(digits: str) -> None:
    clause = read(HEAD + BOX + f"(assert (>= Y_0 {digits}))").cases[0].clauses[0]
    assert clause.bound == (Fraction(digits),)


def test_distinct_boxes_in_first_seen_order_each_with_its_clauses_in_order() -> None:
    boxes = ["(<= X_0 1)", "(<= X_0 0)", "(<= X_0 1.0)", "(<= X_0 9)"]
    parts = " ".join(f"(and {box} (>= Y_0 {i}))" for i, box in enumerate(boxes))
    cases = read(HEAD + BOX + f"(assert (or {parts}))\n(assert (<= Y_1 7))").cases
    assert [case.inputs.exact_upper[0] for case in cases] == [1, 0, 2]
    assert [[clause.bound for clause in case.clauses] for case in cases] == [[(-7, 0), (-7, 2)], [(-7, 1)], [(-7, 3)]]
    assert cases[0].clauses[0].matrix == ((0, -1), (1, 0))


def test_a_disjunct_without_outputs_makes_every_output_unsafe() -> None:
    (case,) = read(HEAD + BOX + "(assert (or (>= Y_0 1) (<= X_0 5)))").cases
    assert [len(clause.matrix) for clause in case.clauses] == [1, 0]
    assert case.clauses[1].holds((Fraction(0), Fraction(0)))


def test_constraints_over_several_inputs() -> None:
    """In one set only with the disjuncts they stand in; an impossible one is dropped with its disjunct."""
    either = "(assert (or (and (<= (+ X_0 (* 2 X_1)) 1) (>= Y_0 0)) (>= Y_1 0) (>= (+ X_0 X_1) 5)))"
    first, second = read(HEAD + BOX + either + "(assert (<= X_0 (- X_1 0.5)))").cases
    common = Constraint((Fraction(1), Fraction(-1)), Fraction(-1, 2))
    assert first.inputs.constraints == (common, Constraint((Fraction(1), Fraction(2)), Fraction(1)))
    assert second.inputs.constraints == (common,)
    assert [case.clauses[0].matrix for case in (first, second)] == [((1, 0),), ((0, 1),)]


def test_an_empty_disjunct_among_others_is_dropped() -> None:
    found = read(HEAD + BOX + "(assert (or (and (<= X_0 -3) (>= Y_0 1))\n (>= Y_0 2)))")
    (case,) = found.cases
    assert [clause.bound for clause in case.clauses] == [(2,)]
    reason = "X_0 must be at least -2.0 and at most -3.0 (line 5, 8)"
    assert found.warnings == (f"1 of 2 disjuncts allow no input and hold vacuously: {reason}",)
    cut = "(assert (or (and (<= (+ X_0 X_1) -5) (>= Y_0 1)) (>= Y_0 2) (>= X_0 9)))"
    assert read(HEAD + BOX + cut).warnings[0].startswith("2 of 3 disjuncts allow no input and hold vacuously: X_0")
    assert read(HEAD + BOX + cut.replace(" (>= X_0 9)", "")).warnings == (
        f"1 of 2 disjuncts allow no input and hold vacuously: {IMPOSSIBLE} (line 8)",
    )


IMPOSSIBLE = "no point of the box satisfies the constraints over several inputs"
EMPTY = {
    "(assert (<= (+ X_0 X_1)\n -5))": f"{IMPOSSIBLE} (line 8)",
    "(assert (and (<= X_0 X_1)\n (>= (- X_0 X_1) 0.5)))": f"{IMPOSSIBLE} (line 8, 9)",
    "(assert (>= X_0\n 3))": "X_0 must be at least 3.0 and at most 2.0 (line 6, 8)",
    "(assert (>= (* 2 X_0)\n 6))": "X_0 must be at least 3.0 and at most 2.0 (line 6, 8)",
    "\n(assert (or (>= X_1 3)\n (>= X_0 3)))": "X_1 must be at least 3.0 and at most 2.0 (line 7, 9)",
    "(declare-const X_2 Real)(assert (>= X_0 3))": "X_0 must be at least 3.0 and at most 2.0 (line 6, 8)",
}


@pytest.mark.parametrize("asserted", EMPTY)
def test_a_text_that_allows_no_input_has_no_cases_and_says_where(asserted: str) -> None:
    """Also where an input has no bound at all."""
    text = HEAD + BOX + asserted + "(assert (>= Y_0 0))\n"
    found = read(text)
    assert (found.cases, found.form, found.text) == ((), "vnnlib", text.encode())
    assert found.warnings == (f"empty region: {EMPTY[asserted]}",)
    assert (found.input_size, found.output_size) == declared(text)
    with pytest.raises(InvalidSpecification, match="the network has 7 inputs"):
        found.require_fits(7, 2)


def test_the_text_is_kept() -> None:
    text = "; a comment\r\n" + HEAD + BOX + "(assert (>= Y_0 1)) ; last"
    assert (read(text).text, read(text).form) == (text.encode(), "vnnlib")


BAD = {
    "(assert (<= X_0 Y_0))": "line 9: a constraint over inputs and outputs together is not read here; provenn-vnnlib "
    "decides such queries",
    "(assert (<= Y_0 Y_0))": "line 9: a constraint without variables",
    "(assert (<= 0 1))": "line 9: a constraint without variables",
    "(assert (<= (* Y_0 Y_1) 1))": "line 9: a product of variables is not linear",
    "(assert (<= Y_2 1))": "line 9: 'Y_2' is not declared",
    "\n(assert (or (<= Y_0 1)\n (<= Y_1 1.2.3)))": "line 11: '1.2.3' is not a number",
    "(assert (<= Y_0 nan))": "line 9: 'nan' is not declared",
    "(assert (<= Y_0 1/3))": "line 9: '1/3' is not a number",
    "(assert (<= Y_0 1e99999999))": "line 9: '1e99999999' has an exponent beyond 350",
    "(assert (<= Y_0 1e302))": "line 9: a number is of the order of",
    "(assert (<= (* 1e-300 X_0) 1e300))": "line 9: a number is of the order of",
    f"(assert (<= Y_0 {'1' * 2000}))": "line 9: a number of 2000 characters",
    "(assert (= Y_0 1))": "line 9: '=' is not read here; provenn-vnnlib decides such queries",
    "(assert (not (<= Y_0 1)))": "line 9: 'not' is not read in this form",
    "(assert (<= Y_0 (/ 1 3)))": "line 9: '/' is not read in this form",
    "(assert (<= Y_0 1 2))": "line 9: '<=' is not read in this form",
    "(assert (<= Y_0 (+ 1)))": "line 9: '+' is not read in this form",
    "(assert (and))": "line 9: 'and' is not read in this form",
    "(assert ())": "line 9: a formula was expected",
    "(assert Y_0)": "line 9: command 'assert' is not read",
    "(assert (and Y_0))": "line 9: 'Y_0' is not a formula",
    "(assert (<= () 1))": "line 9: a linear term was expected",
    "(check-sat)": "line 9: command 'check-sat' is not read",
    "()": "line 9: a command was expected",
    "(assert (<= Y_0 1)": "line 9: a parenthesis is not closed",
    ")": "line 9: a parenthesis is closed",
    "1": "line 9: '1' stands outside",
    "(assert (<= Y_0 é))": "line 9: a byte is not ASCII",
    "(declare-const X_1 Real)": "line 9: X_1 is declared twice",
    "(declare-const X_01 Real)": "line 9: variable 'X_01' is neither",
    "(declare-const Z_0 Real)": "line 9: variable 'Z_0' is neither",
    "(declare-const X_2 Int)": "line 9: constants are of sort Real, not 'Int'",
    "(declare-const X_3 Real)": "line 9: X_2 is not declared, but X_3 is",
    "(declare-const X_2 Real)": "line 9: X_2 has no lower bound",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_text_is_refused_with_its_line(text: str) -> None:
    head = HEAD + BOX + "(assert (>= Y_0 0))\n"
    with pytest.raises(InvalidSpecification, match="^" + re.escape(BAD[text])):
        read(head + text)


@pytest.mark.parametrize("text", ["", "; nothing", "(declare-const X_0 Real)(assert (<= X_0 1))"])
def test_undeclared_variables(text: str) -> None:
    with pytest.raises(InvalidSpecification, match="_0 is not declared"):
        read(text)


def test_nesting_is_limited_before_it_is_walked() -> None:
    def nested(depth: int) -> str:
        return HEAD + BOX + "(assert " + "(and " * depth + "(<= Y_0 1)" + ")" * depth + ")"

    assert len(read(nested(DEPTH - 2)).cases) == 1
    for depth in (DEPTH, 100_000):
        with pytest.raises(ResourceLimit, match="line 8: the nesting depth"):
            read(nested(depth))


def test_multiplying_out_is_limited() -> None:
    two = "(assert (or (<= Y_0 1) (<= Y_1 1)))"
    assert len(read(HEAD + BOX + two * 5).cases[0].clauses) == 32
    with pytest.raises(ResourceLimit, match="the number of disjuncts"):
        read(HEAD + BOX + two * 17)
    many = "(<= Y_0 1) " * 1000
    with pytest.raises(ResourceLimit, match="disjunctive normal form"):
        read(HEAD + BOX + f"(assert (or {many}))" + f"(assert (or (and {many} {many} {many}) (and {many} {many})))")


def declared(text: str) -> tuple[int, int]:
    return len(re.findall(r"declare-const X_", text)), len(re.findall(r"declare-const Y_", text))


def alternatives(text: str) -> int:
    """The product over the assertions of how many alternatives each lists, counted without parsing."""
    count = 1
    for block in re.sub(r";.*", "", text).split("(assert")[1:]:
        if re.match(r"\s*\(or\b", block):
            count *= max(1, len(re.findall(r"\(and\b", block)))
    return count


@pytest.mark.shared
@pytest.mark.parametrize("family", ["acasxu", "mnist_fc", "oval21", "rl_benchmarks", "sri_resnet_a"])
def test_competition_files_are_read(shared: Path, family: str) -> None:
    paths = sorted((shared / "vnncomp2022" / family / "vnnlib").iterdir())
    assert paths
    for path in paths[:: 1 + len(paths) // 25]:
        text = gzip.decompress(path.read_bytes()).decode()
        specification = read_specification(path.read_bytes())
        assert (specification.input_size, specification.output_size) == declared(text), path.name
        assert sum(len(case.clauses) for case in specification.cases) == alternatives(text), path.name


SAMPLE = (HEAD + BOX + "(assert (or (and (<= X_0 1) (>= Y_0 (+ Y_1 0.5))) (< Y_1 (* 2 Y_0))))").encode()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE)), st.integers(0, 9), st.binary(max_size=4)), max_size=4))
def test_damaged_text_raises_nothing_but_our_errors(edits: list[tuple[int, int, bytes]]) -> None:
    data = SAMPLE
    for at, cut, new in edits:
        data = data[:at] + new + data[at + cut :]
    try:
        assert parse_vnnlib(data).cases
    except ProvennError as error:
        assert str(error)
