"""The linear programme of triangle relaxations: slopes that reach its value, never above what the network takes."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier.bounds import programme
from provenn.verifier.bounds.backward import Relaxed, crown
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
def test_no_slopes_beat_the_programme_and_its_own_are_bounds(seed: int, kind: str, box: str) -> None:
    reaches(seed, kind, box)


def reaches(seed: int, kind: str, box: str) -> list[bool]:
    """Whether slopes reach the value of the programme; that no others beat it, no value of the network is below."""
    graph = {"plain": perceptron(seed, (4, 6, 3)), "deep": perceptron(seed, (3, 5, 5, 4, 2))}.get(kind) or residual(
        seed
    )
    inputs, outputs = graph.input_shape[0], graph.output_shape[0]
    lower, upper = drawn(box, inputs, seed)
    region, generator, reached = boxed(lower, upper, graph), np.random.default_rng(seed), []
    x = torch.from_numpy(lower + generator.random((SAMPLES, inputs)) * (upper - lower))
    with torch.no_grad():
        for relaxed in (crown(graph, region), alpha_crown(graph, region)):
            solved, constant = Programme.of(relaxed), at_zero(relaxed)
            for row in np.vstack([np.eye(outputs)[:1], generator.normal(size=(2, outputs))]):
                slopes = solved.slopes(row, 10.0)
                assert slopes is not None
                assert all(((s >= 0) & (s <= 1)).all() for s in slopes.values())
                matrix = torch.from_numpy(row).reshape(1, 1, -1)
                exact = optimised_lower(relaxed, matrix, Effort(1), start=slopes).lower.item()
                near = optimised_lower(relaxed, matrix, Effort(20)).lower.item()
                ends = relaxed.bounds[-1]
                size = 1 + np.abs(row) @ torch.maximum(ends.lower.abs(), ends.upper.abs())[0].numpy()
                value = solved.solver.getInfo().objective_function_value + row @ constant
                assert max(near, exact) <= value + 1e-6 * size
                assert exact >= value - 0.05 * size
                reached.append(exact >= value - 1e-6 * size)
                assert (graph.forward(x) @ torch.from_numpy(row)).min() >= exact - 1e-9 * size
    return reached


def at_zero(relaxed: Relaxed) -> np.ndarray:
    """The outputs where the inputs and the outputs of all ReLUs are 0: what the programme's value is short of."""
    graph, values = relaxed.graph, []
    for node in graph.nodes:
        op, zero = node.op, torch.zeros((1, *node.shape), dtype=torch.float64)
        values.append(zero if op is None or isinstance(op, Relu) else op.forward(*(values[i] for i in node.inputs)))
    return values[-1][0].numpy()


def test_slopes_nearly_always_reach_the_programmes_value() -> None:
    """Bounds of the arguments that bind would take multipliers that slopes need: of these rows, chosen so, of four."""
    cases = [(7, "deep", "wide"), (28, "deep", "one-sided"), (46, "deep", "huge"), (52, "deep", "small")]
    found = [reached for case in cases for reached in reaches(*case)]
    assert sum(found) >= len(found) - 2


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
        monkeypatch.setattr(programme, "ELEMENTS", 27)
        assert refusal(graph) == "its linear programme would need 28 coefficients of one node, over 27"
        monkeypatch.setattr(programme, "VARIABLES", 6)
        assert refusal(graph) == "its linear programme has 7 variables, over 6"


@pytest.mark.parametrize("end", [1e14, 1e16, 1e30, 1e300])
def test_numbers_that_the_solver_does_not_take_are_refused(end: float) -> None:
    graph = perceptron(0, (3, 4, 2))
    with torch.no_grad():
        relaxed = crown(graph, boxed(np.full(3, -end), np.full(3, end), graph))
        if end > 1e15:
            with pytest.raises(Unbounded, match="numbers above 1e\\+15"):
                Programme.of(relaxed)
        else:
            solved = Programme.of(relaxed)
            assert solved.slopes(np.array([1.0, -1.0]), 10.0) is not None
            assert solved.slopes(np.array([1e20, -1e20]), 10.0) is None


def test_a_neuron_never_below_zero_has_slope_one() -> None:
    """Bounds that are rounded outward make it an open one, which slope 0 would tear away from its argument."""
    graph = sequential((3,), [Relu(), dense(torch.Generator().manual_seed(0), 3, 2)])
    with torch.no_grad():
        solved = Programme.of(crown(graph, boxed(np.array([0.0, 1.0, -2.0]), np.array([1.0, 2.0, -1.0]), graph)))
        slopes = solved.slopes(np.array([1.0, -1.0]), 10.0)
    assert slopes is not None
    assert slopes[1].flatten().tolist() == [1, 1, 0]


def test_maps_are_the_same_computed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = residual(0)
    with torch.no_grad():
        relaxed = crown(graph, boxed(-np.ones(3), np.ones(3), graph))
        whole = Programme.of(relaxed)
        monkeypatch.setattr(programme, "TOGETHER", 3)
        parts = Programme.of(relaxed)
    assert np.allclose(whole.output, parts.output, rtol=0, atol=1e-12)


def test_no_time_gives_nothing() -> None:
    graph = perceptron(0, (40, 60, 60, 60, 1))
    with torch.no_grad():
        solved = Programme.of(crown(graph, boxed(np.full(40, -1.0), np.full(40, 1.0), graph)))
        assert solved.slopes(np.ones(1), 0.0) is None
        assert solved.slopes(np.ones(1), 60.0) is not None
