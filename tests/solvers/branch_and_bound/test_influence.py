"""The inputs that splits should be at: those that move the rows, whether or not the lines show it."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
import torch
from networks import linear, mlp
from torch import Tensor

from provenn.models.onnx_reader import read
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.branch_and_bound import BranchAndBound
from provenn.solvers.branch_and_bound.influence import influence
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.exponential import Log
from provenn.verifier.ops.linear import Linear
from provenn.verifier.vnnlib import parse_vnnlib

MANY = 1 << 18


def boxes(graph: Graph, batch: int, seed: int = 0) -> Interval:
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(batch, *graph.input_shape, generator=generator, dtype=torch.float64)
    radius = torch.rand(batch, *graph.input_shape, generator=generator, dtype=torch.float64)
    return Interval(centre - radius, centre + radius)


def rows(graph: Graph) -> Tensor:
    return torch.eye(graph.output_shape[0], dtype=torch.float64)[:1]


def test_without_slopes_it_is_how_far_each_input_moves_the_row() -> None:
    op = linear(4, 2, torch.Generator().manual_seed(1))
    graph = sequential((4,), [op])
    box = boxes(graph, 3)
    reach = op.weight[0].abs() * (box.upper - box.lower)
    found = influence(graph, box, torch.zeros(3, 4, dtype=torch.float64), rows(graph), MANY)
    torch.testing.assert_close(found, reach / reach.sum(1, keepdim=True))


def test_an_input_without_width_has_none_and_few_values_at_once_change_nothing() -> None:
    graph = mlp([5, 8, 8, 3], 2)
    box = boxes(graph, 6)
    box = Interval(box.lower, torch.where(torch.arange(5) == 2, box.lower, box.upper))
    slopes = torch.rand(6, 5, dtype=torch.float64)
    found = influence(graph, box, slopes, rows(graph), MANY)
    assert (found[:, 2] == 0).all() and (found.sum(1) - 2).abs().max() < 1e-12
    torch.testing.assert_close(influence(graph, box, slopes, rows(graph), 1), found)


def test_where_intervals_have_no_bounds_slopes_decide_alone() -> None:
    op = linear(3, 2, torch.Generator().manual_seed(0))
    graph = sequential((3,), [Linear(op.weight, op.bias - 100), Log()])
    box, slopes = boxes(graph, 2), torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    product = slopes * (box.upper - box.lower)
    found = influence(graph, box, slopes, rows(graph), MANY)
    torch.testing.assert_close(found[0], product[0] / product[0].sum())
    assert (found[1] == 0).all()


@pytest.mark.shared
@pytest.mark.parametrize(("network", "prop"), [("3_1", 1), ("3_7", 1), ("5_1", 3)])
def test_no_search_goes_round_in_circles(shared: Path, network: str, prop: int) -> None:
    """By slope times width alone these need over 20,000, over 45,000 and 2,300 parts."""
    folder = shared / "vnncomp2022" / "acasxu"
    graph = read(gzip.decompress((folder / "onnx" / f"ACASXU_run2a_{network}_batch_2000.onnx.gz").read_bytes()))
    spec = parse_vnnlib(gzip.decompress((folder / "vnnlib" / f"prop_{prop}.vnnlib.gz").read_bytes()))
    result = BranchAndBound(split="input").solve(Problem(graph, spec.cases, None), Budget(60))
    assert result.outcomes[0].verdict == Verdict.VERIFIED
    assert result.stats["branch-and-bound_domains"] < 1500
