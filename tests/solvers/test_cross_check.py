"""What a cross-check calls a contradiction, and what it finds on networks."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction

import pytest
from test_solvers import classification

from provenn.solvers.auto_lirpa import AutoLirpaCrown
from provenn.solvers.base import Budget
from provenn.solvers.cross_check import Comparison, compare, crown_apart, smallest_margins
from provenn.solvers.crown import Crown
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import sequential
from provenn.verifier.ops.linear import Linear
from provenn.verifier.spec import Case


@pytest.fixture
def peer() -> None:
    if (status := AutoLirpaCrown.status()) != "available":
        pytest.skip(f"auto_LiRPA: {status}")


def compared(ours: float = 1.0, found: float = 2.0, rows: tuple[float, float] | None = None) -> Comparison:
    return Comparison({"crown": ours, "auto-lirpa-crown": 0.5, "auto-lirpa-alpha-crown": 0.9}, found, rows)


def test_sound_bounds_may_differ() -> None:
    assert compared().disagreements() == []
    assert compared(ours=-math.inf).disagreements() == []
    assert compared(found=math.inf).disagreements() == []


def test_a_bound_above_a_point_is_a_contradiction() -> None:
    wrong = compared(ours=2.1).disagreements()
    assert wrong == ["crown's lower bound 2.1 is above the margin 2 of a point of the region"]
    assert len(compared(found=0.7).disagreements()) == 2
    assert compared(ours=2 + 1e-9).disagreements() == []


@pytest.mark.parametrize("rows", [(1.0, 1.001), (1.001, 1.0), (math.nan, 1.0), (1.0, math.nan)])
def test_one_method_with_two_results_is_a_contradiction(rows: tuple[float, float]) -> None:
    assert [message[:18] for message in compared(rows=rows).disagreements()] == ["CROWN bounds a row"]
    assert compared(rows=(rows[0], rows[0]) if rows[0] == rows[0] else (1.0, 1.0)).disagreements() == []


@pytest.mark.parametrize("norm", [None, 1.0, 2.0])
def test_points_lie_above_every_bound_and_find_counterexamples(norm: float | None) -> None:
    for radius in (Fraction(1, 50), Fraction(1), Fraction(6)):
        problem = classification(3, radius, norm=norm)
        found = smallest_margins(problem)
        bounds = [o.margin for o in Crown().solve(problem, Budget(60)).outcomes]
        assert all(b <= f + 1e-4 for b, f in zip(bounds, found, strict=True))
    assert min(found) < 0


def test_points_reach_the_exact_minimum_of_an_affine_network() -> None:
    problem = classification(0, Fraction(1, 4), count=3)
    first = problem.graph.nodes[1].op
    assert isinstance(first, Linear)
    head = Linear(first.weight[:3], first.bias[:3])
    affine = replace(problem, graph=sequential(problem.graph.input_shape, [head]))
    exact = [o.margin for o in Crown().solve(affine, Budget(60)).outcomes]
    assert smallest_margins(affine) == pytest.approx(exact, abs=1e-5)


def test_nothing_to_exclude_has_no_smallest_margin() -> None:
    problem = classification(0, Fraction(1, 4), count=1)
    assert smallest_margins(replace(problem, cases=[Case(problem.cases[0].inputs, ())])) == [math.inf]


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("radius", [Fraction(1, 50), Fraction(1, 2), Fraction(6)])
def test_no_disagreement_on_networks_that_both_bound(radius: Fraction) -> None:
    comparisons = compare(classification(5, radius), Budget(60))
    assert [c.disagreements() for c in comparisons] == [[]] * len(comparisons)
    assert all(c.rows is not None and len(c.bounds) == 3 and min(c.bounds.values()) > -math.inf for c in comparisons)


@pytest.mark.usefixtures("peer")
def test_rows_over_balls_are_not_compared() -> None:
    assert crown_apart(classification(5, Fraction(1, 2), count=2, norm=2.0), Budget(60)) == [None, None]


def test_without_auto_lirpa_it_says_what_to_do() -> None:
    if AutoLirpaCrown.status() == "available":
        pytest.skip("auto_LiRPA can be imported here")
    with pytest.raises(BackendError, match="git clone"):
        compare(classification(5, Fraction(1, 2), count=1), Budget(60))
