"""The network of a query computes, term by term, what its files compute each by itself."""

from __future__ import annotations

from math import prod

import numpy as np
import pytest
from query_kit import DOUBLE, LAYER, PAIR, SIZES, network, node, run

from provenn.models.query.binding import bind
from provenn.models.query.joining import INPUT, joined, serialised
from provenn.models.query.replaying import Replay
from provenn.verifier.errors import InvalidModel
from provenn.verifier.query.meaning import layout
from provenn.verifier.query.reading import read_query

VERSION = "(vnnlib-version <2.0>)"
ONE = (
    VERSION
    + """(declare-network f (declare-input X float32 [1,2])
    (declare-hidden Z float32 [1,3] "z") (declare-hidden A float32 [1,3] "a") (declare-output Y float32 [1,2]))"""
)
TWO = (
    ONE
    + """(declare-network g (equal-to f) (declare-input U float32 [1,2]) (declare-hidden B float32 [1,3] "a")
    (declare-output V float32 [1,2]))"""
)
MANY = (
    VERSION
    + """(declare-network f (declare-input P float32 [2,2]) (declare-input Q float32 [2,1])
    (declare-output F float32 [2,2]) (declare-output S float32 [2,2]))"""
)
OTHER = MANY + """(declare-network g (declare-input X float32 [1,2]) (declare-output Y float32 [1,2]))"""
WIDE = VERSION + "(declare-network f (declare-input X float64 [3]) (declare-output Y float64 [3]))"
WHOLE = (
    VERSION
    + """(declare-network f (declare-input X float32 [3]) (declare-output N int64 [1])
    (declare-output M int64 [3]))"""
)
OLD = "".join(f"(declare-const X_{i} Real)" for i in range(6)) + "".join(
    f"(declare-const Y_{i} Real)" for i in range(8)
)

QUERIES = {
    "one output": (ONE, {"f": LAYER}, "(>= Y[0,1] 0.0)"),
    "hidden": (ONE, {"f": LAYER}, "(and (>= Z[0,2] 0.0) (<= A[0,0] Y[0,1]) (>= A[0,1] 1.0))"),
    "mixed": (ONE, {"f": LAYER}, "(<= Y[0,1] (+ X[0,0] (* 2.0 Z[0,1])))"),
    "products": (ONE, {"f": LAYER}, "(<= (* Y[0,1] Y[0,1] X[0,1]) (+ (* X[0,0] Z[0,0]) (* X[0,1] X[0,1] X[0,1])))"),
    "equal networks": (TWO, {"f": LAYER}, "(and (== X[0,0] U[0,1]) (>= Y[0,0] V[0,1]) (<= B[0,2] A[0,2]))"),
    "several inputs": (MANY, {"f": PAIR}, "(or (>= F[1,0] S[0,1]) (<= P[1,1] S[1,1]) (>= Q[0,0] F[0,0]))"),
    "unlike networks": (OTHER, {"f": PAIR, "g": LAYER}, "(and (>= Y[0,0] S[1,0]) (== Q[1,0] X[0,0]))"),
    "float64": (WIDE, {"f": DOUBLE}, "(>= (* Y[0] X[1]) Y[2])"),
    "inputs alone": (ONE, {"f": LAYER}, "(>= (+ X[0,0] X[0,1]) 0.5)"),
    "a constant": (WHOLE, {"f": SIZES}, "(>= N[0] 4)"),
    "whole numbers": (WHOLE, {"f": SIZES}, "(>= (+ N[0] M[2]) M[0])"),
    "VNN-LIB 1.0": (OLD, {"N": PAIR}, "(<= Y_5 (* X_4 Y_0))"),
}


@pytest.mark.parametrize("name", QUERIES)
def test_terms_are_what_the_files_compute(name: str) -> None:
    text, files, asserted = QUERIES[name]
    query = read_query(f"{text}(assert {asserted})".encode())
    implementations, where = bind(query, files), layout(query)
    content = serialised(joined(implementations, where))
    replay = Replay(implementations, where)
    generator = np.random.default_rng(3)
    for _ in range(20):
        point = generator.uniform(-3, 3, where.free).astype(np.float32)
        execution = replay.run(point)
        (found,) = run(content, {INPUT: point})
        assert found.shape == (len(where.terms),)
        for monomial, place in where.terms.items():
            expected = float(prod(execution.value(i) for i in monomial))
            assert found[place] == pytest.approx(expected, rel=1e-6, abs=1e-30)


def test_a_replay_runs_every_file_by_itself_on_its_own_numbers() -> None:
    query = read_query((OTHER + "(assert (== Q[1,0] X[0,0]))").encode())
    implementations, where = bind(query, {"f": PAIR, "g": LAYER}), layout(query)
    point = np.arange(where.free, dtype=np.float32) / 3
    execution = Replay(implementations, where).run(point)
    p, q, x = point[:4].reshape(2, 2), point[4:6].reshape(2, 1), point[[5, 6]].reshape(1, 2)
    expected = [p, q, *run(PAIR, {"p": p, "q": q}), x, *run(LAYER, {"x": x})]
    for tensor, values in zip(query.tensors, expected, strict=True):
        assert execution.values(tensor.elements) == values.ravel().tolist()


def test_float64_inputs_are_not_rounded_on_the_way() -> None:
    query = read_query((WIDE + "(assert (>= Y[1] 0.0))").encode())
    execution = Replay(bind(query, {"f": DOUBLE}), layout(query)).run(np.ones(3, np.float32))
    assert float(execution.value(4)) == 1e-20


def test_what_is_not_finite_has_no_value() -> None:
    model = network([node("Log", "x", "y")], [("x", "f", [1])], [("y", "f", [1])])
    text = VERSION + "(declare-network f (declare-input X float32 [1]) (declare-output Y float32 [1]))"
    query = read_query((text + "(assert (>= Y[0] 0.0))").encode())
    execution = Replay(bind(query, {"f": model}), layout(query)).run(np.array([-1], np.float32))
    with pytest.raises(ArithmeticError):
        execution.value(1)


def test_models_of_different_operator_sets_are_not_joined() -> None:
    other = network([node("Relu", "x", "y")], [("x", "f", [1, 2])], [("y", "f", [1, 2])], opset=13)
    query = read_query((OTHER + "(assert (>= Y[0,0] F[0,0]))").encode())
    with pytest.raises(InvalidModel, match="operator sets 17 and 13 in one query"):
        joined(bind(query, {"f": PAIR, "g": other}), layout(query))
