"""beta-CROWN's bounds hold for every point of a part, whatever the multipliers; optimising them makes them tighter."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import convolutional, mlp, residual

from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.beta import LEVELS, Arguments, Cuts, beta_crown, cut, rounded
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

POINTS = 2000


def arguments_at(graph: Graph, arguments: Arguments, x: torch.Tensor) -> torch.Tensor:
    """All values that can be split, counted through: [points, values]."""
    values = [x]
    for node in graph.nodes[1:]:
        assert node.op is not None
        values.append(node.op.forward(*(values[i] for i in node.inputs)))
    return torch.cat([values[i].flatten(1) for i in arguments.nodes], 1)


def graphs(kind: int, seed: int) -> Graph:
    activations = [Relu(), LeakyRelu(0.2), Tanh(), Sigmoid()]
    if kind < len(activations):
        return mlp([3, 7, 7, 2], seed, activations[kind])
    return [residual(4, 2, 2, seed), convolutional(seed, True), convolutional(seed, False)][kind - len(activations)]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.integers(0, 200), st.sampled_from([1e-3, 0.3, 3.0]), st.integers(1, 4), st.integers(1, 5))
def test_bounds_hold_for_the_points_of_every_part(kind: int, seed: int, radius: float, depth: int, rounds: int) -> None:
    graph = graphs(kind, seed)
    generator = torch.Generator().manual_seed(seed)
    shape = (1, *graph.input_shape)
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    region = Region(Interval(centre - radius, centre + radius))
    root, arguments = crown(graph, region), Arguments.of(graph)
    parts, outputs = 6, torch.Size(graph.output_shape).numel()
    x = centre + radius * (2 * torch.rand((POINTS, *shape[1:]), generator=generator, dtype=torch.float64) - 1)
    known = arguments_at(graph, arguments, x)
    index = torch.randint(0, arguments.total, (parts, depth), generator=generator)
    sign = torch.randint(0, 2, (parts, depth), generator=generator).double() * 2 - 1
    threshold = known[torch.randint(0, POINTS, (parts, depth), generator=generator), index]
    cuts = Cuts(index, sign, threshold)
    rows = torch.randn((1, parts, outputs), generator=generator, dtype=torch.float64)
    betas = 3 * torch.rand((1, parts, depth), generator=generator, dtype=torch.float64)
    found = beta_crown(cut(root, arguments, cuts), rows, ({}, betas), rounds)
    values = graph.forward(x).flatten(1) @ rows[0].T
    inside = ((known[:, index] - threshold) * sign >= 0).all(2)
    assert inside.any()
    lowest = values.masked_fill(~inside, torch.inf).amin(0)
    assert (found.lower <= lowest + 1e-9 * values.abs().max()).all()
    assert (found.betas >= 0).all()
    for slopes in found.slopes.values():
        assert torch.equal(slopes, rounded(slopes)) and slopes.min() >= 0 and slopes.max() <= 1


def test_multipliers_prove_what_cut_intervals_alone_cannot() -> None:
    """Both sides of the widest argument, at 0."""
    graph = mlp([2, 4, 1], 3)
    region = Region(Interval(-torch.ones((1, 2), dtype=torch.float64), torch.ones((1, 2), dtype=torch.float64)))
    root, arguments = crown(graph, region), Arguments.of(graph)
    widest = int((root.bounds[1].upper - root.bounds[1].lower).argmax())
    cuts = Cuts(
        torch.tensor([[widest], [widest]]), torch.tensor([[1.0], [-1.0]]).double(), torch.zeros((2, 1)).double()
    )
    rows = torch.ones((1, 2, 1), dtype=torch.float64)
    start = ({}, torch.zeros((1, 2, 1), dtype=torch.float64))
    plain = beta_crown(cut(root, arguments, cuts), rows, start, 1)
    optimised = beta_crown(cut(root, arguments, cuts), rows, start, 40)
    assert (optimised.lower >= plain.lower).all()
    assert (optimised.lower > plain.lower + 1e-3).any() and (optimised.betas > 0).any()


def test_values_are_located_where_they_were_counted() -> None:
    graph = convolutional(0, True)
    arguments = Arguments.of(graph)
    every = torch.arange(arguments.total)
    node, place = arguments.located(every)
    assert {int(n) for n in node} == set(arguments.nodes)
    for i in arguments.nodes:
        assert place[node == i].tolist() == list(range(torch.Size(graph.nodes[i].shape).numel()))


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_rounded_parameters_are_what_a_byte_holds(value: float) -> None:
    assert (rounded(torch.tensor(value)) * LEVELS).item() == pytest.approx(round(value * LEVELS), abs=1e-4)
