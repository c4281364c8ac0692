"""What is called unsat no point satisfies; what is called sat its assignment does, exactly and strictly."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from provenn.api.vnnlib.deadline import Deadline
from provenn.api.vnnlib.deciding import TOUCHING, Decision, decide
from provenn.api.vnnlib.proving import ROWS
from provenn.api.vnnlib.trying import holds
from provenn.models.query.binding import bind
from provenn.models.query.replaying import Replay
from provenn.verifier.check.rows import Semantics
from provenn.verifier.errors import EmptyRegion
from provenn.verifier.query.meaning import layout, meaning
from provenn.verifier.query.query import Query
from provenn.verifier.query.reading import read_query


def network(nodes: list[onnx.NodeProto], size: int, stored: dict[str, object]) -> bytes:
    """An ONNX file from x [size] to y [size]."""
    constants = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in stored.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [size]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    return bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    )


RELU = network(
    [
        helper.make_node("MatMul", ["w", "x"], ["z"]),
        helper.make_node("Add", ["z", "b"], ["h"]),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["v", "a"], ["y"]),
    ],
    2,
    {"w": [[1, -1], [0.5, 2], [-1, 0.25]], "b": [0, 0.5, -0.25], "v": [[1, -1, 0.5], [0, 1, 1]]},
)
SAME = network([helper.make_node("Relu", ["x"], ["y"])], 1, {})
"""y = x where x >= 0."""
JUMP = network(
    [helper.make_node("Greater", ["x", "half"], ["c"]), helper.make_node("Where", ["c", "x", "ten"], ["y"])],
    1,
    {"half": [0.5], "ten": [10.0]},
)

PAIRED = """(vnnlib-version <2.0>)
(declare-network f (declare-input X float32 [2]) (declare-hidden H float32 [3] "h") (declare-output Y float32 [2]))
(declare-network g (equal-to f) (declare-input U float32 [2]) (declare-output V float32 [2]))
"""
LONE = "(vnnlib-version <2.0>)(declare-network f (declare-input X float32 [1]) (declare-output Y float32 [1]))"
INPUTS, COMPUTED = ["X[0]", "X[1]", "U[0]", "U[1]"], ["H[0]", "H[2]", "Y[0]", "Y[1]", "V[0]", "V[1]"]
BOX = "".join(f"(assert (>= {x} -1.0))(assert (<= {x} 1.0))" for x in INPUTS)

single = st.sampled_from(INPUTS + COMPUTED)
number = st.integers(-8, 8).map(lambda k: f"{k / 2:.1f}")
side = (
    single
    | st.tuples(single, single).map(lambda p: f"(* {p[0]} {p[1]})")
    | st.tuples(single, number).map(lambda p: f"(+ {p[0]} {p[1]})")
)
atom = st.tuples(st.sampled_from(["<=", "<", ">=", ">", "!="]), side, single | number).map(
    lambda p: f"({p[0]} {p[1]} {p[2]})"
)
formula = st.tuples(st.sampled_from(["and", "or"]), st.lists(atom, min_size=1, max_size=3)).map(
    lambda p: f"({p[0]} {' '.join(p[1])})"
)


def answer(query: Query, file: bytes, semantics: Semantics = "real") -> Decision:
    return decide(query, {"f": file}, Deadline(20.0, time.monotonic()), semantics)


def lone(asserted: str, file: bytes = SAME, semantics: Semantics = "real", declared: str = LONE) -> Decision:
    box = "(assert (>= X[0] 0.0))(assert (<= X[0] 1.0))"
    return answer(read_query(f"{declared}{box}(assert {asserted})".encode()), file, semantics)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(formula, min_size=1, max_size=2), st.booleans(), st.integers(0, 10), st.sampled_from(["real", "float32"])
)
def test_no_point_contradicts_a_verdict(asserted: list[str], paired: bool, seed: int, semantics: Semantics) -> None:
    more = "(assert (== X[0] U[0]))(assert (<= X[1] U[1]))" if paired else ""
    query = read_query((PAIRED + BOX + more + "".join(f"(assert {part})" for part in asserted)).encode())
    found = answer(query, RELU, semantics)
    if found.verdict == "sat":
        assert found.execution is not None
        assert holds(query, found.execution)
        return
    where = layout(query)
    replay = Replay(bind(query, {"f": RELU}), where)
    try:
        assert meaning(query, where).missing == ()
    except EmptyRegion:
        assert found.verdict == "unsat"
    if found.verdict == "unsat":
        generator = np.random.default_rng(seed)
        points = generator.uniform(-1, 1, (300, where.free)).astype(np.float32)
        points[100:200] = points[100:200].round()
        points[200:] = (2 * points[200:]).round() / 2
        assert not any(holds(query, replay.run(point)) for point in points)


@pytest.mark.parametrize(
    ("asserted", "verdict"),
    [
        ("(>= Y[0] 1.0)", "sat"),
        ("(> Y[0] 1.0)", "unknown"),
        ("(> Y[0] 0.9999)", "sat"),
        ("(and (> X[0] 0.0) (< X[0] 0.0001) (!= Y[0] 0.00005))", "sat"),
        ("(and (<= X[0] 0.0) (!= Y[0] 0.0))", "unknown"),
        ("(> Y[0] X[0])", "unknown"),
        ("(>= Y[0] X[0])", "sat"),
        ("(>= Y[0] 1.001)", "unsat"),
        ("(> Y[0] 1.001)", "unsat"),
        ("(== Y[0] 1.5)", "unsat"),
        ("(>= (* Y[0] Y[0] X[0]) 1.1)", "unsat"),
        ("(>= (* Y[0] Y[0] X[0]) 1.0)", "sat"),
        ("(>= (- (* Y[0] Y[0]) (* 2.0 X[0])) 0.5)", "unsat"),
    ],
)
def test_open_conditions_are_open(asserted: str, verdict: str) -> None:
    found = lone(asserted)
    assert found.verdict == verdict
    if verdict == "unknown":
        assert found.notes == (TOUCHING,)


@pytest.mark.parametrize(
    ("asserted", "verdict"),
    [
        ("(and (<= X[0] 0.25) (<= Y[0] 9.0))", "unsat"),
        ("(and (>= X[0] 0.75) (>= Y[0] 1.5))", "unsat"),
        ("(and (>= X[0] 0.25) (>= Y[0] 10.0))", "sat"),
        ("(and (> X[0] 0.25) (< Y[0] 1.0))", "sat"),
    ],
)
def test_choices_that_jump_are_decided(asserted: str, verdict: str) -> None:
    assert lone(asserted, JUMP).verdict == verdict


ROUNDED = network(
    [
        helper.make_node("Mul", ["x", "third"], ["z"]),
        helper.make_node("Greater", ["z", "limit"], ["c"]),
        helper.make_node("Where", ["c", "ten", "x"], ["y"]),
    ],
    1,
    {"third": [1 / 3], "limit": [1 / 6], "ten": [10.0]},
)


@pytest.mark.parametrize(
    ("asserted", "verdict"),
    [
        ("(and (<= X[0] 0.49) (>= Y[0] 1.0))", "unsat"),
        ("(and (<= X[0] 0.4999) (>= Y[0] 1.0))", "unknown"),
        ("(and (>= X[0] 0.51) (<= Y[0] 9.0))", "unsat"),
        ("(and (>= X[0] 0.49) (>= Y[0] 9.0))", "sat"),
    ],
)
def test_roundings_may_cross_a_jump(asserted: str, verdict: str) -> None:
    assert lone(asserted, ROUNDED).verdict == verdict


THIRDS = network(
    [helper.make_node("Mul", ["x", "third"], ["z"]), helper.make_node("Mul", ["z", "three"], ["y"])],
    1,
    {"third": [1 / 3], "three": [3.0]},
)
"""y = x, but for roundings."""
CANCELLING = network(
    [
        helper.make_node("Add", ["x", "c"], ["a"]),
        helper.make_node("Sub", ["a", "c"], ["b"]),
        helper.make_node("Sub", ["b", "x"], ["y"]),
    ],
    1,
    {"c": [4096.0]},
)
"""y = 0 in real arithmetic; in float32 up to 2^-12, half the distance of floats at 4096."""
SMOOTH = network([helper.make_node("Tanh", ["x"], ["y"])], 1, {})
REALS = LONE.replace("float32", "real")


def test_floats_are_given_room_for_roundings() -> None:
    assert lone("(>= Y[0] 1.0000004)", THIRDS).verdict == "unknown"
    assert lone("(>= Y[0] 1.0000004)", THIRDS, declared=REALS).verdict == "unsat"


def test_no_room_is_needed_where_every_execution_is_proved() -> None:
    found = lone("(>= Y[0] 1.0000001)")
    assert (found.verdict, found.assurance) == ("unsat", "deployed")


@pytest.mark.parametrize("semantics", ["real", "float32"])
def test_where_float32_cancels_a_query_is_not_called_unsat_for_what_real_arithmetic_does(semantics: Semantics) -> None:
    """0.000243 is below 2^-12 = 0.000244: some float32 meets it, and real arithmetic says none."""
    found = lone("(>= Y[0] 0.000243)", CANCELLING, semantics)
    assert found.verdict in ("sat", "unknown")
    assert lone("(>= Y[0] 0.000243)", CANCELLING, declared=REALS).verdict == "unsat"


SURE = [
    ("(>= Y[0] 1.001)", THIRDS, "deployed", "deployed"),
    ("(>= Y[0] 0.01)", CANCELLING, "deployed", "deployed"),
    ("(>= Y[0] 0.001)", CANCELLING, "checked", None),
    ("(>= Y[0] 0.9)", SMOOTH, "checked", None),
    ("(>= (* Y[0] Y[0] X[0]) 1.1)", SAME, "computed", None),
    ("(and (<= X[0] 0.25) (<= Y[0] 9.0))", JUMP, "computed", None),
]


@pytest.mark.parametrize(("asserted", "file", "real", "float32"), SURE)
def test_unsat_says_how_sure_it_is(asserted: str, file: bytes, real: str, float32: str | None) -> None:
    found = lone(asserted, file)
    assert (found.verdict, found.assurance) == ("unsat", real)
    assert f"(assurance: {real})" in found.notes[0]
    assert ("--semantics float32" in found.notes[0]) == (real != "deployed")
    found = lone(asserted, file, "float32")
    assert (found.verdict, found.assurance) == (("unknown", None) if float32 is None else ("unsat", float32))
    assert "--semantics float32" not in lone(asserted, file, declared=REALS).notes[0]


def test_a_search_keeps_its_assurance() -> None:
    """More rows than the kernel is asked about without torch."""
    many = "".join(f"(>= Y[0] {2 + k / 100:.2f})" for k in range(ROWS + 1))
    assert (lone(f"(or {many})").assurance, lone(f"(or {many})", SMOOTH).assurance) == ("checked", "checked")
    assert lone(f"(or {many})", semantics="float32").assurance == "deployed"
    assert lone(f"(or {many})", SMOOTH, "float32").verdict == "unknown"


def test_what_rounds_float64_to_less_is_only_searched() -> None:
    nodes = [
        helper.make_node("Cast", ["x"], ["a"], to=TensorProto.FLOAT),
        helper.make_node("Cast", ["a"], ["b"], to=TensorProto.DOUBLE),
        helper.make_node("Sub", ["x", "b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.DOUBLE, [1]) for name in "xy"]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()
    found = lone("(>= Y[0] 0.00000001)", file, declared=LONE.replace("float32", "float64"))
    assert found.verdict == "unknown"
    assert found.notes[-1] == "network 'f' is declared float64 and rounds 'a' to less: only looked for a witness"
    assert lone("(>= Y[0] 0.00000001)", file, declared=REALS).verdict == "unsat"


def test_an_empty_region_is_unsat_with_a_warning() -> None:
    reason = "empty region: X[0] must be at least 1.5 and at most 1.0 (line 1)"
    notes = (f"warning: vacuously unsat: no input is allowed ({reason})",)
    assert lone("(>= X[0] 1.5)") == Decision("unsat", notes, None, "vacuous")


def test_without_bounds_there_is_no_unsat() -> None:
    query = read_query(f"{LONE}(assert (>= X[0] 0.0))(assert (<= Y[0] -0.5))".encode())
    assert answer(query, SAME) == Decision("unknown", ("X[0] has no upper bound: only looked for a witness",))
    query = read_query(f"{LONE}(assert (>= X[0] 3.0))(assert (<= Y[0] 4.0))".encode())
    assert answer(query, SAME).verdict == "sat"


def test_several_boxes_with_constraints_of_their_own() -> None:
    boxes = "(or (and (<= X[0] 0.25) (>= Y[0] 0.5)) (and (>= X[0] 0.75) (<= Y[0] 0.5)))"
    assert lone(boxes).verdict == "unsat"
    assert lone(boxes.replace("(<= Y[0] 0.5)", "(<= Y[0] 0.75)")).verdict == "sat"


def test_the_old_form_relates_inputs_and_outputs() -> None:
    text = "".join(f"(declare-const {v} Real)" for v in ("X_0", "X_1", "Y_0", "Y_1"))
    text += "".join(f"(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(2))
    assert answer(read_query((text + "(assert (>= Y_1 (+ X_0 X_1 6)))").encode()), RELU).verdict == "unsat"
    assert answer(read_query((text + "(assert (>= Y_1 (+ X_0 X_1 2)))").encode()), RELU).verdict == "sat"
