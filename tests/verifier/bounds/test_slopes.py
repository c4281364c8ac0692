"""alpha-CROWN: sound, never below the CROWN it starts from, and the same however it is cut into chunks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import box, convolutional, mlp, residual, samples
from torch import Tensor

from provenn.verifier.bounds.backward import Relaxed, crown
from provenn.verifier.bounds.slopes import Effort, alpha_crown, optimised_lower
from provenn.verifier.graph import Graph
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

FEW = Effort(6)


KINDS = ("chain", "s-shaped", "residual", "convolutional", "skip")


def made(kind: str, seed: int) -> Graph:
    if kind == "residual":
        return residual(1 + seed % 5, 1 + seed % 3, 1 + seed % 4, seed)
    if kind in ("convolutional", "skip"):
        return convolutional(seed, kind == "skip")
    widths = torch.randint(1, 8, (4,), generator=torch.Generator().manual_seed(seed)).tolist()
    return mlp(widths, seed, (Tanh(), Sigmoid())[seed % 2] if kind == "s-shaped" else Relu())


graphs = st.tuples(st.sampled_from(KINDS), st.integers(0, 10_000))


def rows(graph: Graph, batch: int, seed: int) -> Tensor:
    outputs = torch.Size(graph.output_shape).numel()
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((3, batch, outputs), generator=generator, dtype=torch.float64)


def region_of(graph: Graph, radius: float, seed: int, batch: int = 2) -> Region:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn((batch, *graph.input_shape), generator=generator, dtype=torch.float64)
    return box(centre, radius * torch.rand(centre.shape, generator=generator, dtype=torch.float64))


def lower_of(graph: Graph, region: Region, matrix: Tensor, effort: Effort = FEW) -> Tensor:
    with torch.no_grad():
        return optimised_lower(alpha_crown(graph, region, effort), matrix, effort).lower


@settings(max_examples=30, deadline=None)
@given(graphs, st.sampled_from([0.0, 1e-12, 1e-3, 0.1, 1.0, 1e3]), st.integers(0, 1000))
def test_no_sampled_output_lies_below(of: tuple[str, int], radius: float, seed: int) -> None:
    graph = made(*of)
    region, matrix = region_of(graph, radius, seed), rows(graph, 2, seed)
    points = samples(region, 1000, seed)
    outputs = graph.forward(points.flatten(0, 1)).reshape(1000, 2, -1)
    values = torch.einsum("sbo,nbo->nsb", matrix, outputs)
    assert (lower_of(graph, region, matrix) <= values.amin(0) + 1e-11 * (1 + radius + values.abs().amax(0))).all()


@settings(max_examples=20, deadline=None)
@given(graphs, st.sampled_from([1e-3, 0.1, 1.0]), st.integers(0, 1000))
def test_intermediate_bounds_hold_and_are_never_looser_than_crown(
    of: tuple[str, int], radius: float, seed: int
) -> None:
    graph = made(*of)
    region = region_of(graph, radius, seed)
    with torch.no_grad():
        plain, optimised = crown(graph, region), alpha_crown(graph, region, FEW)
    points = samples(region, 300, seed)
    values = [points.flatten(0, 1)]
    for node in graph.nodes[1:]:
        assert node.op is not None
        values.append(node.op.forward(*(values[i] for i in node.inputs)))
    for value, bound in zip(values, optimised.bounds, strict=True):
        seen = value.reshape(*points.shape[:2], *value.shape[1:])
        assert (seen >= bound.lower - 1e-10).all()
        assert (seen <= bound.upper + 1e-10).all()
    first = next(i for i, node in enumerate(graph.nodes) if node.op is not None and not node.op.affine)
    same = graph.nodes[first].inputs[0]
    torch.testing.assert_close(plain.bounds[same].lower, optimised.bounds[same].lower, rtol=1e-12, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(graphs, st.sampled_from([1e-3, 0.1, 1.0]), st.integers(0, 1000))
def test_optimised_rows_never_end_below_the_bounds_they_start_from(
    of: tuple[str, int], radius: float, seed: int
) -> None:
    graph = made(*of)
    region, matrix = region_of(graph, radius, seed), rows(graph, 2, seed)
    with torch.no_grad():
        relaxed = crown(graph, region)
        start = relaxed.output_lower(matrix)
        found = optimised_lower(relaxed, matrix, FEW)
        assert (found.lower >= start).all()
        again = optimised_lower(relaxed, matrix, Effort(1), start=found.parameters)
    torch.testing.assert_close(again.lower, found.lower, rtol=1e-9, atol=1e-9)


def test_optimised_slopes_gain_where_the_adaptive_ones_are_wrong() -> None:
    graph = mlp([6, 20, 20, 20, 4], 1)
    region, matrix = region_of(graph, 0.5, 1), rows(graph, 2, 1)
    with torch.no_grad():
        plain = crown(graph, region).output_lower(matrix)
    gained = lower_of(graph, region, matrix, Effort(20)) - plain
    assert (gained > 0.05 * plain.abs()).all()


def test_a_batch_is_a_loop_and_chunks_change_nothing() -> None:
    graph = convolutional(3, True)
    region, matrix = region_of(graph, 0.4, 2, batch=3), rows(graph, 3, 2)
    together = lower_of(graph, region, matrix)
    torch.testing.assert_close(lower_of(graph, region, matrix, Effort(6, memory=1.0)), together, rtol=1e-9, atol=1e-9)
    for b in range(3):
        alone = lower_of(graph, region.select(slice(b, b + 1)), matrix[:, b : b + 1])
        torch.testing.assert_close(alone[:, 0], together[:, b], rtol=1e-9, atol=1e-9)


def test_rows_that_are_high_enough_are_left_alone() -> None:
    graph = mlp([6, 20, 20, 4], 1)
    region, matrix = region_of(graph, 0.5, 1), rows(graph, 2, 1)
    calls: list[int] = []

    class Counting(Relaxed):
        def lower(self, node, given, own=lambda index, rows: None):  # type: ignore[no-untyped-def]
            calls.append(given.shape[0])
            return super().lower(node, given, own)

    with torch.no_grad():
        plain = crown(graph, region)
        counted = Counting(plain.graph, plain.region, plain.bounds, plain.lines)
        lower = counted.output_lower(matrix)
        calls.clear()
        enough = lower - torch.tensor([1.0, -1e9, 1.0], dtype=torch.float64).unsqueeze(1)
        found = optimised_lower(counted, matrix, Effort(10), enough=enough)
    assert calls[0] == 3
    assert calls[2] == 1
    assert (found.lower >= lower).all()


def test_an_ended_budget_gives_the_bounds_so_far() -> None:
    graph = mlp([6, 20, 20, 4], 1)
    region, matrix = region_of(graph, 0.5, 1), rows(graph, 2, 1)
    with torch.no_grad():
        plain = crown(graph, region).output_lower(matrix)
    ended = lower_of(graph, region, matrix, Effort(20, over=lambda: True))
    torch.testing.assert_close(ended, plain, rtol=1e-12, atol=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees() -> None:
    graph, cuda = convolutional(3, True), torch.device("cuda")
    region, matrix = region_of(graph, 0.4, 2), rows(graph, 2, 2)
    moved = box(
        ((region.box.lower + region.box.upper) / 2).to(cuda), ((region.box.upper - region.box.lower) / 2).to(cuda)
    )
    lower = lower_of(graph.to(cuda, torch.float64), moved, matrix.to(cuda))
    torch.testing.assert_close(lower.cpu(), lower_of(graph, region, matrix), rtol=1e-6, atol=1e-6)
