"""Constants computed within a model: what float32 would take a step away is refused, in every operator that steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_kit import model, refused, require_agreement

from provenn.models.onnx_ops.folding import STEPS
from provenn.models.onnx_ops.plan import SMALL
from provenn.models.onnx_reader import read
from provenn.verifier.errors import UnsupportedOp
from provenn.verifier.ops.steps import Step
from provenn.verifier.ops.table import OPS

Nodes = Sequence[onnx.NodeProto]

ACROSS = "rounds it across a step: the network that runs would not be the one that is verified"

FLOATS = {"ten": 10, "share": 0.7, "three": 0.3, "zero": 0, "half": 0.5, "one": 1, "seven": 7, "d": 41, "e": 82}
NUMBERS = {
    **{name: np.float32(number) for name, number in FLOATS.items()},
    "item": np.float32([1]),
    "places": np.array([0], dtype=np.int64),
    "empty": np.array([], dtype=np.float32),
}
SEVEN = helper.make_node("Mul", ["ten", "share"], ["n"])
"""0.7 is 0.699999988 in float32: times 10 that is below 7, in float32 it is 7."""


def node(op: str, inputs: str, output: str, **attributes: int) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def used(nodes: Nodes, numbers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: numbers[name] for name in numbers if any(name in n.input for n in nodes)}


def compared(op: str) -> Nodes:
    return [SEVEN, node(op, "n seven", "c"), node("Where", "c x zero", "y")]


GAP = [SEVEN, node("Sub", "n seven", "gap")]
ACROSS_STEPS: dict[str, Nodes] = {
    "Floor": [SEVEN, node("Floor", "n", "s"), node("Add", "x s", "y")],
    "Ceil": [node("Mul", "ten three", "n"), node("Ceil", "n", "s"), node("Add", "x s", "y")],
    "Round": [SEVEN, node("Mul", "n half", "m"), node("Round", "m", "s"), node("Add", "x s", "y")],
    "Sign": [*GAP, node("Sign", "gap", "s"), node("Add", "x s", "y")],
    "Mod": [SEVEN, node("Mod", "n seven", "s", fmod=1), node("Add", "x s", "y")],
    "Cast": [SEVEN, node("Cast", "n", "i", to=7), node("Cast", "i", "s", to=1), node("Add", "x s", "y")],
    "Cast to truth": [*GAP, node("Cast", "gap", "c", to=TensorProto.BOOL), node("Where", "c x zero", "y")],
    "Equal": compared("Equal"),
    "Less": compared("Less"),
    "GreaterOrEqual": compared("GreaterOrEqual"),
    "Range": [
        node("Mul", "ten three", "n"),
        node("Range", "zero n one", "r"),
        node("ReduceSum", "r", "s", keepdims=0),
        node("Add", "x s", "y"),
    ],
    "NonZero": [
        *GAP,
        node("Reshape", "gap shape", "g"),
        node("Concat", "g item", "c", axis=0),
        node("NonZero", "c", "p"),
        node("Squeeze", "p places", "i"),
        node("Gather", "x i", "g2", axis=1),
        node("ReduceSum", "g2", "y"),
    ],
    "Pow": [node("Div", "one d", "n"), node("Mul", "n e", "two"), node("Pow", "x two", "y")],
}


@pytest.mark.parametrize("name", ACROSS_STEPS)
def test_constants_that_float32_takes_a_step_away_are_refused(name: str) -> None:
    numbers = NUMBERS | {"shape": np.array([1], dtype=np.int64)}
    refused(model(ACROSS_STEPS[name], (1, 2), used(ACROSS_STEPS[name], numbers)), ACROSS, UnsupportedOp)


def test_scales_that_float32_rounds_elsewhere_are_refused() -> None:
    """1 / 41 * 82 is 2, or 1.9999999 in float32: a cell less."""
    nodes = [
        node("Div", "item d", "n"),
        node("Mul", "n e", "two"),
        node("Concat", "item item two", "scales", axis=0),
        node("Resize", "x empty scales", "y"),
    ]
    refused(model(nodes, (1, 1, 4), used(nodes, NUMBERS)), ACROSS, UnsupportedOp)


def test_sizes_computed_in_floats_are_refused_where_a_cell_is_lost() -> None:
    nodes = [
        SEVEN,
        node("Floor", "n", "f"),
        node("Cast", "f", "i", to=TensorProto.INT64),
        node("Reshape", "i shape", "length"),
        node("Concat", "shape shape length", "sizes", axis=0),
        helper.make_node("Resize", ["x", "", "", "sizes"], ["y"]),
    ]
    refused(model(nodes, (1, 1, 10), used(nodes, NUMBERS) | {"shape": np.array([1])}), ACROSS, UnsupportedOp)


@pytest.mark.parametrize("op", ["Floor", "Less"])
@pytest.mark.parametrize("share", [0.7, 0.72])
def test_constants_of_many_elements_are_held_against_float32_too(op: str, share: float) -> None:
    count = SMALL + 1
    nodes = [SEVEN, node("Floor", "n", "s"), node("Add", "x s", "y")] if op == "Floor" else compared(op)
    numbers = NUMBERS | {"share": np.full(count, share, dtype=np.float32)}
    data = model(nodes, (1, count), used(nodes, numbers)).SerializeToString()
    if share == 0.7:
        with pytest.raises(UnsupportedOp, match=ACROSS) as caught:
            read(data)
        assert caught.value.op_type == op
    else:
        require_agreement(data)


def test_opposite_cases_must_be_opposite_in_float32() -> None:
    """x > 1 / 41 * 82 and x <= 2: in float32 both hold at 2."""
    nodes = [
        node("Div", "one d", "n"),
        node("Mul", "n e", "limit"),
        node("Greater", "x limit", "on"),
        node("LessOrEqual", "x two", "off"),
        node("Cast", "on", "a", to=1),
        node("Cast", "off", "b", to=1),
        node("Mul", "x two", "double"),
        node("Add", "x two", "more"),
        node("Mul", "double a", "p"),
        node("Mul", "more b", "q"),
        node("Add", "p q", "y"),
    ]
    refused(model(nodes, (1, 3), used(nodes, NUMBERS | {"two": np.float32(2)})), "times a comparison", UnsupportedOp)


SUMMED = {
    "Exp": [node("Exp", "ten", "n")],
    "ReduceSum": [node("ReduceSum", "tenths", "n", keepdims=0)],
    "MatMul": [node("MatMul", "tenths tenths", "n")],
}


@pytest.mark.parametrize("name", SUMMED)
def test_roundings_that_are_the_runtimes_own_are_not_stepped_on(name: str) -> None:
    """Ten times 0.1 add up to 1, or to a little more or less, as they are grouped."""
    numbers = NUMBERS | {"tenths": np.full(10, 0.1, dtype=np.float32)}
    stepped = [*SUMMED[name], node("Floor", "n", "s"), node("Add", "x s", "y")]
    plain = [*SUMMED[name], node("Add", "x n", "y")]
    own = f"operator {name} is not supported: constants that runtimes round in ways of their own"
    refused(model(stepped, (1, 2), used(stepped, numbers)), own, UnsupportedOp)
    require_agreement(model(plain, (1, 2), used(plain, numbers)).SerializeToString())


def test_long_chains_of_steps_are_held_against_float32_in_time() -> None:
    nodes, last = [], "ten"
    for i in range(1000):
        nodes += [node("Mul", f"{last} {last}", f"a{i}"), node("Sqrt", f"a{i}", f"b{i}")]
        nodes += [node("Ceil", f"b{i}", f"c{i}")]
        last = f"b{i}"
    nodes.append(node("Add", f"x {last}", "y"))
    require_agreement(model(nodes, (1, 2), used(nodes, NUMBERS)).SerializeToString())


def test_doubles_are_held_against_doubles() -> None:
    """10 * 0.699999988, which float32 would round to 7."""
    nodes = [SEVEN, node("Floor", "n", "s"), node("Add", "x s", "y")]
    numbers = {"ten": np.float64(10), "share": np.float64(np.float32(0.7))}
    data = model(nodes, (1, 2), numbers, dtype=TensorProto.DOUBLE).SerializeToString()
    require_agreement(data)
    assert read(data).forward(torch.zeros(1, 2).double()).tolist() == [[6.0, 6.0]]


def test_ranges_that_float32_rounds_are_refused() -> None:
    """onnxruntime adds 0.1 up, and after 1,000 of them is 1e-3 away."""
    nodes = [node("Range", "zero far tenth", "r"), node("ReduceSum", "r", "s", keepdims=0), node("Add", "x s", "y")]
    numbers = {"zero": np.float32(0), "far": np.float32(100), "tenth": np.float32(0.1)}
    refused(model(nodes, (1, 2), numbers), "numbers that float32, which adds them up, rounds", UnsupportedOp)
    require_agreement(model(nodes, (1, 2), numbers | {"tenth": np.float32(0.25)}).SerializeToString())


def test_every_operator_that_steps_is_known() -> None:
    assert {name for op in OPS if issubclass(op, Step) for name in op.onnx} | {"Mod"} == STEPS
