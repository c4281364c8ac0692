"""Projection onto polyhedra, and the attack that follows it."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from networks import GraphExecutor, mlp

from provenn.solvers.attack import Attack
from provenn.solvers.base import Budget, Outcome, Problem, Verdict
from provenn.solvers.portfolio import Portfolio
from provenn.solvers.projection import project
from provenn.solvers.top_k_attack import TopKAttack, worthwhile
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.linear import Linear
from provenn.verifier.spec import Case, InputSet
from provenn.verifier.top_k import changes


@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 12))
def test_a_projection_is_feasible_and_nothing_feasible_is_nearer(seed: int, size: int, rows: int) -> None:
    generator = np.random.default_rng(seed)
    matrix, y = generator.normal(size=(rows, size)), 3 * generator.normal(size=size)
    inside = generator.normal(size=(20, size))
    bound = (inside @ matrix.T).min(0)  # all of `inside` is feasible
    z = project(matrix, bound, y)
    assert z is not None
    tolerance = 1e-8 * (1 + np.abs(y).max())
    assert (matrix @ z - bound).min() >= -tolerance
    # (y - z) (w - z) <= 0 for every feasible w: what characterises the projection onto a convex set.
    assert ((inside - z) @ (y - z)).max() <= 1e-7 * (1 + float(y @ y))


def test_what_is_inside_stays_and_what_is_empty_has_no_projection() -> None:
    one, y = np.array([[1.0, 0.0]]), np.array([2.0, -1.0])
    assert project(one, np.array([1.0]), y).tolist() == y.tolist()  # type: ignore[union-attr]
    assert project(one, np.array([4.0]), y).tolist() == [4.0, -1.0]  # type: ignore[union-attr]
    assert project(np.vstack([one, -one]), np.array([1.0, 0.0]), y) is None
    assert project(np.zeros((1, 2)), np.array([1.0]), y) is None


def test_pooled_labels_meet_in_their_mean() -> None:
    """Onto y_0 >= y_1 >= y_2 >= y_3 the projection is isotonic regression: pools of violators have their mean."""
    matrix = np.eye(4)[:3] - np.eye(4)[1:]
    found = project(matrix, np.zeros(3), np.array([1.0, 2.0, 6.0, 0.0]))
    np.testing.assert_allclose(found, [3.0, 3.0, 3.0, 0.0], atol=1e-12)


def _solved(graph: Graph, case: Case, attack: Attack) -> Outcome:
    problem = Problem(graph, [case], GraphExecutor(graph))
    (outcome,) = attack.solve(problem, Budget(30.0)).outcomes
    return outcome


def _cube(size: int, half: str) -> InputSet:
    return InputSet((-Fraction(half),) * size, (Fraction(half),) * size)


def test_a_list_that_can_be_reached_is_found_and_one_that_cannot_is_not() -> None:
    """The identity: outputs are inputs, so that in a cube around a point exactly near lists can be reached."""
    graph = sequential((6,), [Linear(torch.eye(6, dtype=torch.float64), torch.arange(6.0, dtype=torch.float64) / 10)])
    case = Case(_cube(6, "0.3"), changes([5, 4, 3], 6, target=[3, 4, 5]))
    found = _solved(graph, case, TopKAttack())
    assert found.verdict == Verdict.FALSIFIED
    assert found.method == "top-k-attack"
    assert found.output is not None
    assert np.argsort(-found.output, kind="stable")[:3].tolist() == [3, 4, 5]
    far = Case(_cube(6, "0.09"), case.clauses)
    assert _solved(graph, far, TopKAttack()).verdict == Verdict.UNKNOWN


def test_it_finds_long_lists_that_the_plain_attack_misses() -> None:
    """Of the lists that random networks have somewhere in a cube, so that each can be reached."""
    found = {"attack": 0, "top-k-attack": 0}
    for seed in range(6):
        graph = mlp([16, 24, 24, 8], seed)
        generator = torch.Generator().manual_seed(seed)
        inside = (2 * torch.rand(1, 16, generator=generator, dtype=torch.float64) - 1) * 0.9
        at = [graph.forward(x)[0].argsort(descending=True)[:6].tolist() for x in (torch.zeros_like(inside), inside)]
        if at[0] == at[1]:
            continue
        case = Case(_cube(16, "1"), changes(at[0], 8, target=at[1]))
        for attack in (Attack(restarts=8, lines=0), TopKAttack(restarts=8, lines=0)):
            found[attack.name] += _solved(graph, case, attack).verdict == Verdict.FALSIFIED
    assert found["top-k-attack"] > found["attack"]


def test_auto_uses_it_where_several_rows_have_to_be_met() -> None:
    graph = mlp([16, 24, 24, 8], 1)
    at = graph.forward(torch.zeros(1, 16, dtype=torch.float64))[0].argsort(descending=True).tolist()
    executor = GraphExecutor(graph)
    apart = Problem(graph, [Case(_cube(16, "0.01"), changes(at[:3], 8))], executor)
    together = Problem(graph, [Case(_cube(16, "0.01"), changes(at[:3], 8, target=at[2::-1]))], executor)
    assert worthwhile(together)
    assert not worthwhile(apart)
    few = Problem(mlp([4, 8, 8], 0), [Case(_cube(4, "1"), together.cases[0].clauses)], executor)
    assert not worthwhile(few)
    (outcome,) = Portfolio().solve(together, Budget(30.0)).outcomes
    assert outcome.verdict == Verdict.VERIFIED
