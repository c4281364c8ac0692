"""The linear programme of triangle relaxations: slopes that no others beat, never above what the network takes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.bounds import programme
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.programme import Programme, refusal
from provenn.verifier.bounds.slopes import Effort, alpha_crown, optimised_lower
from provenn.verifier.errors import Unbounded
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.ops.arithmetic import Add
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.region import Region
from provenn.verifier.spec import Ball, InputSet

SAMPLES = 2000


def dense(generator: torch.Generator, inputs: int, outputs: int) -> Linear:
    weight = torch.randn((outputs, inputs), generator=generator, dtype=torch.float64) / inputs**0.5
    return Linear(weight, 0.3 * torch.randn(outputs, generator=generator, dtype=torch.float64))


def perceptron(seed: int, widths: tuple[int, ...]) -> Graph:
    generator, ops = torch.Generator().manual_seed(seed), []
    for n, m in pairwise(widths):
        ops += [dense(generator, n, m), Relu()]
    return sequential((widths[0],), ops[:-1])


def residual(seed: int) -> Graph:
    """x -> a = relu(Ax), y = C (a + relu(B a)): a ReLU's output is read twice, and its argument, too."""
    generator = torch.Generator().manual_seed(seed)
    first, second, last = dense(generator, 3, 5), dense(generator, 5, 5), dense(generator, 5, 2)
    return Graph(
        (
            Node("x", None, (), (3,)),
            Node("z", first, (0,), (5,)),
            Node("a", Relu(), (1,), (5,)),
            Node("w", second, (2,), (5,)),
            Node("b", Relu(), (3,), (5,)),
            Node("s", Add(), (2, 4), (5,)),
            Node("t", Add(), (5, 1), (5,)),
            Node("y", last, (6,), (2,)),
        )
    )


def boxed(lower: np.ndarray, upper: np.ndarray, graph: Graph) -> Region:
    inputs = InputSet(tuple(map(Fraction, lower.tolist())), tuple(map(Fraction, upper.tolist())))
    return Region.of([inputs], graph.input_shape, "cpu", torch.float64)


boxes = st.sampled_from(["point", "tiny", "small", "wide", "huge", "one-sided", "touching"])


def drawn(kind: str, inputs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    centre = generator.normal(size=inputs)
    radius = {"point": 0.0, "tiny": 1e-9, "small": 0.05, "wide": 1.0, "huge": 1e4}.get(kind, 0.5)
    if kind == "one-sided":
        return np.abs(centre), np.abs(centre) + radius
    if kind == "touching":
        return np.zeros(inputs), np.full(inputs, radius)
    return centre - radius, centre + radius


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["plain", "deep", "residual"]), boxes)
def test_no_other_slopes_are_better_and_no_value_of_the_network_is_below(seed: int, kind: str, box: str) -> None:
    graph = {"plain": perceptron(seed, (4, 6, 3)), "deep": perceptron(seed, (3, 5, 5, 4, 2))}.get(kind) or residual(
        seed
    )
    inputs, outputs = graph.input_shape[0], graph.output_shape[0]
    lower, upper = drawn(box, inputs, seed)
    region, generator = boxed(lower, upper, graph), np.random.default_rng(seed)
    x = torch.from_numpy(lower + generator.random((SAMPLES, inputs)) * (upper - lower))
    with torch.no_grad():
        for relaxed in (crown(graph, region), alpha_crown(graph, region)):
            solved = Programme.of(relaxed)
            for row in np.vstack([np.eye(outputs)[:1], generator.normal(size=(2, outputs))]):
                slopes = solved.slopes(row, 10.0)
                assert slopes is not None
                assert all(((s >= 0) & (s <= 1)).all() for s in slopes.values())
                matrix = torch.from_numpy(row).reshape(1, 1, -1)
                exact = optimised_lower(relaxed, matrix, Effort(1), start=slopes).lower.item()
                near = optimised_lower(relaxed, matrix, Effort(20)).lower.item()
                ends = relaxed.bounds[-1]
                size = 1 + np.abs(row) @ torch.maximum(ends.lower.abs(), ends.upper.abs())[0].numpy()
                assert near <= exact + 1e-6 * size
                assert (graph.forward(x) @ torch.from_numpy(row)).min() >= exact - 1e-9 * size


def test_it_gains_where_gradients_stop_early() -> None:
    """Deep and wide: the programme's bound is never below what twenty steps find, and mostly well above."""
    gains = []
    for seed in range(4):
        graph = perceptron(seed, (40, 30, 30, 30, 30, 1))
        region = boxed(np.full(40, -0.4), np.full(40, 0.4), graph)
        with torch.no_grad():
            relaxed = crown(graph, region)
            slopes = Programme.of(relaxed).slopes(np.ones(1), 30.0)
            matrix = torch.ones((1, 1, 1), dtype=torch.float64)
            exact = optimised_lower(relaxed, matrix, Effort(1), start=slopes).lower.item()
            gains.append(exact - optimised_lower(relaxed, matrix, Effort(20)).lower.item())
    assert min(gains) >= -1e-6
    assert max(gains) > 0


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = perceptron(0, (3, 4, 2))
    centre = (Fraction(0),) * 3
    ball = InputSet((Fraction(-1),) * 3, (Fraction(1),) * 3, ball=Ball(centre, Fraction(1), 2))
    with torch.no_grad():
        with pytest.raises(Unbounded, match="boxes alone"):
            Programme.of(crown(graph, Region.of([ball], (3,), "cpu", torch.float64)))
        other = sequential((3,), [dense(torch.Generator().manual_seed(0), 3, 2), Sigmoid()])
        with pytest.raises(Unbounded, match="'Sigmoid_1' is no ReLU"):
            Programme.of(crown(other, boxed(-np.ones(3), np.ones(3), other)))
        monkeypatch.setattr(programme, "VARIABLES", 6)
        assert refusal(graph) == "its linear programme has 7 variables, over 6"


def test_no_time_gives_nothing() -> None:
    graph = perceptron(0, (40, 60, 60, 60, 1))
    with torch.no_grad():
        solved = Programme.of(crown(graph, boxed(np.full(40, -1.0), np.full(40, 1.0), graph)))
        assert solved.slopes(np.ones(1), 0.0) is None
        assert solved.slopes(np.ones(1), 60.0) is not None
