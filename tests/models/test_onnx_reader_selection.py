"""Maxima, minima, sorting and choices by comparisons: what is read agrees with onnxruntime, what is not is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx_kit import OneOp, model, refused, require_agreement, require_exact_agreement

from provenn.models.onnx_reader import read
from provenn.models.torch_export import export
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import InvalidModel, UnsupportedOp
from provenn.verifier.interval import Interval
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.larger import Either
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sort import Sort, comparators
from provenn.verifier.region import Region

Nodes = Sequence[onnx.NodeProto]


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), output.split(), **attributes)


def floats(*values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def halves(*nodes: onnx.NodeProto) -> Nodes:
    """x split into a and b along axis 1."""
    return [node("Split", "x", "a b", axis=1), *nodes]


def agrees(
    nodes: Nodes, shape: Sequence[int | str], constants: Mapping[str, np.ndarray] | None = None, opset: int = 13
) -> Any:
    """The graph read, once it agrees with onnxruntime and its bounds with samples."""
    data = model(nodes, shape, constants or {}, opset=opset).SerializeToString()
    require_agreement(data)
    if all(n.op_type != "Cast" for n in nodes):
        require_exact_agreement(data)
    return require_sound(data)


def require_sound(data: bytes) -> Any:
    graph = read(data)
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn((2, *graph.input_shape), generator=generator).double()
    for radius in (0.0, 0.5, 1e3):
        box = Interval(centre - radius, centre + radius)
        enclosure = propagate(graph, box)[-1]
        count = enclosure.lower[0].numel()
        eye = torch.eye(count).double()[:, None].expand(count, 2, count)
        relaxed = crown(graph, Region(box))
        low, high = relaxed.output_lower(eye).T, -relaxed.output_lower(-eye).T
        place = torch.rand((500, *centre.shape), generator=generator).double()
        place = torch.where(torch.rand(place.shape, generator=generator) < 0.4, place.round(), place)
        image = graph.forward((box.lower + place * (box.upper - box.lower)).flatten(0, 1)).reshape(500, 2, count)
        rounding = 1e-11 * (1 + radius)
        for lower, upper in ((enclosure.lower.flatten(1), enclosure.upper.flatten(1)), (low, high)):
            assert (lower - rounding <= image).all() and (image <= upper + rounding).all()
    return graph


EXTREMES = {
    "max": halves(node("Max", "a b", "y")),
    "min": halves(node("Min", "a b", "y")),
    "max of one": [node("Max", "x", "y")],
    "max of three": halves(node("Relu", "a", "c"), node("Max", "a b c", "y")),
    "min of three": halves(node("Neg", "a", "c"), node("Min", "a b c", "y")),
    "with constants": halves(node("Max", "k a row b", "y")),
    "min with constants": halves(node("Min", "row b k", "y")),
    "with zero": [node("Max", "zero x", "y")],
    "min with zero": [node("Min", "zero x", "y")],
    "broadcast": [node("ReduceMax", "x", "top", axes=[2]), node("Min", "x top", "y")],
    "constant broadcast": [node("ReduceMax", "x", "top", axes=[2]), node("Max", "top row", "y")],
    "same": [node("Max", "x x", "y")],
    "constants": [node("Min", "k row", "c"), node("Max", "c row", "e"), node("Add", "x e", "y")],
    "both": halves(node("Max", "a b", "u"), node("Min", "b a", "v"), node("Concat", "u v", "y", axis=1)),
    "without batch": [node("Reshape", "x flat", "f"), node("Split", "f", "a b"), node("Max", "a b", "y")],
}
NUMBERS = {"k": floats(0.25), "row": floats(-1, 0, 0.5), "zero": floats(0), "flat": whole(-1)}


@pytest.mark.parametrize("name", EXTREMES)
def test_extremes(name: str) -> None:
    used = {i for n in EXTREMES[name] for i in n.input}
    batch = 1 if name == "without batch" else "batch"
    agrees(EXTREMES[name], (batch, 4, 3), {k: v for k, v in NUMBERS.items() if k in used})


def test_many_inputs_are_compared_by_one_op() -> None:
    nodes = [node("Split", "x", " ".join(f"p{i}" for i in range(10)), axis=1)]
    graph = agrees([*nodes, node("Max", " ".join(f"p{i}" for i in range(10)), "y")], ("batch", 20))
    assert not any(isinstance(n.op, Relu) for n in graph.nodes)


def test_a_maximum_and_a_minimum_share_their_difference() -> None:
    graph = agrees(EXTREMES["both"], ("batch", 4, 3))
    assert sum(isinstance(n.op, Relu) for n in graph.nodes) == 1


def test_the_interval_of_a_maximum_is_exact() -> None:
    graph = read(model(EXTREMES["max"], (1, 2), opset=13).SerializeToString())
    last = propagate(graph, Interval(torch.tensor([[0.0, -1.0]]).double(), torch.tensor([[1.0, 0.5]]).double()))[-1]
    assert (last.lower.item(), last.upper.item()) == (0.0, 1.0)


def test_crown_keeps_what_the_inputs_have_in_common() -> None:
    """max(s + t, s - t) - s = |t|: over boxes of its two inputs alone it would be within [-2, 2]."""
    nodes = [
        *halves(node("Add", "a b", "p"), node("Sub", "a b", "q"), node("Max", "p q", "m")),
        node("Sub", "m a", "y"),
    ]
    graph = read(model(nodes, (1, 2), opset=13).SerializeToString())
    relaxed = crown(graph, Region(Interval(-torch.ones((1, 2)).double(), torch.ones((1, 2)).double())))
    assert relaxed.output_lower(-torch.ones((1, 1, 1)).double()).item() >= -1 - 1e-12


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin"])
@pytest.mark.parametrize("axes", [None, (1,), (2, -1), (3,), (1, 2, 3), (0,)])
@pytest.mark.parametrize("keep", (0, 1))
def test_reductions(op: str, axes: tuple[int, ...] | None, keep: int) -> None:
    how = {"keepdims": keep} | ({} if axes is None else {"axes": list(axes)})
    agrees([node(op, "x", "y", **how)], (1, 3, 2, 5))


def test_reductions_of_new_opsets() -> None:
    require_agreement(OneOp("ReduceMax", (1, 3, 4), (whole(2),), {"keepdims": 0}, 20).model().SerializeToString())
    require_agreement(
        OneOp("ReduceMin", (1, 3), (whole(),), {"noop_with_empty_axes": 1}, 18).model().SerializeToString()
    )


@pytest.mark.parametrize("extent", (1, 2, 3, 4, 5, 7, 8, 9))
@pytest.mark.parametrize("largest", (0, 1))
def test_sorting(extent: int, largest: int) -> None:
    shape = ("batch", 2, extent, 2)
    graph = agrees([node("TopK", "x k", "y places", axis=2, largest=largest)], shape, {"k": whole(extent)})
    assert any(isinstance(n.op, Sort) for n in graph.nodes) == (extent > 8)


@pytest.mark.parametrize("k", (1, 2, 3))
@pytest.mark.parametrize("extent", (4, 11))
def test_the_first_of_a_sorted_axis(k: int, extent: int) -> None:
    agrees([node("TopK", "x k", "y places")], ("batch", extent), {"k": whole(k)})


def test_a_sorted_axis_without_batch() -> None:
    agrees([node("Reshape", "x flat", "f"), node("TopK", "f k", "y places", axis=0)], (1, 5), NUMBERS_OF_A_SORT)


NUMBERS_OF_A_SORT = {"flat": whole(-1), "k": whole(4)}


@pytest.mark.parametrize("size", range(2, 9))
def test_a_network_sorts(size: int) -> None:
    """All sequences of zeros and ones: then all sequences (Knuth, the zero-one principle)."""
    for number in range(2**size):
        values = [number >> i & 1 for i in range(size)]
        for layer in comparators(size):
            cells = [i for pair in layer for i in pair]
            assert len(set(cells)) == len(cells)
            for i, j in layer:
                values[i], values[j] = max(values[i], values[j]), min(values[i], values[j])
        assert values == sorted(values, reverse=True)


def chosen(comparison: str, *rest: onnx.NodeProto) -> Nodes:
    return halves(node(comparison, "a b", "c"), *rest)


V = floats([0.6, -0.8])
R = np.eye(2) - 2 * np.outer([0.6, -0.8], [0.6, -0.8])
CHOICES = {
    "relu": [node("Greater", "x zero", "c"), node("Where", "c x zero", "y")],
    "relu, reversed": [node("Less", "x zero", "c"), node("Where", "c zero x", "y")],
    "relu, as a product": [node("Greater", "x zero", "c"), node("Cast", "c", "f", to=1), node("Mul", "f x", "y")],
    "leaky": [node("GreaterOrEqual", "x zero", "c"), node("Mul", "x k", "s"), node("Where", "c x s", "y")],
    "leaky, reversed": [node("LessOrEqual", "x zero", "c"), node("Mul", "x k", "s"), node("Where", "c s x", "y")],
    "abs": [node("Greater", "x zero", "c"), node("Neg", "x", "n"), node("Where", "c x n", "y")],
    "not": [node("Less", "x zero", "d"), node("Not", "d", "c"), node("Where", "c x zero", "y")],
    "slopes": [node("Greater", "x zero", "c"), node("Mul", "x row", "s"), node("Where", "c x s", "y")],
    "clamp": [node("Greater", "x k", "c"), node("Where", "c k x", "y")],
    "clamp below": [node("Less", "x row", "c"), node("Where", "c row x", "y")],
    "max": chosen("Greater", node("Where", "c a b", "y")),
    "min": chosen("LessOrEqual", node("Where", "c a b", "y")),
    "scaled max": chosen("Less", node("Mul", "a k", "p"), node("Mul", "b k", "q"), node("Where", "c q p", "y")),
    "mixed": chosen("Less", node("Mul", "a row", "p"), node("Mul", "b row", "q"), node("Where", "c p q", "y")),
}


@pytest.mark.parametrize("name", CHOICES)
def test_choices_whose_branches_meet(name: str) -> None:
    used = {i for n in CHOICES[name] for i in n.input}
    graph = agrees(CHOICES[name], ("batch", 4, 3), {k: v for k, v in NUMBERS.items() if k in used})
    assert not any(isinstance(n.op, Gate) for n in graph.nodes)
    if name.startswith("leaky"):
        assert [type(n.op) for n in graph.nodes if n.op and not n.op.affine] == [LeakyRelu]
    if name.startswith(("relu", "not")):
        assert [type(n.op) for n in graph.nodes if n.op and not n.op.affine] == [Relu]


def householder(reflection: Nodes, strict: bool = True) -> Nodes:
    return [
        node("MatMul", "x v", "d"),
        node("Greater" if strict else "GreaterOrEqual", "d zero", "c"),
        *reflection,
        node("Where", "c x r", "y"),
    ]


def test_householder_from_its_vector() -> None:
    """z - 2 v (v.z): exactly one relu a pair, whose bound is a pass of its own."""
    reflected = [node("Mul", "d w", "p"), node("Sub", "x p", "r")]
    constants = {"v": V.reshape(2, 1), "w": 2 * V, "zero": NUMBERS["zero"]}
    graph = agrees(householder(reflected), ("batch", 3, 2), constants)
    assert [type(n.op) for n in graph.nodes if n.op and not n.op.affine] == [Relu, Either]


def test_householder_from_its_matrix() -> None:
    """Rounded to float32 the reflection misses z by roundings where v.z = 0: a jump that is bounded, not forgotten."""
    constants = {"v": V.reshape(2, 1), "m": R.astype(np.float32), "zero": NUMBERS["zero"]}
    graph = agrees(householder([node("MatMul", "x m", "r")], False), ("batch", 3, 2), constants)
    (gate,) = [n.op for n in graph.nodes if isinstance(n.op, Gate)]
    assert gate.closed


class Householder(torch.nn.Module):
    """As Singla et al. publish it: two halves of every choice, each times a comparison."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = torch.nn.Parameter(torch.tensor([[0.3, 1.0, 2.5]]))

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        x, y = z.split(3, 1)
        selector = x * torch.sin(0.5 * self.theta) - y * torch.cos(0.5 * self.theta)
        a = x * torch.cos(self.theta) + y * torch.sin(self.theta)
        b = x * torch.sin(self.theta) - y * torch.cos(self.theta)
        off, on = selector <= 0, selector > 0
        return torch.cat([x * off + a * on, y * off + b * on], 1)


class GroupSort(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(x.shape[0], -1, 3).sort(dim=-1).values.flatten(1)


class MaxMin(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = x.split(x.shape[1] // 2, 1)
        return torch.cat([torch.max(a, b), torch.min(a, b)], 1)


@pytest.mark.xdist_group("torch export")
@pytest.mark.parametrize("module", [Householder(), GroupSort(), MaxMin()], ids=lambda m: type(m).__name__)
def test_activations_as_torch_exports_them(module: torch.nn.Module) -> None:
    data = export(module, (6,))
    require_agreement(data)
    require_sound(data)


JUMPS = {
    "sign": [node("Greater", "x zero", "c"), node("Where", "c k zero", "y")],
    "threshold": [node("Greater", "x k", "c"), node("Where", "c x zero", "y")],
    "another condition": [
        node("Relu", "x", "h"),
        node("Greater", "h k", "c"),
        node("Neg", "x", "n"),
        node("Where", "c x n", "y"),
    ],
}


@pytest.mark.parametrize("name", JUMPS)
def test_choices_that_jump_are_refused(name: str) -> None:
    refused(
        model(JUMPS[name], (1, 3), {k: NUMBERS[k] for k in ("zero", "k")}), "branches miss each other", UnsupportedOp
    )


@pytest.mark.parametrize("slack", (1e-3, 1e-4))
def test_a_reflection_that_is_none_is_refused(slack: float) -> None:
    constants = {"v": V.reshape(2, 1), "m": (R + slack).astype(np.float32), "zero": NUMBERS["zero"]}
    refused(model(householder([node("MatMul", "x m", "r")]), (1, 2), constants), "branches miss", UnsupportedOp)


HALVES = [
    node("Greater", "x k", "on"),
    node("LessOrEqual", "x k", "off"),
    node("Cast", "on", "a", to=1),
    node("Cast", "off", "b", to=1),
    node("Add", "x x", "double"),
    node("Add", "x k", "more"),
    node("Mul", "double a", "p"),
    node("Mul", "more b", "q"),
]
"""2 x where x > k, x + k elsewhere, each times its comparison."""
SHAPES = {"k": NUMBERS["k"], "flat": whole(3), "places": whole(0, 1, 2)[None], "once": whole(1, 1), "same": whole(1, 3)}
PASSED = {
    "as they are": [node("Add", "p q", "y")],
    "passed on": [node("Identity", "p", "p2"), node("Dropout", "q", "q2"), node("Add", "p2 q2", "y")],
    "asked for their shape": [node("Shape", "p", "s"), node("Expand", "more s", "y")],
}
MISREAD = {
    "reshaped": [node("Reshape", "p flat", "p2"), node("Reshape", "q flat", "q2"), node("Add", "p2 q2", "y")],
    "reshaped comparison": [node("Reshape", "on flat", "on2"), node("Where", "on2 double more", "y")],
    "larger": [node("Max", "p q", "m"), node("Add", "m p", "y")],
    "smaller": [node("Min", "p q", "m"), node("Add", "m q", "y")],
    "larger comparison": [node("Max", "a b", "m"), node("Mul", "m double", "p2"), node("Add", "p2 q", "y")],
    "scattered": [node("ScatterElements", "x places p", "y", axis=1)],
    "scattered comparison": [node("ScatterElements", "x places a", "y", axis=1)],
    "tiled": [node("Tile", "p once", "p2"), node("Add", "p2 q", "y")],
    "compared": [node("Greater", "p q", "c"), node("Where", "c p q", "y")],
    "branch": [node("IsNaN", "x", "c"), node("Where", "c a b", "m"), node("Add", "m x", "y")],
    "repeated": [node("Expand", "p same", "p2"), node("Add", "p2 q", "y")],
}


@pytest.mark.parametrize("name", PASSED)
def test_halves_of_a_choice_are_passed_on(name: str) -> None:
    agrees([*HALVES, *PASSED[name]], (1, 3), {"k": NUMBERS["k"]}, 17)


@pytest.mark.parametrize("name", MISREAD)
def test_nothing_else_reads_half_of_a_choice(name: str) -> None:
    used = {k: v for k, v in SHAPES.items() if k == "k" or any(k in n.input for n in MISREAD[name])}
    kinds = "a comparison of computed values|a value times a comparison"
    refused(model([*HALVES, *MISREAD[name]], (1, 3), used), kinds, UnsupportedOp)


def test_misuse_is_refused_with_its_reason() -> None:
    compare = node("Greater", "x zero", "c")
    zero = {"zero": NUMBERS["zero"]}
    refused(model([compare], (1, 3), zero, "c", dtype=TensorProto.FLOAT), "comparison of computed values")
    negated = [compare, node("Cast", "c", "f", to=1), node("Neg", "f", "y")]
    refused(model(negated, (1, 3), zero), "comparison of computed values", UnsupportedOp)
    both = [compare, node("And", "c c", "d"), node("Where", "d x zero", "y")]
    refused(model(both, (1, 3), zero), "comparison of computed values", UnsupportedOp)
    half = [
        node("Greater", "x k", "c"),
        node("Cast", "c", "f", to=1),
        node("Mul", "f x", "h"),
        node("Add", "h x", "y"),
    ]
    refused(model(half, (1, 3), {"k": NUMBERS["k"]}), "times a comparison", UnsupportedOp)
    places = [node("TopK", "x k", "v i"), node("Add", "v i", "y")]
    refused(model(places, (1, 3), {"k": whole(3)}), "reads 'i'")
    unsorted = [node("TopK", "x k", "y i", sorted=0)]
    refused(model(unsorted, (1, 3), {"k": whole(2)}), "sorted = 0", UnsupportedOp)
    refused(model([node("TopK", "x k", "y i")], (1, 3), {"k": whole(4)}), "k is 4", InvalidModel)
    refused(model([node("Max", "x k", "y")], (1, 3), {"k": whole(4)}), "whole numbers", InvalidModel)
