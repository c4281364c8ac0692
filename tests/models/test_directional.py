"""The derivative along a motion, as nodes: held against automatic differentiation; and what counts as convex."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from loop_kit import ABSOLUTE, SQUARE, TANH, linear, net, node
from onnx import NodeProto, helper

from provenn.models.composition import INPUT, Composition, constants, network
from provenn.models.directional import derivative
from provenn.models.executor import OnnxExecutor
from provenn.models.onnx_reader import read
from provenn.verifier.convexity import convex
from provenn.verifier.errors import InvalidModel, UnsupportedOp

W, V = np.random.default_rng(0).standard_normal((2, 4, 4)).round(2)
LAYER = node("Gemm", "x w", "z", transB=1)
FORMS: dict[str, list[NodeProto]] = {
    "Tanh": [node("Tanh", "z", "y")],
    "Sigmoid": [node("Sigmoid", "z", "y")],
    "Relu": [node("Relu", "z", "y")],
    "Abs": [node("Abs", "z", "y")],
    "Sin": [node("Sin", "z", "y")],
    "Cos": [node("Cos", "z", "y")],
    "Pow": [node("Pow", "z two", "y")],
    "Mul": [node("Tanh", "z", "t"), node("Mul", "t z", "y")],
    "Neg": [node("Neg", "z", "n"), node("Mul", "n n", "y")],
    "Sub": [node("Tanh", "z", "t"), node("Sub", "three t", "u"), node("Mul", "u z", "y")],
    "Div": [node("Div", "z three", "u"), node("Add", "u z", "y")],
    "MatMul": [node("MatMul", "z w", "u"), node("Reshape", "u shape", "v"), node("Concat", "v z", "y", axis=1)],
    "Sum": [node("Mul", "z z", "u"), node("ReduceSum", "u axis", "y", keepdims=1)],
    "Constant": [
        node("Constant", "", "half", value_float=0.5),
        node("Constant", "", "rows", value_floats=[1.0, 2.0, 3.0, 4.0]),
        node("Constant", "", "second", value_int=1),
        node("Constant", "", "places", value_ints=[3, 0, 1, 2]),
        node("Constant", "", "power", value_float=2.0),
        node("Add", "z half", "a"),
        node("Mul", "a rows", "b"),
        node("Gather", "b places", "c", axis=1),
        node("Gather", "z second", "d", axis=1),
        node("Unsqueeze", "d second", "e"),
        node("Pow", "e power", "f"),
        node("Sub", "rows f", "g"),
        node("Mul", "g c", "y"),
    ],
}

ALONE = [node("ReduceSum", "z all", "s", keepdims=0)]
SPREAD = [
    node("Unsqueeze", "t all", "u"),
    node("Mul", "u row", "m"),
    node("Gather", "m first", "g", axis=1),
    node("ReduceSum", "g last", "y", keepdims=1),
]
for each in ("Tanh", "Sigmoid", "Relu", "Abs", "Sin", "Cos"):
    FORMS[f"{each} of a value without axes"] = [*ALONE, node(each, "s", "t"), *SPREAD]
FORMS["Pow of a value without axes"] = [*ALONE, node("Pow", "s two", "t"), *SPREAD]


@pytest.mark.parametrize("form", FORMS)
def test_the_derivative_along_a_motion(form: str) -> None:
    """Of f along v is J v: by automatic differentiation of the graph that is read from the same file."""
    given = {"w": W, "two": 2.0, "three": [[3.0]], "shape": np.array([1, 4]), "axis": np.array([1])}
    given |= {"all": np.array([0, 1]), "row": [[1.0, 2, 3, 4]], "first": np.array([0]), "last": np.array([-1])}
    size = 1 if "without axes" in form else {"MatMul": 8, "Sum": 1}.get(form, 4)
    file = net([LAYER, *FORMS[form]], 4, size, given)
    made = Composition(8, 18)
    source, velocity = made.taken(INPUT, range(4)), made.taken(INPUT, range(4, 8))
    value = made.through(network(file, "network"), "f/", source)
    moving = OnnxExecutor(made.file([value, derivative(made, value, source, velocity)]))
    points = np.random.default_rng(1).standard_normal((8, 8)).astype(np.float32)
    found, graph = moving.run(points), read(file)
    for point, answer in zip(torch.from_numpy(points).double(), found, strict=True):
        x, v = point[None, :4], point[None, 4:]
        _, expected = torch.autograd.functional.jvp(graph.forward, x, v)
        np.testing.assert_allclose(answer[answer.size // 2 :], expected[0].numpy(), rtol=1e-4, atol=1e-4)


def test_a_constant_of_several_values_is_refused() -> None:
    given = helper.make_node("Constant", [], ["c"], "both", value_float=1.0, value_floats=[2.0])
    with pytest.raises(InvalidModel, match="'both': it must give one constant"):
        constants([given], [])


def test_what_has_no_rule_is_named() -> None:
    made = Composition(1, 18)
    source = made.taken(INPUT, [0])
    value = made.through(network(net([node("Exp", "x", "y")], 1, 1, {}), "network"), "f/", source)
    with pytest.raises(UnsupportedOp, match="Exp"):
        derivative(made, value, source, source)


def layers(*nodes: NodeProto, second: float = 1.0) -> bytes:
    return net([LAYER, *nodes, node("Gemm", "h v", "y", transB=1)], 4, 1, {"w": W, "v": [[1.0, 2.0, 0.0, second]]})


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (ABSOLUTE, True),
        (SQUARE, True),
        (TANH, False),
        (linear([[1.0, -2.0]]), True),
        (layers(node("Relu", "z", "h")), True),
        (layers(node("Relu", "z", "h"), second=-1e-6), False),
        (layers(node("Abs", "z", "h")), True),
        (layers(node("Abs", "z", "a"), node("Abs", "a", "h")), False),
        (layers(node("Abs", "z", "a"), node("Relu", "a", "h")), True),
        (layers(node("Abs", "z", "a"), node("Max", "a z", "h")), True),
        (layers(node("Min", "x z", "h")), False),
        (layers(node("Relu", "z", "r"), node("Sub", "z r", "h")), False),
    ],
)
def test_convexity_by_the_signs_of_weights(file: bytes, expected: bool) -> None:
    graph = read(file)
    assert convex(graph) == expected
    if expected:
        x, y = torch.from_numpy(np.random.default_rng(2).standard_normal((2, 500, *graph.input_shape)))
        middle = graph.forward((x + y) / 2) - (graph.forward(x) + graph.forward(y)) / 2
        assert float(middle.max()) <= 1e-12
