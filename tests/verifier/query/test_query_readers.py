"""A query means what its text says: numbers exact, relations strict or not as written, both versions alike."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.query.query import Query, Relation, Role, atoms, strict
from provenn.verifier.query.reading import read_query

HEAD = """(vnnlib-version <2.0>)
(declare-network N (declare-input X real [2,2]) (declare-output Y real [1,2]))
"""
DECLARED = "".join(f"(declare-const X_{i} Real)" for i in range(4)) + "".join(
    f"(declare-const Y_{i} Real)" for i in range(2)
)

GRID = [Fraction(k, 2) for k in (-1, 0, 1, 2)]


def old(text: str) -> str:
    """The same assertion in VNN-LIB 1.0."""
    text = re.sub(r"X\[(\d),(\d)\]", lambda m: f"X_{2 * int(m[1]) + int(m[2])}", text)
    return re.sub(r"Y\[0,(\d)\]", r"Y_\1", text).replace("(==", "(=")


element = st.sampled_from(["X[0,1]", "X[1,0]", "Y[0,0]", "Y[0,1]"])
number = st.sampled_from(["0.5", "-1.0", "2.0", "0.0"])
term = st.recursive(
    element | number,
    lambda inner: (
        st.tuples(st.sampled_from("+-*"), st.lists(inner, min_size=2, max_size=3)).map(
            lambda p: f"({p[0]} {' '.join(p[1])})"
        )
        | inner.map(lambda p: f"(- {p})")
    ),
    max_leaves=5,
)
atom = st.tuples(st.sampled_from(["<=", "<", ">=", ">", "=="]), term, term, element).map(
    lambda p: f"({p[0]} (+ {p[1]} {p[3]}) {p[2]})"
)
formula = st.recursive(
    atom,
    lambda inner: st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
        lambda p: f"({p[0]} {' '.join(p[1])})"
    ),
    max_leaves=4,
)


def said(text: str, values: dict[str, Fraction]) -> bool | Fraction:
    """What the text says, worked out from its parentheses alone."""
    tokens = re.findall(r"[()]|[^\s()]+", text)

    def walk() -> bool | Fraction:
        token = tokens.pop(0)
        if token != "(":
            return values[token] if token in values else Fraction(token)
        name, parts = tokens.pop(0), []
        while tokens[0] != ")":
            parts.append(walk())
        tokens.pop(0)
        return applied(name, parts)

    return walk()


def applied(name: str, parts: list[bool | Fraction]) -> bool | Fraction:
    first, *rest = parts
    if name in ("and", "or"):
        return all(parts) if name == "and" else any(parts)
    if name == "-":
        return -first if not rest else first - sum(rest)
    if name == "+":
        return sum(parts, Fraction(0))
    if name == "*":
        return Fraction(1) * first if not rest else first * applied("*", rest)
    return {"<=": first <= rest[0], "<": first < rest[0], ">=": first >= rest[0], ">": first > rest[0]}.get(
        name, first == rest[0]
    )


@settings(max_examples=150, deadline=None)
@given(formula, st.lists(st.sampled_from(GRID), min_size=6, max_size=6))
def test_both_versions_say_what_the_text_says(text: str, numbers: list[Fraction]) -> None:
    names = ["X[0,0]", "X[0,1]", "X[1,0]", "X[1,1]", "Y[0,0]", "Y[0,1]"]
    expected = said(text, dict(zip(names, numbers, strict=True)))
    new = read_query((HEAD + f"(assert {text})").encode())
    assert new.holds(numbers.__getitem__) == expected
    assert read_query((DECLARED + f"(assert {old(text)})").encode()).holds(numbers.__getitem__) == expected


def test_inequality_is_read() -> None:
    query = read_query((HEAD + "(assert (!= Y[0,0] 0.5))").encode())
    assert [a.relation for a in atoms(query.asserted)] == [Relation.DIFFERENT]
    assert strict(query.asserted)
    assert [query.holds(lambda _, v=v: v) for v in GRID] == [True, True, False, True]


def declared(text: str) -> Query:
    return read_query(("(vnnlib-version <2.0>)" + text).encode())


def test_declarations_keep_types_shapes_and_relations() -> None:
    query = declared("""
        (declare-network f (declare-input A float32 [2,3]) (declare-hidden H float64 [] "inner/x")
            (declare-output B int64 [4]))
        (declare-network g (equal-to f) (declare-input C float32 [2,3]) (declare-output D int64 [4]))
        (assert (<= A[1,2] 0.5))(assert (>= D[3] 7))""")
    shown = [(t.name, t.role, t.dtype, t.shape, t.start, t.count, t.node) for t in query.tensors]
    assert shown == [
        ("A", Role.INPUT, "float32", (2, 3), 0, 6, None),
        ("H", Role.HIDDEN, "float64", (), 6, 1, "inner/x"),
        ("B", Role.OUTPUT, "int64", (4,), 7, 4, None),
        ("C", Role.INPUT, "float32", (2, 3), 11, 6, None),
        ("D", Role.OUTPUT, "int64", (4,), 17, 4, None),
    ]
    assert [n.equal_to for n in query.networks] == [None, "f"]
    monomials = [list(a.polynomial.terms) for a in atoms(query.asserted)]
    assert [(5,) in m or (20,) in m for m in monomials] == [True, True]


BAD = {
    b"": "the query is empty",
    b"hello": "line 1: not VNN-LIB",
    b"(vnnlib-version <3.1>)": "line 1: VNN-LIB 3.1 is declared; versions 1.0 and 2.x are read",
    (HEAD + "(assert (<= X[0,2] 1.0))").encode(): "line 3: VNN-LIB 2.0: Index out of bounds",
    (HEAD + "\n(assert (<= Z 1.0))").encode(): "line 4: VNN-LIB 2.0: Undeclared variable",
    (DECLARED + "\n(assert (<= X_9 1.0))").encode(): "line 2: 'X_9' is not declared",
    (DECLARED + "\n\n(assert (<= X_0))").encode(): "line 3: '<=' is not read in this form",
    (DECLARED + "\n(check-sat)").encode(): "line 2: command 'check-sat' is not read in this form",
    b"(declare-const X_0 Real)": "Y_0 is not declared",
    HEAD.replace("real [2,2]", "complex64 [2,2]").encode(): "line 2: tensor 'X' is of element type 'complex64'",
}


@pytest.mark.parametrize("text", BAD, ids=range(len(BAD)))
def test_bad_text_is_refused_with_its_line(text: bytes) -> None:
    with pytest.raises(InvalidSpecification, match="^" + re.escape(BAD[text])):
        read_query(text + b"(assert (>= Y[0,0] 0.0))" * (b"declare-network" in text))


def test_a_polynomial_stays_within_limits() -> None:
    with pytest.raises(ResourceLimit, match="degree of a polynomial"):
        read_query((HEAD + f"(assert (<= (* {'X[0,0] ' * 17}) 1.0))").encode())
    assert read_query((HEAD + f"(assert (<= (* {'X[0,0] ' * 16}) 1.0))").encode()).holds(lambda _: Fraction(1))


def test_products_are_multiplied_out() -> None:
    query = read_query((HEAD + "(assert (<= (* (+ X[0,0] 1.0) (- X[0,0] 1.0)) 0.0))").encode())
    (found,) = atoms(query.asserted)
    assert found.polynomial.terms == {(0, 0): -1, (): 1}
    assert [query.holds(lambda _, v=v: v) for v in (-2, -1, 0, 1, 2)] == [False, True, True, True, False]
