"""Pairs of inputs that bound a Lipschitz constant from below: real, inside the region, and as good as known optima."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convolutional, mlp, residual, samples
from torch import Tensor

from provenn.solvers.lipsdp.searched import Found, Measure, searched
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sort import Sort
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Constraints, Region

NORMS = [("2", "2"), ("inf", "2"), ("inf", "inf"), ("inf", "1"), ("2", "inf"), ("2", "1")]
ORDERS = {"1": 1, "2": 2, "inf": math.inf}


def found(graph: Graph, measure: Measure, region: Region | None = None, seed: int = 0, rounds: int = 2) -> Found:
    """A search that rounds end, not time."""
    return searched(graph, measure, region, 1e9, seed, rounds)


def every(graph: Graph) -> Tensor:
    return torch.eye(torch.Size(graph.output_shape).numel(), dtype=torch.float64)


def quotient(graph: Graph, measure: Measure, pair: Found) -> float:
    first, second = graph.forward(torch.stack([pair.first, pair.second])).flatten(1)
    apart = (pair.first - pair.second).flatten() * (1 if measure.scale is None else measure.scale)
    above = torch.linalg.vector_norm(measure.rows @ (first - second), ord=ORDERS[measure.outputs])
    return float(above / torch.linalg.vector_norm(apart, ord=ORDERS[measure.inputs]))


def linear(outputs: int, inputs: int, seed: int) -> Linear:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((outputs, inputs), generator=generator, dtype=torch.float64)
    return Linear(weight, torch.randn(outputs, generator=generator, dtype=torch.float64))


def exact(weight: Tensor, inputs: str, outputs: str) -> float:
    """The operator norm, by corners of the unit ball of l_inf or of the dual of the outputs' norm."""
    if (inputs, outputs) == ("2", "2"):
        return float(torch.linalg.matrix_norm(weight, 2))
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * weight.shape[inputs == "inf"])
    if inputs == "inf":
        return float(torch.linalg.vector_norm(signs @ weight.T, ord=ORDERS[outputs], dim=1).max())
    rows = weight if outputs == "inf" else signs @ weight
    return float(torch.linalg.vector_norm(rows, dim=1).max())


@pytest.mark.parametrize(("inputs", "outputs"), NORMS)
def test_operator_norms_of_linear_maps(inputs: str, outputs: str) -> None:
    op = linear(4, 6, 3)
    graph = sequential((6,), [op])
    pair = found(graph, Measure(every(graph), inputs, outputs))
    expected = exact(op.weight, inputs, outputs)
    assert expected * (1 - 1e-6) <= pair.value <= expected


GRAPHS = {
    "relu": lambda seed: mlp([3, 8, 6, 2], seed),
    "tanh": lambda seed: mlp([3, 8, 6, 2], seed, Tanh()),
    "residual": lambda seed: residual(3, 2, 2, seed),
    "sorted": lambda seed: sequential((3,), [linear(6, 3, seed), Sort(0, True), linear(2, 6, seed + 1)]),
    "implicit": lambda seed: sequential(
        (3,), [linear(5, 3, seed), Implicit(contraction(5, seed), Relu()), linear(2, 5, seed)]
    ),
}


def contraction(size: int, seed: int) -> Tensor:
    weight = linear(size, size, seed + 7).weight
    return 0.8 * weight / torch.linalg.matrix_norm(weight, 2)


@given(st.sampled_from(sorted(GRAPHS)), st.sampled_from(NORMS), st.integers(0, 10_000))
@settings(max_examples=4, deadline=None)
def test_the_value_is_that_of_the_pair_and_above_samples(kind: str, norms: tuple[str, str], seed: int) -> None:
    graph = GRAPHS[kind](seed)
    scale = torch.tensor([0.5, 1.0, 3.0], dtype=torch.float64)
    measure = Measure(every(graph), *norms, scale)
    pair = found(graph, measure, None, seed, 1)
    real = quotient(graph, measure, pair)
    assert real * (1 - 1e-6) <= pair.value <= real
    generator = torch.Generator().manual_seed(seed)
    for _ in range(20):
        x = 2 * torch.randn((2, 3), generator=generator, dtype=torch.float64)
        assert pair.value >= quotient(graph, measure, Found(0, x[0], x[1]))


def test_the_same_seed_finds_the_same_pair() -> None:
    graph = mlp([4, 10, 10, 3], 1)
    measure = Measure(every(graph))
    once, again, other = (found(graph, measure, None, seed) for seed in (5, 5, 6))
    assert once.value == again.value and torch.equal(once.first, again.first) and torch.equal(once.second, again.second)
    assert not torch.equal(once.first, other.first)


def test_time_ends_the_search_with_a_pair() -> None:
    graph = mlp([4, 10, 10, 3], 1)
    pair = searched(graph, Measure(every(graph)), seconds=0.0)
    assert 0 < pair.value <= quotient(graph, Measure(every(graph)), pair)


def test_a_hidden_piece_is_found() -> None:
    """Slopes 1 nearly everywhere, and 9 between 3 and 3.01: x + 8 relu(x - 3) - 8 relu(x - 3.01)."""
    hinges = Linear(torch.ones((3, 1), dtype=torch.float64), torch.tensor([100.0, -3, -3.01], dtype=torch.float64))
    joined = Linear(torch.tensor([[1.0, 8, -8]], dtype=torch.float64), torch.zeros(1, dtype=torch.float64))
    graph = sequential((1,), [hinges, Relu(), joined])
    assert found(graph, Measure(every(graph))).value == pytest.approx(9, rel=1e-6)


def boxed(centre: Tensor, radius: float) -> Region:
    return Region(Interval(centre[None] - radius, centre[None] + radius))


@given(st.integers(0, 10_000), st.sampled_from(["box", "ball", "diamond", "flat", "cut"]), st.sampled_from(NORMS))
@settings(max_examples=4, deadline=None)
def test_both_inputs_lie_in_the_region(seed: int, kind: str, norms: tuple[str, str]) -> None:
    graph = mlp([4, 9, 9, 3], seed)
    centre = torch.randn(4, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    region, radius = boxed(centre, 0.3), torch.tensor([0.2], dtype=torch.float64)
    if kind in ("ball", "diamond"):
        # The ball's centre lies outside of the box in one coordinate.
        aside = centre + torch.tensor([0.35, 0, 0, 0], dtype=torch.float64)
        region = Region(region.box, aside[None], radius, 2.0 if kind == "ball" else 1.0)
    if kind == "flat":
        region = Region(
            Interval(
                region.box.lower.index_copy(1, torch.tensor([2]), centre[None, 2:3]),
                region.box.upper.index_copy(1, torch.tensor([2]), centre[None, 2:3]),
            )
        )
    if kind == "cut":
        row = torch.tensor([[[1.0, 1, 0, 0]]], dtype=torch.float64)
        region = Region(region.box, constraints=Constraints(row, (row[0] @ centre).reshape(1, 1) - 0.2))
    measure = Measure(every(graph), *norms)
    pair = found(graph, measure, region, seed, 1)
    for x in (pair.first, pair.second):
        assert bool(((x >= region.box.lower[0]) & (x <= region.box.upper[0])).all())
        if region.centre is not None:
            assert float(torch.linalg.vector_norm(x - region.centre[0], ord=region.norm)) <= 0.2
        if region.constraints is not None:
            assert float(region.constraints.matrix[0, 0] @ x) <= float(region.constraints.bound[0, 0])
    assert 0 < pair.value <= quotient(graph, measure, pair)
    if kind == "box":
        points = samples(region, 60, seed)[:, 0]
        for x, y in zip(points[::2], points[1::2], strict=True):
            assert torch.equal(x, y) or pair.value >= quotient(graph, measure, Found(0, x, y))


def test_a_local_constant_is_not_above_the_global_one() -> None:
    graph = mlp([2, 12, 12, 1], 3)
    measure = Measure(every(graph), "inf", "inf")
    near = found(graph, measure, boxed(torch.zeros(2, dtype=torch.float64), 1e-3)).value
    around = found(graph, measure, boxed(torch.zeros(2, dtype=torch.float64), 10.0)).value
    # In a small box hardly any neuron switches: the Jacobian at the centre is nearly all there is.
    x = torch.zeros((1, 2), dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.grad(graph.forward(x).sum(), x)[0]
    assert near >= float(jacobian.abs().sum()) * (1 - 1e-6)
    assert around >= near


def test_a_constant_network_has_the_value_zero() -> None:
    graph = sequential((3,), [Scale(torch.zeros(3).double(), torch.full((3,), 0.1).double())])
    assert found(graph, Measure(every(graph))).value == 0


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e6, 1e12])
def test_scales_of_the_weights_do_not_matter(size: float) -> None:
    first, last = linear(6, 3, 0), linear(2, 6, 1)
    plain = sequential((3,), [Linear(first.weight, 0 * first.bias), Relu(), last])
    scaled = sequential((3,), [Linear(size * first.weight, 0 * first.bias), Relu(), last])
    value = found(plain, Measure(every(plain))).value
    assert found(scaled, Measure(every(plain))).value == pytest.approx(size * value, rel=1e-3)


def test_rounding_is_not_taken_for_a_slope() -> None:
    """(x + 2^40) - 2^40: steps of 2^-13 under a magnifying glass, but a constant of 1."""
    large = torch.full((1,), 2.0**40, dtype=torch.float64)
    one = torch.ones((1, 1), dtype=torch.float64)
    graph = sequential((1,), [Linear(one, large), Linear(one, -large)])
    small = boxed(torch.full((1,), 0.3, dtype=torch.float64), 2.0**-12)
    assert found(graph, Measure(every(graph)), small).value <= 1
    wide = boxed(torch.zeros(1, dtype=torch.float64), 100.0)
    assert 0.99 < found(graph, Measure(every(graph)), wide).value <= 1


def test_directions_do_not_vanish_in_a_deep_network() -> None:
    blocks = [linear(5, 5, seed) for seed in range(25)]
    layers = [part for op in blocks for part in (Linear(1e-5 * op.weight, 0 * op.bias), LeakyRelu(0.1))]
    graph = sequential((5,), layers[:-1])
    pair = found(graph, Measure(every(graph)))
    assert 0 < pair.value <= quotient(graph, Measure(every(graph)), pair)


def test_single_precision_and_several_regions_are_refused() -> None:
    graph = mlp([2, 3, 1], 0)
    with pytest.raises(InvalidSpecification, match="float64"):
        searched(graph.to("cpu", torch.float32), Measure(every(graph)))
    twice = torch.zeros((2, 2), dtype=torch.float64)
    with pytest.raises(InvalidSpecification, match="one region"):
        searched(graph, Measure(every(graph)), Region(Interval(twice - 1, twice + 1)))


def test_windows_and_convolutions() -> None:
    graph = convolutional(0, True)
    measure = Measure(every(graph)[:1], "inf", "inf")
    pair = found(graph, measure, None, 0, 1)
    assert 0 < pair.value <= quotient(graph, measure, pair)
    assert np.isfinite(pair.value) and pair.first.shape == (2, 12, 12)
