"""IBP and CROWN never cut off a reachable value, and keep the identities that bounds must keep."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import box, mlp, regions, residual, samples
from torch import Tensor

from provenn.verifier.bounds.backward import Relaxed, crown, crown_ibp
from provenn.verifier.bounds.forward import forward_lower
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.bounds.schedule import ROUNDING, Chunk
from provenn.verifier.bounds.slopes import alpha_crown, optimised_lower
from provenn.verifier.errors import InvalidBounds, Unbounded
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

RADII = [0.0, 1e-12, 1e-3, 0.1, 1.0, 1e6]


def graphs() -> st.SearchStrategy[Graph]:
    seeds = st.integers(0, 10_000)
    widths = st.lists(st.integers(1, 7), min_size=2, max_size=5)
    chains = st.builds(mlp, widths, seeds, st.sampled_from([Relu(), Tanh(), Sigmoid()]))
    return st.one_of(chains, st.builds(residual, st.integers(1, 5), st.integers(1, 3), st.integers(1, 4), seeds))


def outputs_of(graph: Graph, points: Tensor) -> Tensor:
    return graph.forward(points.flatten(0, 1)).reshape(*points.shape[:2], -1)


@settings(max_examples=20, deadline=None)
@given(graphs(), st.sampled_from(RADII), st.integers(0, 1000), st.sampled_from([None, 2.0, 1.0]))
def test_no_sampled_output_lies_outside(graph: Graph, radius: float, seed: int, norm: float | None) -> None:
    region = regions(graph, radius, seed, norm)
    matrix = torch.randn((4, 2, graph.output_shape[0]), generator=torch.Generator().manual_seed(seed)).double()
    outputs = outputs_of(graph, samples(region, 600, seed))
    values = torch.einsum("sbo,nbo->nsb", matrix, outputs)
    slack = 1e-11 * (1 + values.abs().amax(0) + radius)
    interval = propagate(graph, region.box)
    for relaxed in (crown(graph, region), crown_ibp(graph, region)):
        assert (relaxed.output_lower(matrix) <= values.amin(0) + slack).all()
    assert (interval[-1].lower <= outputs.amin(0) + slack.amax()).all()
    assert (interval[-1].upper >= outputs.amax(0) - slack.amax()).all()


@settings(max_examples=20, deadline=None)
@given(graphs(), st.sampled_from(RADII[:5]), st.integers(0, 1000))
def test_intermediate_bounds_hold_at_every_node(graph: Graph, radius: float, seed: int) -> None:
    region = regions(graph, radius, seed, None)
    bounds = crown(graph, region).bounds
    points = samples(region, 300, seed)
    values = [points.flatten(0, 1)]
    for node in graph.nodes[1:]:
        assert node.op is not None
        values.append(node.op.forward(*(values[i] for i in node.inputs)))
    for value, bound in zip(values, bounds, strict=True):
        seen = value.reshape(*points.shape[:2], *value.shape[1:])
        assert (seen >= bound.lower - 1e-10).all()
        assert (seen <= bound.upper + 1e-10).all()


@settings(max_examples=30, deadline=None)
@given(graphs(), st.integers(0, 1000), st.sampled_from([0.01, 0.5]))
def test_crown_is_never_looser_than_interval_and_batch_equals_loop(graph: Graph, seed: int, radius: float) -> None:
    region = regions(graph, radius, seed, None, batch=3)
    matrix = torch.eye(graph.output_shape[0], dtype=torch.float64).unsqueeze(1).expand(-1, 3, -1)
    together = crown(graph, region).output_lower(matrix)
    assert (together >= propagate(graph, region.box)[-1].lower.T - 1e-12).all()
    for b in range(3):
        alone = crown(graph, region.select(slice(b, b + 1))).output_lower(matrix[:, b : b + 1])
        torch.testing.assert_close(alone[:, 0], together[:, b], rtol=1e-9, atol=1e-12)


def test_a_smaller_box_is_never_looser_for_interval_bounds() -> None:
    graph = mlp([5, 8, 8, 3], 1)
    centre = torch.randn((4, 5), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wide, narrow = propagate(graph, box(centre, 0.3).box)[-1], propagate(graph, box(centre, 0.2).box)[-1]
    assert (narrow.lower >= wide.lower).all()
    assert (narrow.upper <= wide.upper).all()


def test_rows_are_the_same_in_any_chunks() -> None:
    graph, centre = mlp([6, 20, 20, 4], 3), torch.zeros((2, 6), dtype=torch.float64)
    matrix = torch.eye(4, dtype=torch.float64).unsqueeze(1).expand(-1, 2, -1)
    whole = crown(graph, box(centre, 0.5)).output_lower(matrix)
    chunked = crown(graph, box(centre, 0.5), memory=1e-3).output_lower(matrix, memory=1e-3)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)


def test_permuted_neurons_and_a_split_affine_map_change_nothing() -> None:
    graph, order = mlp([4, 6, 3], 5), torch.tensor([3, 1, 5, 0, 4, 2])
    first, last = graph.nodes[1].op, graph.nodes[3].op
    assert isinstance(first, Linear)
    assert isinstance(last, Linear)
    zero, eye = torch.zeros(6, dtype=torch.float64), torch.eye(6, dtype=torch.float64)
    permuted = [Linear(first.weight[order], first.bias[order]), Relu(), Linear(last.weight[:, order], last.bias)]
    split = [Linear(first.weight, zero), Linear(eye, first.bias), Relu(), last]
    region = box(torch.zeros((1, 4), dtype=torch.float64), 0.7)
    matrix = torch.eye(3, dtype=torch.float64).unsqueeze(1)
    expected = crown(graph, region).output_lower(matrix)
    for ops in (permuted, split):
        torch.testing.assert_close(crown(sequential((4,), ops), region).output_lower(matrix), expected)


def test_a_point_is_bounded_by_its_own_value() -> None:
    graph = mlp([4, 9, 9, 2], 2)
    point = torch.randn((1, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    matrix = torch.eye(2, dtype=torch.float64).unsqueeze(1)
    lower = crown(graph, box(point, 0.0)).output_lower(matrix)
    torch.testing.assert_close(lower[:, 0], graph.forward(point)[0])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_bound_that_is_not_finite_is_refused(value: float) -> None:
    graph = mlp([2, 3, 1], 0)
    bad = torch.tensor([[0.0, value]], dtype=torch.float64)
    with pytest.raises(InvalidBounds, match="input"):
        propagate(graph, Interval(bad, bad))
    with pytest.raises(InvalidBounds):
        crown(graph, Region(Interval(bad, bad)))


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 2e19), (torch.float64, 1.5e154)])
def test_coefficients_that_overflow_bound_nothing(dtype: torch.dtype, size: float) -> None:
    """All values are small and finite, but the rows' coefficients are infinite: that must not look like a bound."""
    one, zeros = torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    last = Linear(torch.tensor([[1.0, -0.75]], dtype=torch.float64) * size, zeros[:1])
    for middle in ([Relu()], []):
        graph = sequential((2,), [Linear(one * size, zeros), *middle, last]).to("cpu", dtype)
        lower = torch.tensor([[1e-10, 2e-10]], dtype=dtype)
        region, matrix = Region(Interval(lower, lower * 1.0001)), torch.ones(1, 1, 1, dtype=dtype)
        true = float(graph.forward(lower))
        found = {
            "ibp": output_lower(graph, propagate(graph, region.box), matrix),
            "crown": crown(graph, region).output_lower(matrix),
            "crown-ibp": crown_ibp(graph, region).output_lower(matrix),
            "forward": forward_lower(graph, region, matrix),
            "alpha-crown": optimised_lower(alpha_crown(graph, region), matrix).lower,
        }
        assert not [name for name, bound in found.items() if not float(bound) <= true]


@pytest.mark.parametrize("op", [Relu(), LeakyRelu(0.1), Sigmoid()])
def test_a_width_that_overflows_is_refused(op: Op) -> None:
    """Both ends are finite, and so would be the lines, which divide by the width: but wrong."""
    ops: list[Op] = [Linear(torch.full((1, 1), 2e38), torch.zeros(1)), op, Linear(torch.ones(1, 1), torch.zeros(1))]
    graph = sequential((1,), ops)
    region = box(torch.zeros(1, 1), 1.0)
    for bounded in (crown, crown_ibp, alpha_crown):
        with pytest.raises(Unbounded, match="Linear_0"):
            bounded(graph, region)


def test_a_node_that_two_ops_read_is_bounded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = torch.randn((5, 4), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    zeros = torch.zeros(5, dtype=torch.float64)
    nodes = [Node("input", None, (), (4,)), Node("first", Linear(weight, zeros), (0,), (5,))]
    nodes += [Node("relu", Relu(), (1,), (5,)), Node("second", Linear(weight @ weight.T, zeros), (2,), (5,))]
    nodes += [
        Node("sigmoid", Sigmoid(), (3,), (5,)),
        Node("tanh", Tanh(), (3,), (5,)),
        Node("sum", Add(), (4, 5), (5,)),
    ]
    rows: list[int] = []
    lower_of = Relaxed.lower_of
    monkeypatch.setattr(Relaxed, "lower_of", lambda self, node, some: rows.append(node) or lower_of(self, node, some))
    crown(Graph(tuple(nodes)), box(torch.zeros((1, 4), dtype=torch.float64), 1.0))
    assert rows == [3]


def single_rows(size: int, dtype: torch.dtype) -> Chunk:
    """A lower bound of every coordinate."""
    index = torch.arange(size).unsqueeze(1)
    return Chunk(None, index, torch.ones_like(index).to(dtype), torch.ones_like(index, dtype=torch.bool), False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_only_roundings_may_cross_a_bound(dtype: torch.dtype) -> None:
    unit = ROUNDING * torch.finfo(dtype).eps * 10
    rows, known = single_rows(2, dtype), torch.tensor([[10.0, 1.0]], dtype=dtype)
    for crossing, allowed in ((0.5, True), (1.5, False), (2.5, False), (1000.0, False)):
        bounds = Interval(-known, known)
        for lower in ([-10.0, 1 + crossing * unit], *([[-10.0, -10.0]] * 50)):
            bounds = rows.tighten(bounds, torch.tensor(lower, dtype=dtype).unsqueeze(1))
        assert bool((bounds.lower <= bounds.upper).all()) is allowed
    infinite = Interval(torch.tensor([[-torch.inf, -1.0]], dtype=dtype), known)
    crossed = rows.tighten(infinite, torch.tensor([[-5.0], [100.0]], dtype=dtype))
    assert float(crossed.lower[0, 1]) == 100 and float(crossed.upper[0, 1]) == 1


def test_float32_agrees_with_float64() -> None:
    graph = mlp([10, 30, 30, 5], 7)
    region = box(torch.zeros((2, 10), dtype=torch.float64), 0.2)
    matrix = torch.eye(5, dtype=torch.float64).unsqueeze(1).expand(-1, 2, -1)
    single = Region(Interval(region.box.lower.float(), region.box.upper.float()))
    lower = crown(graph.to("cpu", torch.float32), single).output_lower(matrix.float())
    torch.testing.assert_close(lower.double(), crown(graph, region).output_lower(matrix), rtol=1e-4, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu() -> None:
    graph, centre = mlp([10, 40, 40, 5], 7), torch.zeros((8, 10), dtype=torch.float64)
    matrix = torch.eye(5, dtype=torch.float64).unsqueeze(1).expand(-1, 8, -1)
    there = box(centre.cuda(), 0.2)
    lower = crown(graph.to("cuda", torch.float64), there).output_lower(matrix.cuda())
    torch.testing.assert_close(lower.cpu(), crown(graph, box(centre, 0.2)).output_lower(matrix))
