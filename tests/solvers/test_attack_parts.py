"""The attack's parts: the gradient it follows, the points it begins at, exact line searches."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from attack_kit import box, clause, goal_of
from networks import convolutional, mlp, residual
from torch import Tensor

from provenn.solvers.goal import Goal
from provenn.solvers.line_search import affordable, best_on_lines
from provenn.solvers.sampling import by_level, dealt, even, nearest, spread
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.spec import Case, InputSet

ROWS = (([1, -1, 0], 1), ([0, 2, -1], Fraction(-1, 2)), ([-1, 0, 3], 0))


def goal(graph: Graph) -> Goal:
    """One clause of three rows, and one of one row."""
    inputs = torch.Size(graph.input_shape).numel()
    return goal_of(graph, [Case(box(inputs), (clause(*ROWS), clause(([1, 1, 1], 0))))])


def points(of: Goal, count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand((count, *of.room.lower.shape), generator=generator)
    return torch.lerp(of.room.lower, of.room.upper, unit)


def test_the_gradient_is_that_of_the_score() -> None:
    some = goal(mlp([5, 9, 3], 0))
    x = points(some, 40, 0)
    aim = torch.arange(40).unsqueeze(1) % 2
    _, score, gradient = some.climbed(x, aim)
    for axis in range(5):
        moved = x.clone()
        moved[..., axis] += 1e-2
        exact = some.score(some.rows(moved), aim)[0] - score
        close = (exact - 1e-2 * gradient[..., axis]).abs() <= 1e-3 * (1 + score.abs())
        assert close.float().mean() > 0.9


def test_the_score_says_which_rows_are_missing() -> None:
    """Rows -1, -2, 3 of one clause score -2 - 3, pulled by the first two; met rows 1, 2, 3 score their smallest."""
    some = goal(mlp([2, 4, 3], 0))
    rows = torch.tensor([[-1.0, 1.0], [-2.0, 2.0], [3.0, 3.0], [9.0, -9.0]]).unsqueeze(1)[:, :, :1]
    for values, expected, weights in (([-1, -2, 3, 9], -5, [1, 2, 0, 0]), ([1, 2, 3, -9], 1, [1, 0, 0, 0])):
        rows = torch.tensor(values, dtype=torch.float32).reshape(4, 1, 1)
        score, pull = some.score(rows, torch.zeros(1, 1, dtype=torch.long))
        assert score.item() == expected and pull.flatten().tolist() == weights
        assert some.clauses(rows).flatten().tolist() == [min(values[:3]), values[3]]
    alone, pull = some.score(torch.tensor([-1.0, -2, 3, 9]).reshape(4, 1, 1), torch.zeros(1, 1, dtype=torch.long), True)
    assert alone.item() == -2 and pull.flatten().tolist() == [0, 1, 0, 0]


def test_violations_are_those_of_the_packed_rows_up_to_their_scale() -> None:
    some = goal(mlp([2, 4, 3], 3))
    assert some.packed.matrix.abs().amax(2).flatten().tolist() == [1.0] * 4
    x = points(some, 20, 1)
    y = some.graph.forward(x.flatten(0, 1)).double()
    by_hand = torch.stack([y @ torch.tensor(row, dtype=torch.float64) - float(d) for row, d in ROWS])
    clauses = some.clauses(some.rows(x))[0, :, 0].double()
    assert torch.equal(clauses >= 0, by_hand.amin(0) >= 0)


@pytest.mark.parametrize("inputs", [1, 2, 5, 12])
def test_even_points_reach_every_part_of_every_range(inputs: int) -> None:
    unit = even(256, inputs, torch.Generator().manual_seed(1), torch.zeros(1))
    assert unit.shape == (256, inputs) and (unit >= 0).all() and (unit < 1).all()
    for axis in range(inputs):
        assert torch.histc(unit[:, axis], 32, 0, 1).amin() >= 4


def test_spread_points_hold_all_corners_faces_and_fixed_inputs() -> None:
    fixed = InputSet((Fraction(0), Fraction(1, 2), Fraction(-2)), (Fraction(1), Fraction(1, 2), Fraction(5)))
    room = goal_of(mlp([3, 4, 3], 0), [Case(box(3), (clause(ROWS[0]),)), Case(fixed, (clause(ROWS[0]),))]).room
    sample = spread(room, 300, torch.Generator().manual_seed(0))
    assert ((sample >= room.lower) & (sample <= room.upper)).all()
    ends = (sample == room.lower) | (sample == room.upper)
    assert len(sample[ends.all(2)[:, 0], 0].unique(dim=0)) == 8
    assert set(ends[:, 0].sum(1).tolist()) == {0, 1, 2, 3}
    inner = sample[ends.sum(2)[:, 0] == 1, 0]
    assert (inner == room.lower[0]).any(0).all() and (inner == room.upper[0]).any(0).all()
    assert len(sample[:, 1, 1].unique()) == 1 and len(sample[:, 1, 0].unique()) > 100


def test_points_beside_a_plateau_come_before_its_own() -> None:
    values = torch.tensor([-1.0, -1, -1, -1, -3, -1, -2])
    assert by_level(values, 0)[:3].tolist() == [0, 6, 4]
    some = goal(mlp([2, 4, 3], 0))
    x = torch.arange(7.0).reshape(7, 1, 1).expand(7, 1, 2)
    starts, aim = nearest(some, x, torch.stack((values, values - 5)).unsqueeze(2), 5)
    assert aim.flatten().tolist() == [0, 1, 0, 1, 0]
    assert starts[:, 0, 0].tolist() == [0, 0, 6, 6, 4]


def test_clauses_are_dealt_in_turn_from_the_nearest_on() -> None:
    """A case of two clauses beside one of one: the second never aims at a clause that it does not have."""
    some = goal_of(
        mlp([2, 4, 3], 0), [Case(box(2), (clause(ROWS[0]), clause(ROWS[1]))), Case(box(2), (clause(ROWS[2]),))]
    )
    values = torch.tensor([[-3.0, -1.0], [-2.0, -torch.inf]])
    assert dealt(some, values, 5).tolist() == [[1, 0], [0, 0], [1, 0], [0, 0], [1, 0]]
    assert dealt(some, values, 2, first=3).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize(
    "graph",
    [
        mlp([5, 12, 12, 3], 0),
        mlp([5, 12, 12, 3], 1, LeakyRelu(0.1)),
        mlp([5, 12, 12, 3], 2, Abs()),
        mlp([5, 12, 12, 3], 3, Clip(-0.2, 0.3)),
        residual(5, 3, 3, 0),
        convolutional(0, False),
    ],
)
def test_a_line_search_is_never_beaten_by_points_of_the_line(graph: Graph) -> None:
    """2001 points of each of 30 segments, conjunctions of three rows and single ones, in float32."""
    some = goal(graph)
    here = some.select(torch.zeros(10, dtype=torch.long))
    start, ends = points(some, 10, 1)[:, 0], points(some, 30, 2).reshape(3, 10, *graph.input_shape)
    for clause_index in (0, 1):
        aim = torch.full((10,), clause_index)
        t, value = best_on_lines(here, start, ends, aim, 1 << 16)
        assert ((t >= 0) & (t <= 1)).all()
        share = torch.linspace(0, 1, 2001)
        for line in range(3):
            steps = share.reshape(-1, 1, *(1,) * len(graph.input_shape))
            sampled = some.clauses(some.rows((start + steps * (ends[line] - start)).flatten(0, 1).unsqueeze(1)))
            most = sampled[clause_index].reshape(2001, 10).amax(0)
            there = start + t[line].reshape(-1, *(1,) * len(graph.input_shape)) * (ends[line] - start)
            reached = some.clauses(some.rows(there.unsqueeze(1)))[clause_index, :, 0]
            tolerance = 1e-4 * (1 + value[line].abs())
            assert ((reached - value[line]).abs() <= tolerance).all()
            assert (most <= reached + tolerance).all()


def test_rows_that_meet_between_breakpoints_are_met_exactly() -> None:
    """A linear network bends nowhere; x >= 0.1 and x <= 0.1 hide behind steeper rows at both ends of the line."""
    graph = sequential((1,), [Linear(torch.tensor([[1.0], [3.0]]).double(), torch.zeros(2).double())])
    tenth = Fraction(1, 10)
    rows = [([1, 0], tenth), ([0, 1], -6 * tenth), ([-1, 0], -tenth), ([0, -1], -15 * tenth)]
    here = goal_of(graph, [Case(InputSet((Fraction(-1),), (Fraction(1),)), (clause(*rows),))])
    t, value = best_on_lines(here, -torch.ones(1, 1), torch.ones(1, 1, 1), torch.zeros(1, dtype=torch.long), 100)
    assert abs(2 * t.item() - 1 - 0.1) < 1e-6 and abs(value.item()) < 1e-6


def test_lines_are_searched_only_where_every_bend_is_known() -> None:
    assert affordable(goal(mlp([5, 12, 3], 0))) > 100
    assert affordable(goal(mlp([5, 12, 3], 0, Tanh()))) == 0
    assert affordable(goal(mlp([5, 2000, 2000, 3], 0))) == 0
