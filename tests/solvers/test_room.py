"""Where the attack moves: inside the exact sets, constraints and odd balls included."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from provenn.solvers.attack import Attack
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.packing import pack
from provenn.solvers.room import Room
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.linear import Linear
from provenn.verifier.spec import Ball, Case, Clause, Constraint, InputSet

TENTH = Fraction(1, 10)
CLAUSE = Clause(((Fraction(1),),), (Fraction(0),))


def total(inputs: int, offset: float) -> Graph:
    """The sum of the inputs plus an offset; unsafe where that is not negative."""
    weight = torch.ones(1, inputs, dtype=torch.float64)
    return sequential((inputs,), [Linear(weight, torch.tensor([offset], dtype=torch.float64))])


def case(size: int, ball: Ball | None = None, constraints: tuple[Constraint, ...] = ()) -> Case:
    return Case(InputSet((Fraction(0),) * size, (Fraction(1),) * size, ball, constraints), (CLAUSE,))


class Executor:
    """The graph in float32, standing for an independent runtime."""

    name = "graph"

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.to("cpu", torch.float32)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        return self.graph.forward(torch.from_numpy(inputs)).numpy()


CONSTRAINTS = (Constraint((Fraction(1), -TENTH, TENTH), TENTH), Constraint((Fraction(-1), Fraction(2), TENTH), TENTH))


@pytest.mark.parametrize("norm", [1.0, 2.0])
@pytest.mark.parametrize("centre", ["1/3", "-1/5"])
@pytest.mark.parametrize("constraints", [(), CONSTRAINTS])
def test_projected_points_lie_in_the_exact_set(norm: float, centre: str, constraints: tuple[Constraint, ...]) -> None:
    ball = Ball((Fraction(centre), Fraction(1, 4), Fraction(1, 7)), Fraction(3, 5), norm)
    some = case(3, ball, constraints)
    region = pack(total(3, 0), [some], "cpu", torch.float32).region
    room = Room.of([some], region)
    generator = torch.Generator().manual_seed(0)
    points = [room.project(torch.rand(1, 3, generator=generator) * 3 - 1) for _ in range(100)]
    inside = sum(some.inputs.contains(p.numpy()) for p in points)
    assert inside >= 95


def test_a_float32_point_between_the_bounds_lies_in_the_exact_box() -> None:
    inputs = InputSet((TENTH, Fraction(1, 3)), (TENTH * 3, Fraction(2, 3)))
    some = Case(inputs, (CLAUSE,))
    room = Room.of([some], pack(total(2, 0), [some], "cpu", torch.float32).region)
    for corner in (room.lower, room.upper):
        assert inputs.contains(corner.numpy())
    for corner, beyond in ((room.lower, -np.inf), (room.upper, np.inf)):
        for i in range(2):
            point = corner.numpy().copy()
            point[0, i] = np.nextafter(point[0, i], np.float32(beyond))
            assert not inputs.contains(point)


def test_witnesses_satisfy_the_constraints() -> None:
    """x_0 + x_1 + x_2 <= 1.5 leaves sums up to 1.5: unsafe from 1.4 on, safe from 1.6 on."""
    cut = (Constraint((Fraction(1),) * 3, Fraction(3, 2)),)
    for threshold, expected in ((1.4, Verdict.FALSIFIED), (1.6, Verdict.UNKNOWN)):
        graph = total(3, -threshold)
        problem = Problem(graph, [case(3, None, cut)], Executor(graph))
        (outcome,) = Attack().solve(problem, Budget(20)).outcomes
        assert outcome.verdict == expected
        if outcome.witness is not None:
            assert case(3, None, cut).inputs.contains(outcome.witness)


@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_the_far_side_of_a_cut_ball_is_reached(norm: float) -> None:
    """Around (0.9, .., 0.1, ..) two coordinates of the ball are cut; the largest sum is within 1% of the room."""
    centre = (TENTH * 9, TENTH * 9, TENTH, TENTH)
    ball = Ball(centre, Fraction(1, 2), norm)
    most = {1.0: 2.5, 2.0: 2.0 + 0.2 + 2 * ((0.25 - 0.02) / 2) ** 0.5}[norm]
    graph = total(4, -most + 0.01)
    (outcome,) = Attack().solve(Problem(graph, [case(4, ball)], Executor(graph)), Budget(20)).outcomes
    assert outcome.verdict == Verdict.FALSIFIED
