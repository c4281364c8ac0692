"""Written with steps, a network computes what it did: choices, comparisons, truth values, casts."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from query_kit import network, node, run

from provenn.models.onnx_reader import read
from provenn.models.query.joining import serialised
from provenn.models.query.stepping import RANGE, written_with_steps
from provenn.verifier.errors import UnsupportedOp

FLOAT, BOOL, INT64, INT32 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64, TensorProto.INT32
HALVES = {"h": [0.5], "zero": [0.0], "ten": [10.0], "one": np.array([1], np.int64), "two": np.array(2, np.int32)}

NETWORKS = {
    "greater": [node("Greater", "x h", "c"), node("Where", "c x ten", "y")],
    "less": [node("Less", "x h", "c"), node("Where", "c ten x", "y")],
    "greater or equal": [node("GreaterOrEqual", "x h", "c"), node("Where", "c zero ten", "y")],
    "less or equal": [node("LessOrEqual", "x h", "c"), node("Cast", "c", "y", to=FLOAT)],
    "equal": [node("Equal", "x h", "c"), node("Cast", "c", "y", to=FLOAT)],
    "not": [node("Equal", "x zero", "c"), node("Not", "c", "n"), node("Where", "n x ten", "y")],
    "and": [
        node("Greater", "x zero", "a"),
        node("Less", "x h", "b"),
        node("And", "a b", "c"),
        node("Where", "c ten x", "y"),
    ],
    "or": [
        node("Greater", "x h", "a"),
        node("Less", "x zero", "b"),
        node("Or", "a b", "c"),
        node("Where", "c ten x", "y"),
    ],
    "xor": [
        node("Greater", "x zero", "a"),
        node("Greater", "x h", "b"),
        node("Xor", "a b", "c"),
        node("Where", "c ten x", "y"),
    ],
    "truth": [node("Cast", "x", "b", to=BOOL), node("Cast", "b", "y", to=FLOAT)],
    "whole": [node("Cast", "x", "i", to=INT64), node("Cast", "i", "y", to=FLOAT)],
    "whole sums": [
        node("Cast", "x", "i", to=INT64),
        node("Add", "i one", "j"),
        node("Neg", "j", "k"),
        node("Sub", "k i", "l"),
        node("Cast", "l", "y", to=FLOAT),
    ],
    "32 bits": [node("Cast", "x", "i", to=INT32), node("Sub", "two i", "j"), node("Cast", "j", "y", to=FLOAT)],
    "whole truth": [
        node("Cast", "x", "i", to=INT64),
        node("Cast", "i", "b", to=BOOL),
        node("Cast", "b", "j", to=INT64),
        node("Reshape", "j shape", "k"),
        node("Concat", "k one", "l", axis=0),
        node("Gather", "l picked", "m"),
        node("Cast", "m", "y", to=FLOAT),
    ],
    "whole comparison": [
        node("Cast", "x", "i", to=INT64),
        node("Greater", "i one", "c"),
        node("Where", "c i one", "j"),
        node("Cast", "j", "y", to=FLOAT),
    ],
}
POINTS = [*np.arange(-3, 3.25, 0.25), -1e-30, 1e-30, np.nextafter(np.float32(0.5), 1), np.nextafter(np.float32(0.5), 0)]


def model(nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    stored = HALVES | {"shape": np.array([-1], np.int64), "picked": np.array([0, 1, 2], np.int64)}
    used = {name for n in nodes for name in n.input}
    content = network(nodes, [("x", "f", [3])], [("y", "f", [3])], {k: v for k, v in stored.items() if k in used})
    return onnx.ModelProto.FromString(content)


@pytest.mark.parametrize("name", NETWORKS)
def test_steps_compute_the_same(name: str) -> None:
    before = model(NETWORKS[name])
    stepped = written_with_steps(before)
    content = serialised(stepped.model)
    graph = read(content)
    whole = sum(n.op_type == "Cast" and n.input[0] == "x" and n.attribute[0].i != BOOL for n in before.graph.node)
    assert (stepped.watched.ranged, stepped.watched.apart) == (3 * whole, 0)
    assert graph.output_shape == (3 + 3 * whole,)
    for start in range(0, len(POINTS) - 2):
        x = np.array(POINTS[start : start + 3], np.float32)
        (expected,) = run(before.SerializeToString(), {"x": x})
        (found,) = run(content, {"x": x})
        assert found[:3].tolist() == expected.tolist()
        assert found[3:].tolist() == x.tolist() * whole


REFUSED = {
    "a product of whole numbers": [
        node("Cast", "x", "i", to=INT64),
        node("Mul", "i one", "j"),
        node("Cast", "j", "y", to=FLOAT),
    ],
    "a large constant": [
        node("Cast", "x", "i", to=INT64),
        node("Add", "i large", "j"),
        node("Cast", "j", "y", to=FLOAT),
    ],
    "a cast to bytes": [node("Cast", "x", "i", to=TensorProto.INT8), node("Cast", "i", "y", to=FLOAT)],
    "many sums": [
        node("Cast", "x", "i0", to=INT64),
        *(node("Add", f"i{k} i{k}", f"i{k + 1}") for k in range(9)),
        node("Cast", "i9", "y", to=FLOAT),
    ],
}


@pytest.mark.parametrize("name", REFUSED)
def test_whole_numbers_that_might_not_fit_are_refused(name: str) -> None:
    stored = {"one": np.array([1], np.int64), "large": np.array([RANGE + 1], np.int64)}
    used = {source for n in REFUSED[name] for source in n.input}
    content = network(
        REFUSED[name], [("x", "f", [3])], [("y", "f", [3])], {k: v for k, v in stored.items() if k in used}
    )
    with pytest.raises(UnsupportedOp):
        read(serialised(written_with_steps(onnx.ModelProto.FromString(content)).model))


ROUNDED = {
    "a comparison": [node("Mul", "x h", "z"), node("Greater", "z zero", "c"), node("Where", "c x ten", "y")],
    "an equation": [node("Mul", "x h", "z"), node("Equal", "x z", "c"), node("Cast", "c", "y", to=FLOAT)],
    "a truth value": [
        node("Mul", "x h", "a"),
        node("Abs", "a", "z"),
        node("Cast", "z", "b", to=BOOL),
        node("Cast", "b", "y", to=FLOAT),
    ],
}


@pytest.mark.parametrize("name", ROUNDED)
def test_rounded_values_that_are_compared_are_watched(name: str) -> None:
    before = model(ROUNDED[name])
    stepped = written_with_steps(before)
    assert (stepped.watched.ranged, stepped.watched.apart) == (0, 3)
    x = np.array([-1.5, 0.0, 0.75], np.float32)
    (found,) = run(serialised(stepped.model), {"x": x})
    assert found[:3].tolist() == run(before.SerializeToString(), {"x": x})[0].tolist()
    gap = x / 2 if name != "a truth value" else abs(x / 2)
    assert found[3:].tolist() == gap.tolist()


def test_rounded_values_are_not_cast_to_whole_numbers() -> None:
    rounded = model([node("Mul", "x h", "z"), node("Cast", "z", "i", to=INT64), node("Cast", "i", "y", to=FLOAT)])
    with pytest.raises(UnsupportedOp, match="values that were rounded"):
        written_with_steps(rounded)


def test_what_needs_no_steps_stays_as_it_is() -> None:
    before = model([node("Relu", "x", "a"), node("Neg", "a", "y")])
    after = written_with_steps(before)
    assert after.watched.ranged == after.watched.apart == 0
    assert list(after.model.graph.node) == list(before.graph.node)
