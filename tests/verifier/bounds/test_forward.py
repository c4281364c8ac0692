"""Forward mode never cuts off a reachable value, is exact where the network is affine, and falls back to intervals."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import box, mlp, regions, residual, samples
from random_graphs import all_values, random_graph
from table import AFFINE, CASES, Case
from torch import Tensor

from provenn.verifier.bounds import forward as mode
from provenn.verifier.bounds.backward import crown_ibp
from provenn.verifier.bounds.forward import forward, forward_backward, forward_lower
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.errors import InvalidBounds
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops import base
from provenn.verifier.ops.base import Affine, Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.form import scale
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Constraints, Region

RADII = [0.0, 1e-12, 1e-3, 0.1, 1.0, 1e6]


def convolutional(seed: int, pooled: bool) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((4, 2, 3, 3), generator=generator, dtype=torch.float64) / 4
    bias = torch.randn(4, generator=generator, dtype=torch.float64)
    last = torch.randn((3, 16), generator=generator, dtype=torch.float64) / 4
    conv = Conv(weight, bias, (2, 2), (1, 1, 1, 1), (1, 1), 1)
    ops: list[Op] = [conv, Relu()]
    if pooled:
        same = torch.randn((4, 4, 3, 3), generator=generator, dtype=torch.float64) / 6
        ops += [Conv(same, bias, (1, 1), (1, 1, 1, 1), (1, 1), 1)]
        ops += [MaxPool((2, 2), (1, 1), (0, 0, 1, 1), (1, 1), False)]
    return sequential((2, 4, 4), [*ops, Reshape((16,)), Linear(last, bias[:3])])


def graphs() -> st.SearchStrategy[Callable[[], Graph]]:
    """Networks yet to be made: the checks of types that run with the tests are random, which strategies may not be."""
    seeds = st.integers(0, 10_000)
    widths = st.lists(st.integers(1, 7), min_size=2, max_size=5)
    activations = st.sampled_from([Relu(), Tanh(), Sigmoid()])
    sizes = st.integers(1, 5), st.integers(1, 3), st.integers(1, 4)
    return st.one_of(
        st.builds(partial, st.just(mlp), widths, seeds, activations),
        st.builds(partial, st.just(residual), *sizes, seeds),
        st.builds(partial, st.just(convolutional), seeds, st.booleans()),
    )


def rows(graph: Graph, batch: int, seed: int = 0) -> Tensor:
    size = (4, batch, torch.Size(graph.output_shape).numel())
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def largest(bounds: list[Interval]) -> float:
    return max(float(torch.maximum(b.lower.abs(), b.upper.abs()).max()) for b in bounds)


@settings(max_examples=20, deadline=None)
@given(graphs(), st.sampled_from(RADII), st.integers(0, 1000), st.sampled_from([None, 2.0, 1.0]))
def test_no_sampled_value_lies_outside(make: Callable[[], Graph], radius: float, seed: int, norm: float | None) -> None:
    graph = make()
    region, matrix = regions(graph, radius, seed, norm), rows(graph, 2, seed)
    bounds, points = forward(graph, region), samples(region, 400, seed)
    slack = 1e-10 * (1 + largest(propagate(graph, region.box)))
    values = [v.reshape(*points.shape[:2], *v.shape[1:]) for v in all_values(graph, points.flatten(0, 1))]
    for value, bound in zip(values, bounds, strict=True):
        assert (value >= bound.lower - slack).all()
        assert (value <= bound.upper + slack).all()
    reached = torch.einsum("sbo,nbo->nsb", matrix, values[-1].flatten(2)).amin(0)
    for lower in (forward_lower(graph, region, matrix), forward_backward(graph, region).output_lower(matrix)):
        assert (lower <= reached + slack * matrix.abs().sum(2)).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**30), st.sampled_from(RADII), st.sampled_from(CASES))
def test_bounds_hold_in_deep_networks_of_all_ops(seed: int, radius: float, case: Case) -> None:
    graph = random_graph(seed, 6, [case])
    region = regions(graph, radius, seed, batch=1)
    try:
        interval = propagate(graph, region.box)
        bounds = forward(graph, region)
    except InvalidBounds:
        assert radius > 1
        return
    slack = 1e-10 * (1 + largest(interval))
    for value, bound in zip(all_values(graph, samples(region, 1000, seed)[:, 0]), bounds, strict=True):
        assert (value >= bound.lower - slack).all()
        assert (value <= bound.upper + slack).all()


@settings(max_examples=30, deadline=None)
@given(graphs(), st.integers(0, 1000), st.sampled_from([1e-3, 0.3, 3.0]))
def test_never_looser_than_interval_bounds(make: Callable[[], Graph], seed: int, radius: float) -> None:
    graph = make()
    region, matrix = regions(graph, radius, seed), rows(graph, 2)
    interval = propagate(graph, region.box)
    for ours, theirs in zip(forward(graph, region), interval, strict=True):
        assert (ours.lower >= theirs.lower - 1e-12).all()
        assert (ours.upper <= theirs.upper + 1e-12).all()
    least = output_lower(graph, interval, matrix) - 1e-12
    assert (forward_lower(graph, region, matrix) >= least).all()
    assert (forward_backward(graph, region).output_lower(matrix) >= least).all()


@pytest.mark.parametrize("norm", [None, 2.0, 1.0])
def test_an_affine_network_is_bounded_exactly(norm: float | None) -> None:
    graph = sequential((5,), [n.op for n in mlp([5, 7, 6, 3], 4).nodes if isinstance(n.op, Linear)])
    region, matrix = regions(graph, 0.7, 0, norm, batch=3), rows(graph, 3)
    zero = graph.forward(torch.zeros((1, 5), dtype=torch.float64))
    jacobian = (graph.forward(torch.eye(5, dtype=torch.float64)) - zero).T
    exact = region.concretize(matrix @ jacobian) + matrix @ zero[0]
    torch.testing.assert_close(forward_lower(graph, region, matrix), exact)
    eye = torch.eye(3, dtype=torch.float64).unsqueeze(1).expand(-1, 3, -1)
    lower = region.concretize(eye @ jacobian) + zero[0].unsqueeze(1)
    torch.testing.assert_close(forward(graph, region)[-1].lower, lower.T)


def test_constraints_over_several_inputs_are_used() -> None:
    graph = sequential((2,), [Linear(torch.ones((1, 2)).double(), torch.zeros(1).double()), Relu()])
    square = box(torch.zeros((1, 2), dtype=torch.float64), 1.0).box
    half = Constraints(-torch.ones((1, 1, 2), dtype=torch.float64), torch.full((1, 1), -0.5, dtype=torch.float64))
    assert forward(graph, Region(square))[1].lower.item() == pytest.approx(-2)
    assert forward(graph, Region(square, constraints=half))[1].lower.item() == pytest.approx(0.5, abs=1e-6)


@settings(max_examples=12, deadline=None)
@given(graphs(), st.integers(0, 1000), st.sampled_from([0.01, 0.5]))
def test_batch_equals_loop_in_any_chunks(make: Callable[[], Graph], seed: int, radius: float) -> None:
    graph = make()
    region, matrix = regions(graph, radius, seed, batch=3), rows(graph, 3)
    together = forward_lower(graph, region, matrix)
    torch.testing.assert_close(forward_lower(graph, region, matrix, memory=1e-6), together, rtol=1e-9, atol=1e-12)
    both = forward_backward(graph, region).output_lower(matrix)
    chunked = forward_backward(graph, region, memory=1e-6).output_lower(matrix)
    torch.testing.assert_close(chunked, both, rtol=1e-9, atol=1e-12)
    for b in range(3):
        some = slice(b, b + 1)
        alone = forward_lower(graph, region.select(some), matrix[:, some])
        torch.testing.assert_close(alone, together[:, some], rtol=1e-9, atol=1e-12)


def test_forward_backward_gains_on_crown_ibp() -> None:
    graph = mlp([4, 30, 30, 30, 3], 1)
    region, matrix = regions(graph, 0.2, 0, batch=5), rows(graph, 5)
    better = forward_backward(graph, region).output_lower(matrix)
    assert (better > crown_ibp(graph, region).output_lower(matrix)).double().mean() > 0.9


def test_what_takes_too_much_room_starts_again_from_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(4, 2, 3, 0)
    region, matrix = regions(graph, 0.3, 0), rows(graph, 2)
    gained = forward_lower(graph, region, matrix)
    monkeypatch.setattr(mode, "LARGEST", 0.0)
    least = output_lower(graph, propagate(graph, region.box), matrix)
    torch.testing.assert_close(forward_lower(graph, region, matrix), least)
    assert (gained > least + 1e-3).any()


def test_ops_of_several_cells_gain_while_they_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = convolutional(3, pooled=True)
    region, matrix = regions(graph, 0.05, 0), rows(graph, 2)
    gained = forward_lower(graph, region, matrix)
    monkeypatch.setattr(base, "LARGEST_ROWS", 0)
    restarted = forward_lower(graph, region, matrix)
    assert (gained > restarted + 1e-3).any()
    points = samples(region, 500)
    outputs = graph.forward(points.flatten(0, 1)).reshape(*points.shape[:2], -1)
    assert (restarted <= torch.einsum("sbo,nbo->nsb", matrix, outputs).amin(0) + 1e-10).all()


@pytest.mark.parametrize("case", AFFINE, ids=lambda case: case.name)
def test_magnitudes_are_linear(case: Case) -> None:
    """Forms pull coefficients of any sign through them."""
    assert isinstance(case.op, Affine)
    x, y = case.inputs(3, 0), case.inputs(3, 1)
    whole = case.op.magnitude(*(a - 2 * b for a, b in zip(x, y, strict=True)))
    parts = case.op.magnitude(*x) - 2 * case.op.magnitude(*y)
    torch.testing.assert_close(whole, parts, rtol=1e-11, atol=1e-11)


def test_a_large_offset_costs_the_coefficients_no_digits() -> None:
    weight = torch.randn((8, 5), generator=torch.Generator().manual_seed(0)) * 1e-6
    point = torch.zeros((1, 5))
    form = Linear(weight, torch.full((8,), 1e4)).push([mode.identity(point)], [Interval(point, point)])
    assert form is not None
    assert form.radius is None
    torch.testing.assert_close(form.middle[:-1, 0].T / scale(torch.float32), weight, rtol=1e-6, atol=0)
    assert (form.middle[-1] == 1e4).all()


def test_float32_agrees_with_float64() -> None:
    graph = mlp([10, 30, 30, 5], 7)
    region, matrix = box(torch.zeros((2, 10), dtype=torch.float64), 0.2), rows(mlp([1, 5], 0), 2)
    single = Region(Interval(region.box.lower.float(), region.box.upper.float()))
    lower = forward_lower(graph.to("cpu", torch.float32), single, matrix.float())
    torch.testing.assert_close(lower.double(), forward_lower(graph, region, matrix), rtol=1e-4, atol=1e-5)


def test_forms_that_overflow_leave_the_interval() -> None:
    graph = sequential((2,), [Linear(torch.full((2, 2), 1e15).double(), torch.zeros(2).double())] * 2 + [Relu()])
    region = box(torch.zeros((1, 2), dtype=torch.float64), 1e-6)
    single = Region(Interval(region.box.lower.float(), region.box.upper.float()))
    bounds = forward(graph.to("cpu", torch.float32), single)
    assert bounds[-1].upper.max() >= 1e24
    assert all(b.lower.isfinite().all() and b.upper.isfinite().all() for b in bounds)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bound_that_is_not_finite_is_refused(value: float) -> None:
    graph = mlp([2, 3, 1], 0)
    bad = torch.tensor([[0.0, value]], dtype=torch.float64)
    with pytest.raises(InvalidBounds):
        forward(graph, Region(Interval(bad, bad)))
    with pytest.raises(InvalidBounds):
        forward_lower(graph, Region(Interval(bad, bad)), rows(graph, 1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    graph, centre = convolutional(2, pooled=True), torch.zeros((8, 2, 4, 4), dtype=torch.float64)
    matrix = rows(graph, 8)
    lower = forward_lower(graph.to("cuda", torch.float64), box(centre.cuda(), 0.2), matrix.cuda())
    torch.testing.assert_close(lower.cpu(), forward_lower(graph, box(centre, 0.2), matrix))
