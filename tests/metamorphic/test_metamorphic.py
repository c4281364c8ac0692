"""What must not change a bound, and what may only tighten it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from random_graphs import OUTPUTS, random_graph
from torch import Tensor

from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import ReduceMax
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.sort import Sort
from provenn.verifier.region import Region

some = settings(
    max_examples=int(os.environ.get("PROVENN_EXAMPLES", "12")),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
seeds = st.integers(0, 2**30)
radii = st.sampled_from((0.0, 1e-12, 1e-2, 0.3, 2.0))
SAME = 1e-9
"""Relative: the same real number by another order of float64 operations."""


def drawn(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def box_of(shape: Sequence[int], batch: int, radius: float, generator: torch.Generator) -> Interval:
    centre = normal(generator, batch, *shape)
    width = radius * torch.rand(centre.shape, generator=generator, dtype=torch.float64)
    return Interval(centre - width, centre + width)


def crown_output(graph: Graph, box: Interval) -> Interval:
    """CROWN's bounds of every output: [batch, outputs]."""
    count = torch.Size(graph.output_shape).numel()
    eye = torch.eye(count, dtype=torch.float64)[:, None].expand(count, box.lower.shape[0], count)
    relaxed = crown(graph, Region(box))
    return Interval(relaxed.output_lower(eye).T, -relaxed.output_lower(-eye).T)


def interval_output(graph: Graph, box: Interval) -> Interval:
    last = propagate(graph, box)[-1]
    return Interval(last.lower.flatten(1), last.upper.flatten(1))


METHODS = pytest.mark.parametrize("method", (crown_output, interval_output), ids=("crown", "interval"))


def require_same(one: Interval, other: Interval) -> None:
    scale = SAME * (1 + torch.maximum(one.lower.abs(), one.upper.abs()).max())
    assert ((one.lower - other.lower).abs() <= scale).all()
    assert ((one.upper - other.upper).abs() <= scale).all()


@METHODS
@some
@given(seed=seeds, radius=radii)
def test_a_batch_is_its_entries_one_by_one(method, seed: int, radius: float) -> None:
    graph = random_graph(seed, 6)
    box = box_of(graph.input_shape, 3, radius, drawn(seed))
    whole = method(graph, box)
    for i in range(3):
        single = method(graph, Interval(box.lower[i : i + 1], box.upper[i : i + 1]))
        require_same(Interval(whole.lower[i : i + 1], whole.upper[i : i + 1]), single)


def hidden_layers(generator: torch.Generator, nonlinear: Op, order: Tensor | None) -> Graph:
    """6 -> 8 -> 8 -> 4, the first hidden layer's neurons in another order if one is given."""
    w1, b1, w2, b2 = (normal(generator, *s) / 2 for s in ((8, 6), (8,), (8, 8), (8,)))
    if order is not None:
        w1, b1, w2 = w1[order], b1[order], w2[:, order]
    last = Linear(normal(generator, 4, 8), normal(generator, 4))
    return sequential((6,), [Linear(w1, b1), nonlinear, Linear(w2, b2), nonlinear, last])


@METHODS
@pytest.mark.parametrize("nonlinear", (Relu(), Sigmoid()), ids=lambda op: type(op).__name__)
@some
@given(seed=seeds, radius=radii)
def test_the_order_of_neurons_does_not_matter(method, nonlinear: Op, seed: int, radius: float) -> None:
    box = box_of((6,), 2, radius, drawn(seed))
    order = torch.randperm(8, generator=drawn(seed))
    plain, permuted = (hidden_layers(drawn(seed), nonlinear, o) for o in (None, order))
    require_same(method(plain, box), method(permuted, box))


@METHODS
@some
@given(seed=seeds, radius=radii)
def test_the_order_within_a_set_does_not_matter(method, seed: int, radius: float) -> None:
    """Sorting, maxima along an axis and pooling see their cells in any order."""
    box = box_of((6,), 2, radius, drawn(seed))
    for last in (Sort(1, True), ReduceMax((1,), True), MaxPool((4,), (4,), (0, 0), (1,), False)):
        bounds = []
        for order in (torch.arange(4), torch.randperm(4, generator=drawn(seed))):
            generator = drawn(seed)
            w1, b1, w2, b2 = (normal(generator, *s) for s in ((7, 6), (7,), (3, 4, 7), (3, 4)))
            w2, b2 = w2[:, order].flatten(0, 1), b2[:, order].flatten()
            bounds.append(
                method(sequential((6,), [Linear(w1, b1), Relu(), Linear(w2, b2), Reshape((3, 4)), last]), box)
            )
        require_same(*bounds)


@METHODS
@some
@given(seed=seeds, radius=radii)
def test_folding_batch_normalization_changes_nothing(method, seed: int, radius: float) -> None:
    """s (W x + b) + t = (s W) x + (s b + t), for signs of s of both kinds."""
    generator = drawn(seed)
    weight, bias = normal(generator, 3, 2, 3, 3) / 3, normal(generator, 3)
    scale, shift = normal(generator, 3), normal(generator, 3)
    geometry = (1, 1), (1, 1, 1, 1), (1, 1), 1
    last = Linear(normal(generator, 4, 60) / 5, normal(generator, 4))
    tail: list[Op] = [Relu(), Reshape((60,)), last]
    column = scale.reshape(3, 1, 1)
    apart = [Conv(weight, bias, *geometry), Scale(column, shift.reshape(3, 1, 1)), *tail]
    folded = [Conv(weight * column[..., None], bias * scale + shift, *geometry), *tail]
    box = box_of((2, 4, 5), 2, radius, generator)
    require_same(method(sequential((2, 4, 5), apart), box), method(sequential((2, 4, 5), folded), box))


def split(layer: Linear, middle: Tensor) -> list[Op]:
    """W x + b as  M (M^-1 W x) + b."""
    zero = torch.zeros(len(middle), dtype=torch.float64)
    return [Linear(torch.linalg.solve(middle, layer.weight), zero), Linear(middle, layer.bias)]


@METHODS
@some
@given(seed=seeds, radius=radii)
def test_splitting_an_affine_map_changes_nothing(method, seed: int, radius: float) -> None:
    """Through any matrix after the last nonlinear op, where linear forms see the product alone.

    Before it, and for intervals, through permutations with signs and scales: another middle has a looser interval,
    which CROWN's bounds are intersected with.
    """
    generator = drawn(seed)
    shapes = ((8, 6), (8, 8), (4, 8))
    layers = [Linear(normal(generator, *shape) / 2, normal(generator, shape[0])) for shape in shapes]
    simple = [torch.diag(normal(generator, n) + 2)[torch.randperm(n, generator=generator)] for n in (8, 8, 4)]
    dense = torch.linalg.qr(normal(generator, 4, 4))[0]
    middles = [*simple[:2], dense] if method is crown_output else simple
    halves = [split(layer, middle) for layer, middle in zip(layers, middles, strict=True)]
    whole = sequential((6,), [layers[0], Relu(), layers[1], Relu(), layers[2]])
    apart = sequential((6,), [*halves[0], Relu(), *halves[1], Relu(), *halves[2]])
    box = box_of((6,), 2, radius, generator)
    require_same(method(whole, box), method(apart, box))


@METHODS
@some
@given(seed=seeds, radius=radii)
def test_moving_cells_changes_nothing(method, seed: int, radius: float) -> None:
    """A convolution on transposed axes with a transposed kernel, and shapes changed back and forth."""
    generator = drawn(seed)
    weight, bias = normal(generator, 3, 2, 3, 2) / 2, normal(generator, 3)
    last = Linear(normal(generator, OUTPUTS, 60) / 5, normal(generator, OUTPUTS))
    plain: list[Op] = [Conv(weight, bias, (1, 1), (1, 0, 1, 1), (1, 1), 1), Relu(), Reshape((60,)), last]
    moved: list[Op] = [
        Transpose((0, 2, 1)),
        Conv(weight.transpose(2, 3), bias, (1, 1), (0, 1, 1, 1), (1, 1), 1),
        Reshape((60,)),
        Relu(),
        Reshape((3, 5, 4)),
        Transpose((0, 2, 1)),
        Reshape((60,)),
        last,
    ]
    box = box_of((2, 4, 5), 2, radius, generator)
    require_same(method(sequential((2, 4, 5), plain), box), method(sequential((2, 4, 5), moved), box))


@some
@given(seed=seeds, radius=st.sampled_from((1e-3, 0.1, 1.0, 10.0)), part=st.floats(0, 1))
def test_a_smaller_box_is_never_looser_for_intervals(seed: int, radius: float, part: float) -> None:
    """Every node's interval, of networks of all ops. (CROWN is not inclusion-isotone: it may choose worse lines.)"""
    graph = random_graph(seed, 8)
    generator = drawn(seed)
    large = box_of(graph.input_shape, 2, radius, generator)
    ends = torch.rand((2, *large.lower.shape), generator=generator, dtype=torch.float64) * part / 2
    width = large.upper - large.lower
    small = Interval(large.lower + ends[0] * width, large.upper - ends[1] * width)
    for node, inner, outer in zip(graph.nodes, propagate(graph, small), propagate(graph, large), strict=True):
        rounding = 1e-12 * (1 + torch.maximum(outer.lower.abs(), outer.upper.abs()).max())
        assert (inner.lower >= outer.lower - rounding).all(), node.name
        assert (inner.upper <= outer.upper + rounding).all(), node.name


@some
@given(seed=seeds, radius=radii)
def test_linear_bounds_are_never_looser_than_intervals(seed: int, radius: float) -> None:
    graph = random_graph(seed, 6)
    box = box_of(graph.input_shape, 2, radius, drawn(seed))
    linear, interval = crown_output(graph, box), interval_output(graph, box)
    rounding = 1e-12 * (1 + torch.maximum(interval.lower.abs(), interval.upper.abs()).max())
    assert (linear.lower >= interval.lower - rounding).all() and (linear.upper <= interval.upper + rounding).all()
