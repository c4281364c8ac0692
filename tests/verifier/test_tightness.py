"""Propagation tightness: against brute force, closed forms, and the condition under which intervals are exact."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise, product
from math import pi, sqrt

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import convolution, convolutional, linear, mlp, residual
from torch import Tensor

from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import InvalidSpecification, UnsupportedOp
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.arithmetic import Scale, Sub
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import Maximum, ReduceMax
from provenn.verifier.ops.pool import AveragePool
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.sort import Sort
from provenn.verifier.tightness import ELEMENTS, clipped, lossless, tightness

TINY = 1e-6
"""Radius of boxes within which the networks here are linear: far below the distance to their kinks."""


def pooled(pool: Op, seed: int) -> Graph:
    """A convolution of 1 x 3 x 3, pooled, and a linear map."""
    generator = torch.Generator().manual_seed(seed)
    first = convolution(1, 3, 1, generator)
    return sequential((1, 3, 3), [first, Relu(), pool, Reshape((12,)), linear(12, 3, generator)])


def branched(join: Op, seed: int) -> Graph:
    """Two linear maps joined, and one more."""
    generator = torch.Generator().manual_seed(seed)
    ops = [linear(4, 5, generator), linear(4, 5, generator)]
    nodes = [Node("input", None, (), (4,)), *(Node(f"{k}", op, (0,), (5,)) for k, op in enumerate(ops))]
    nodes += [Node("joined", join, (1, 2), (5,)), Node("last", linear(5, 3, generator), (3,), (3,))]
    return Graph(tuple(nodes))


def normalised(seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    scale = Scale(torch.randn(6, generator=generator, dtype=torch.float64), torch.ones(6, dtype=torch.float64))
    return sequential((5,), [linear(5, 6, generator), scale, Relu(), linear(6, 3, generator)])


NETWORKS: dict[str, Callable[[int], Graph]] = {
    "dense": lambda seed: mlp([5, 8, 7, 3], seed),
    "leaky": lambda seed: mlp([4, 6, 6, 3], seed, LeakyRelu(0.1)),
    "absolute": lambda seed: mlp([4, 6, 6, 3], seed, Abs()),
    "clip": lambda seed: mlp([4, 6, 6, 3], seed, Clip(-0.3, 0.4)),
    "sorting": lambda seed: mlp([4, 6, 6, 3], seed, Sort(0, True)),
    "linear": lambda seed: sequential(
        (4,), [op for op in (mlp([4, 6, 5, 3], seed).nodes[i].op for i in (1, 3, 5)) if op]
    ),
    "residual": lambda seed: residual(4, 2, 3, seed),
    "max pool": lambda seed: pooled(MaxPool((2, 2), (1, 1), (0, 0, 0, 0), (1, 1), False), seed),
    "average pool": lambda seed: pooled(AveragePool((2, 2), (1, 1), (0, 0, 0, 0), False, False), seed),
    "maximum": lambda seed: branched(Maximum(), seed),
    "difference": lambda seed: branched(Sub(), seed),
    "normalised": normalised,
    "reduced": lambda seed: sequential(
        (4,), [*(n.op for n in mlp([4, 6, 6], seed).nodes if n.op), ReduceMax((0,), True)]
    ),
}


def boxes(graph: Graph, seed: int) -> tuple[Tensor, Tensor]:
    """A random input and radii of its coordinates, [1, *input]."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((1, *graph.input_shape), generator=generator, dtype=torch.float64)
    return x, 0.1 + torch.rand(x.shape, generator=generator, dtype=torch.float64)


def corners(x: Tensor, radius: Tensor) -> Tensor:
    signs = torch.tensor(list(product((-1.0, 1.0), repeat=x.numel())), dtype=x.dtype)
    return x + signs.reshape(-1, *x.shape[1:]) * radius


def brute_force(graph: Graph, x: Tensor, radius: Tensor, matrix: Tensor | None = None) -> Tensor:
    """In a box in which the network is linear: the range over all corners, over the width of the interval bounds.

    matrix C: of C f, merged with the linear map at the end. What does not move at all has tightness 1.
    """
    small = TINY * radius
    outputs = graph.forward(corners(x, small)).flatten(1)
    bounds = propagate(graph, Interval(x - small, x + small))
    width = (bounds[-1].upper - bounds[-1].lower).flatten()
    if matrix is not None:
        last = graph.nodes[-1]
        assert isinstance(last.op, Linear)
        box = bounds[last.inputs[0]]
        outputs, width = outputs @ matrix.T, (matrix @ last.op.weight).abs() @ (box.upper - box.lower).flatten()
    return ((outputs.amax(0) - outputs.amin(0)) / width).nan_to_num(1.0)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_it_is_what_brute_force_finds(name: str, seed: int) -> None:
    """Within 1e-6: of outputs, of margins, of what is behind every layer."""
    graph = NETWORKS[name](seed)
    x, radius = boxes(graph, seed)
    found = tightness(graph, x, radius, layers=True)
    torch.testing.assert_close(found.outputs[0], brute_force(graph, x, radius), atol=1e-6, rtol=0)
    if isinstance(graph.nodes[-1].op, Linear):
        rows = torch.eye(3, dtype=torch.float64)
        wanted = brute_force(graph, x, radius, rows[[seed, seed]] - rows[[j for j in range(3) if j != seed]])
        margins = tightness(graph, x, radius, torch.tensor([seed])).outputs[0]
        torch.testing.assert_close(margins, wanted, atol=1e-6, rtol=0)
    places = {node.name: place for place, node in enumerate(graph.nodes)}
    for layer in found.layers:
        cut = Graph(graph.nodes[: places[layer.name] + 1])
        torch.testing.assert_close(layer.tightness[0], brute_force(cut, x, radius), atol=1e-6, rtol=0)


@given(st.sampled_from(sorted(NETWORKS)), st.integers(0, 2**32 - 1))
def test_it_is_a_share_and_no_function_of_the_scale(name: str, seed: int) -> None:
    graph = NETWORKS[name](seed % 1000)
    x, radius = boxes(graph, seed)
    found = tightness(graph, x, radius, layers=True)
    for part in (found.outputs, *(layer.tightness for layer in found.layers)):
        assert bool((part > 0).all())
        assert float(part.max()) <= 1 + 1e-12
    torch.testing.assert_close(tightness(graph, x, 7 * radius).outputs, found.outputs)
    assert abs(found.mean - float(found.outputs.mean())) < 1e-15


def test_a_batch_is_its_inputs_one_by_one() -> None:
    graph = convolutional(0, skip=True)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((3, *graph.input_shape), generator=generator, dtype=torch.float64)
    radius = clipped(x, 0.2, (0.0, 1.0))
    assert bool((radius < 0.2).any())
    labels = torch.tensor([2, 0, 1])
    together = tightness(graph, x, radius, labels, layers=True)
    for k in range(3):
        alone = tightness(graph, x[k : k + 1], radius[k : k + 1], labels[k : k + 1], layers=True)
        torch.testing.assert_close(alone.outputs[0], together.outputs[k])
        for one, all_ in zip(alone.layers, together.layers, strict=True):
            torch.testing.assert_close(one.tightness[0], all_.tightness[k])
    assert [layer.op for layer in together.layers] == ["Conv", "Conv", "Conv", "Add", "Linear"]
    assert together.layers[0].mean == pytest.approx(1.0)


def test_many_inputs_are_measured_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = mlp([4, 6, 3], 0)
    x = torch.randn(7, 4, dtype=torch.float64)
    whole = tightness(graph, x, torch.ones_like(x), layers=True)
    monkeypatch.setattr("provenn.verifier.tightness.ELEMENTS", 40)
    assert ELEMENTS > 40
    parts = tightness(graph, x, torch.ones_like(x), layers=True)
    torch.testing.assert_close(parts.outputs, whole.outputs)
    torch.testing.assert_close(parts.layers[1].tightness, whole.layers[1].tightness)


def deep_linear(weights: list[Tensor]) -> Graph:
    zeros = [weight.new_zeros(len(weight)) for weight in weights]
    return sequential((weights[0].shape[1],), [Linear(w, b) for w, b in zip(weights, zeros, strict=True)])


def gaussian(widths: list[int], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, a, generator=generator, dtype=torch.float64) for a, b in pairwise(widths)]


def of_linear(weights: list[Tensor]) -> float:
    ones = torch.ones(1, weights[0].shape[1], dtype=torch.float64)
    return tightness(deep_linear(weights), torch.zeros_like(ones), ones).mean


@pytest.mark.parametrize(("width", "error"), [(16, 0.03), (64, 0.02), (256, 0.01)])
def test_two_gaussian_layers_have_the_closed_form(width: int, error: float) -> None:
    """E |N(0, d)| = sqrt(2 d / pi) above, d (E |N(0, 1)|)^2 = 2 d / pi below: the ratio is sqrt(pi / (2 d))."""
    found = sum(of_linear(gaussian([width] * 3, seed)) for seed in range(3)) / 3
    assert found == pytest.approx(sqrt(pi / (2 * width)), rel=error)


def test_it_falls_with_width_and_depth_by_that_factor() -> None:
    """Every further layer multiplies by it, as long as the sum over the inputs is one of the numbers' magnitudes."""
    wide = [of_linear(gaussian([width] * 4, 0)) for width in (8, 32, 128)]
    deep = [of_linear(gaussian([64] * depth, 0)) for depth in (2, 3, 4, 5)]
    assert wide == sorted(wide, reverse=True)
    assert deep[0] == pytest.approx(1.0)
    for less, more in pairwise(deep):
        assert more / less == pytest.approx(sqrt(pi / 128), rel=0.06)


def test_closed_forms_on_constructed_weights() -> None:
    """(1, 1) behind (1, -1): |1 - 1| / 2. A pair in which one of two paths has half the weight: (1 - 1/2) / (3/2)."""
    up = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    ones, half = torch.tensor([[1.0, 1.0]]).double(), torch.tensor([[1.0, 0.5]]).double()
    assert of_linear([up, ones]) == pytest.approx(1e-8 / 2)  # both paths cancel: the floor that divides
    assert of_linear([up, half]) == pytest.approx(1 / 3, abs=1e-15)
    assert of_linear([up, -half, torch.tensor([[-3.0]]).double()]) == pytest.approx(1 / 3, abs=1e-15)
    assert of_linear([up.abs(), half]) == 1.0
    # A rotation by 45 degrees, twice: |R R| (1, 1) = (1, 1), |R| |R| (1, 1) = (2, 2).
    turn = torch.tensor([[1.0, -1.0], [1.0, 1.0]], dtype=torch.float64) / sqrt(2)
    assert of_linear([turn, turn]) == pytest.approx(0.5, abs=1e-15)


signs = st.sampled_from((-2.0, -1.0, 0.0, 1.0, 2.0))


@st.composite
def chains(draw: st.DrawFn) -> list[Tensor]:
    """Small whole weights: products and sums of them are exact."""
    widths = draw(st.lists(st.integers(1, 3), min_size=3, max_size=4))
    rows = [draw(st.lists(signs, min_size=a * b, max_size=a * b)) for a, b in pairwise(widths)]
    pairs = zip(rows, pairwise(widths), strict=True)
    return [torch.tensor(row, dtype=torch.float64).reshape(b, a) for row, (a, b) in pairs]


@given(chains())
def test_the_sign_condition_is_necessary_and_sufficient(weights: list[Tensor]) -> None:
    """Exactly: |W_L .. W_1| = |W_L| .. |W_1| as matrices, entry by entry, if and only if no two paths disagree."""
    whole, layered = weights[0], weights[0].abs()
    for weight in weights[1:]:
        whole, layered = weight @ whole, weight.abs() @ layered
    assert lossless(weights) == torch.equal(whole.abs(), layered)
    if lossless(weights):
        assert of_linear(weights) == 1.0


def test_of_two_layers_the_condition_is_on_products_of_signs() -> None:
    """Signs a_i b_j and b_j c_k: of rank one, and any sizes; one wrong sign breaks it."""
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randint(0, 2, (n,), generator=generator) * 2.0 - 1 for n in (3, 5, 4))
    sizes = [torch.rand(shape, generator=generator).double() + 0.1 for shape in ((5, 4), (3, 5))]
    weights = [sizes[0] * torch.outer(b, c), sizes[1] * torch.outer(a, b)]
    assert lossless(weights)
    assert of_linear(weights) == pytest.approx(1.0, abs=1e-15)
    weights[0][2, 1] *= -1
    assert not lossless(weights)
    assert of_linear(weights) < 1


def test_relus_are_active_at_their_kink_and_dead_networks_are_exact() -> None:
    identity = Linear(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    turn = Linear(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), torch.zeros(2, dtype=torch.float64))
    graph = sequential((2,), [turn, Relu(), turn])
    zero, one = torch.zeros(1, 2, dtype=torch.float64), torch.ones(1, 2, dtype=torch.float64)
    assert tightness(graph, zero, one).outputs.tolist() == [[0.5, 0.5]]  # the whole map: 2 x, intervals: 4 r
    dead = sequential((2,), [identity, Relu(), turn])
    assert tightness(dead, -one, one).outputs.tolist() == [[1.0, 1.0]]


def test_what_has_no_active_linear_map_is_refused() -> None:
    graph = mlp([2, 3, 2], 0, Sigmoid())
    x = torch.zeros(1, 2, dtype=torch.float64)
    with pytest.raises(UnsupportedOp, match="Sigmoid"):
        tightness(graph, x, x + 1)
    with pytest.raises(InvalidSpecification, match="0 to 1"):
        tightness(mlp([2, 3, 2], 0), x, x + 1, torch.tensor([2]))
    with pytest.raises(InvalidSpecification, match="one output"):
        tightness(mlp([2, 3, 1], 0), x, x + 1, torch.tensor([0]))
