"""Schedules, the initialisation and the regulariser say what their papers say."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import mlp
from torch import nn

from provenn.verifier.bounds.interval import propagate
from provenn.verifier.graph import sequential
from provenn.verifier.ops.linear import Linear as LinearOp
from provenn.verifier.ops.relu import Relu
from provenn.verifier.training import Linear, Smoothed, around, initialise, regulariser


@pytest.mark.parametrize("kind", [Linear, Smoothed])
@given(first=st.floats(-2, 2), last=st.floats(-2, 2), steps=st.lists(st.floats(-5, 40), min_size=2, max_size=6))
def test_schedules_lead_from_one_number_to_the_other(
    kind: type[Linear | Smoothed], first: float, last: float, steps: list[float]
) -> None:
    schedule = kind(first, last, 3, 23)
    assert schedule(3) == schedule(-1) == first
    assert schedule(23) == schedule(1e9) == pytest.approx(last)
    values = [schedule(step) for step in sorted(steps)]
    rising = values if last >= first else values[::-1]
    assert all(a <= b + 1e-12 for a, b in pairwise(rising))


def test_a_schedule_without_length_jumps() -> None:
    assert [Linear(0, 1, 5, 5)(step) for step in (4.9, 5)] == [0, 1]


def test_a_smoothed_ramp_is_smooth_where_it_turns_linear() -> None:
    schedule, turn, h = Smoothed(0, 1, 0, 100), 25.0, 1e-5
    left, right = ((schedule(turn + s * h) - schedule(turn)) / (s * h) for s in (-1, 1))
    assert left == pytest.approx(right, rel=1e-4)
    assert schedule(10) / schedule(5) == pytest.approx(16)
    assert schedule(80) - schedule(60) == pytest.approx(schedule(60) - schedule(40))


def test_an_initialised_network_keeps_the_width_of_its_intervals() -> None:
    """Of the plain initialisation they grow with every layer."""
    torch.manual_seed(0)
    layers = [nn.Linear(200, 200) for _ in range(5)]
    module = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(200, 3))
    before = module[-1].weight.clone()
    box = around(torch.rand(20, 200), 0.05)

    def growth() -> float:
        ops = [op for layer in layers for op in (LinearOp(layer.weight.detach(), layer.bias.detach()), Relu())]
        bounds = propagate(sequential((200,), ops), box)
        return float((bounds[-1].upper - bounds[-1].lower).mean() / 0.1)

    plain = growth()
    initialise(module)
    assert 0.2 < growth() < 5 < 100 < plain
    assert float(layers[0].weight.detach().std()) == pytest.approx(math.sqrt(2 * math.pi) / 200, rel=0.05)
    assert torch.equal(module[-1].weight, before)


def test_the_regulariser_is_zero_where_nothing_is_wrong_and_falls_towards_it() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    x = torch.tensor([[1.0, 1.0, -1.0, -1.0], [2.0, 2.0, -2.0, -2.0]], dtype=torch.float64)
    penalties = []
    for scale in (1.0, 3.0, 9.0):
        graph = sequential((4,), [LinearOp(scale * eye, 0 * eye[0]), Relu(), LinearOp(eye, 0 * eye[0])])
        penalties.append(float(regulariser(graph, propagate(graph, around(x, 0.1)))))
    # r_0 / r is 1, 1/3, 1/9; active and inactive neurons are alike.
    assert penalties == pytest.approx([0.0, 1 - 2 / 3, 1 - 2 / 9])


def test_the_regulariser_sees_dead_neurons() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    graph = sequential((4,), [LinearOp(eye, 10 + 0 * eye[0]), Relu(), LinearOp(eye, 0 * eye[0])])
    found = regulariser(graph, propagate(graph, around(torch.rand((3, 4), dtype=torch.float64), 0.1)))
    assert found == pytest.approx(2.0)
    assert regulariser(mlp([3, 2], 0), propagate(mlp([3, 2], 0), around(torch.zeros((1, 3)).double(), 0.1))) == 0
