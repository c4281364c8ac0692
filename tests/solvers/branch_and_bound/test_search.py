"""Branch and bound decides what it should, never contradicts sampling, keeps its time and its memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GraphExecutor, convolutional, mlp, residual
from search_kit import box, interrupted, outputs, threshold

from provenn.solvers.base import Budget, Outcome, Problem, Result, Verdict
from provenn.solvers.branch_and_bound import BranchAndBound, search
from provenn.solvers.branch_and_bound.proof import CaseProof
from provenn.verifier.bounds.backward import crown
from provenn.verifier.graph import Graph
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region
from provenn.verifier.spec import Case, Clause


def decided(graph: Graph, cases: Sequence[Case], split: str = "auto", seconds: float = 60.0) -> Result:
    return BranchAndBound(split=split).solve(Problem(graph, cases, GraphExecutor(graph)), Budget(seconds))


SMALL = [("input", 7), ("input", 8), ("neuron", 7), ("neuron", 8), ("auto", 9)]


@pytest.mark.parametrize(("split", "seed"), SMALL)
def test_tight_thresholds_are_decided_both_ways(split: str, seed: int) -> None:
    graph = mlp([3, 12, 12, 2], seed)
    inputs = box(graph, Fraction(1, 2))
    above, below = (threshold(graph, inputs, (1, -1), share) for share in (Fraction(1, 20), Fraction(-1, 20)))
    result = decided(graph, [above, below], split)
    assert [o.verdict for o in result.outcomes] == [Verdict.VERIFIED, Verdict.FALSIFIED]
    assert result.stats["branch-and-bound_domains"] > 1, "it had to branch"
    assert isinstance(result.outcomes[0].proof, CaseProof) and result.outcomes[0].margin > 0
    witness = result.outcomes[1].witness
    assert witness is not None and inputs.contains(witness)


@pytest.mark.parametrize("activation", [Tanh(), Sigmoid(), LeakyRelu(0.1)])
@pytest.mark.parametrize("split", ["input", "neuron"])
def test_other_activations_are_split_too(activation: Op, split: str) -> None:
    graph = mlp([3, 8, 8, 1], 5, activation)
    inputs = box(graph, Fraction(1))
    result = decided(graph, [threshold(graph, inputs, (1,), Fraction(1, 8))], split)
    assert result.outcomes[0].verdict == Verdict.VERIFIED


@pytest.mark.parametrize("graph", [convolutional(0, True), convolutional(1, False), residual(6, 2, 3, 4)])
def test_convolutions_and_skip_connections(graph: Graph) -> None:
    """What CROWN cannot prove by a tenth of its gap to the largest value known."""
    inputs = box(graph, Fraction(1, 10))
    row = torch.tensor([1.0, -1.0] + [0.0] * (torch.Size(graph.output_shape).numel() - 2), dtype=torch.float64)
    relaxed = crown(graph, Region.of([inputs], graph.input_shape, "cpu", torch.float64))
    most = -float(relaxed.output_lower(-row.reshape(1, 1, -1)))
    limit = Fraction(most - 0.1 * (most - float((outputs(graph, inputs, 0) @ row).max())))
    clause = Clause((tuple(map(Fraction, row.tolist())),), (limit,))
    outcome = decided(graph, [Case(inputs, (clause,))], "neuron").outcomes[0]
    assert outcome.verdict == Verdict.VERIFIED


@settings(max_examples=8, deadline=None)
@given(
    st.integers(0, 300),
    st.sampled_from(["input", "neuron"]),
    st.sampled_from([None, 1.0, 2.0]),
    st.integers(1, 3),
    st.integers(1, 3),
)
def test_verdicts_never_contradict_sampling(seed: int, split: str, norm: float | None, clauses: int, rows: int) -> None:
    """Random disjunctions of conjunctions."""
    graph = mlp([4, 8, 8, 3], seed)
    inputs = box(graph, Fraction(1, 2), norm)
    found = outputs(graph, inputs, seed)
    generator = np.random.default_rng(seed)
    made = []
    for _ in range(clauses):
        matrix = generator.integers(-2, 3, (rows, 3))
        limits = (found @ torch.from_numpy(matrix).double().T).quantile(0.9, dim=0).tolist()
        made.append(Clause(tuple(tuple(map(Fraction, r)) for r in matrix.tolist()), tuple(map(Fraction, limits))))
    case = Case(inputs, tuple(made))
    outcome = decided(graph, [case], split, 5.0).outcomes[0]
    hit = any(c.holds([Fraction(v) for v in y]) for y in found.tolist() for c in made)
    assert not (hit and outcome.verdict == Verdict.VERIFIED)
    if outcome.verdict == Verdict.FALSIFIED:
        assert outcome.witness is not None and outcome.output is not None and inputs.contains(outcome.witness)
        assert any(c.holds([Fraction(float(v)) for v in outcome.output]) for c in made)


def same(first: Outcome, second: Outcome) -> bool:
    return (first.verdict, first.margin) == (second.verdict, second.margin)


@pytest.mark.parametrize("split", ["input", "neuron"])
def test_the_same_problem_gives_the_same_result(split: str) -> None:
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 20))
    first, second = (decided(graph, [case], split) for _ in range(2))
    assert same(first.outcomes[0], second.outcomes[0])
    assert first.stats["branch-and-bound_domains"] == second.stats["branch-and-bound_domains"]


def test_a_queue_on_disk_changes_nothing() -> None:
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 40))
    problem = Problem(graph, [case], GraphExecutor(graph))
    small = BranchAndBound(split="input", memory=0.01).solve(problem, Budget(60)).outcomes[0]
    large = BranchAndBound(split="input").solve(problem, Budget(60)).outcomes[0]
    assert small.verdict == large.verdict == Verdict.VERIFIED


def test_without_time_there_is_no_verdict_but_a_bound() -> None:
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 20))
    for split in ("input", "neuron"):
        outcome = decided(graph, [case], split, 0.0).outcomes[0]
        assert outcome.verdict == Verdict.TIMEOUT and outcome.margin <= 0


def test_a_relaxation_of_the_whole_region_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "GRACE", -1000.0)
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 20))
    outcome = decided(graph, [case], "neuron").outcomes[0]
    assert (outcome.verdict, outcome.margin, outcome.reason) == (Verdict.TIMEOUT, -float("inf"), None)


def test_no_step_begins_that_the_time_left_may_not_suffice_for() -> None:
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 20))
    one = search._Search(BranchAndBound(), Problem(graph, [case], None), graph, case, Budget(100.0), None)
    assert not one._over()
    one.left, one.budget = 0.6, Budget(0.4)  # the last step took 0.2 s
    assert not one._over()
    one.left, one.budget = 0.6, Budget(0.2)  # and this one 0.4 s
    assert one._over()
    one.budget = Budget(100.0)
    assert one._over(), "what has ended has ended"


def test_several_cases_share_the_time_and_progress_may_interrupt() -> None:
    graph = mlp([3, 12, 12, 2], 7)
    case = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(1, 20))
    problem = Problem(graph, [case, replace(case)], GraphExecutor(graph))
    seen: list[tuple[int, int]] = []
    BranchAndBound().solve(problem, Budget(60), lambda done, total, phase: seen.append((done, total)))
    assert seen[-1] == (2, 2) and {total for _, total in seen} == {2}

    with pytest.raises(InterruptedError):
        BranchAndBound().solve(problem, Budget(60), interrupted)


@pytest.mark.parametrize("split", ["input", "neuron"])
@pytest.mark.parametrize("scale", [2 * 10**38, 10**39])
def test_numbers_near_the_range_of_floats_decide_nothing_wrongly(split: str, scale: int) -> None:
    """scale y >= scale d is y >= d, which holds somewhere; infinities and what they make are never a proof."""
    graph = mlp([3, 12, 12, 2], 7)
    false = threshold(graph, box(graph, Fraction(1, 2)), (1, -1), Fraction(-1, 20))
    (clause,) = false.clauses
    scaled = Clause(tuple(tuple(scale * c for c in row) for row in clause.matrix), (scale * clause.bound[0],))
    outcome = decided(graph, [replace(false, clauses=(scaled,))], split, 5.0).outcomes[0]
    assert outcome.verdict != Verdict.VERIFIED


def test_a_clause_without_rows_is_never_excluded() -> None:
    graph = mlp([3, 12, 12, 2], 7)
    for split in ("input", "neuron"):
        outcome = decided(graph, [Case(box(graph, Fraction(1, 2)), (Clause((), ()),))], split, 2.0).outcomes[0]
        assert outcome.verdict != Verdict.VERIFIED


def test_the_margin_of_a_search_with_nothing_left_to_split_is_a_bound() -> None:
    """Of a property that does not hold, where nothing looks for a counterexample."""
    graph = mlp([2, 4, 1], 3)
    inputs = box(graph, Fraction(1))
    case = threshold(graph, inputs, (1,), Fraction(-1, 4))
    outcome = BranchAndBound(split="neuron").solve(Problem(graph, [case]), Budget(60)).outcomes[0]
    known = float(case.clauses[0].bound[0]) - float(outputs(graph, inputs, 0).max())
    assert outcome.verdict == Verdict.UNKNOWN
    assert -10 < outcome.margin <= known < 0
