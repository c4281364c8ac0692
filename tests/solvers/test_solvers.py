"""Backends agree with brute force on small networks, and keep their budget."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import GraphExecutor, mlp

from provenn.solvers.attack import Attack, replay
from provenn.solvers.base import Budget, Outcome, Problem, Result, Verdict
from provenn.solvers.crown import Crown
from provenn.solvers.ibp import Ibp
from provenn.solvers.packing import pack
from provenn.solvers.portfolio import BACKENDS, backend, merged
from provenn.verifier.bounds import auto
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import sequential
from provenn.verifier.ops.exponential import Log
from provenn.verifier.spec import Ball, Case, Clause, InputSet


def around(centre: np.ndarray, radius: Fraction, norm: float | None = None) -> InputSet:
    exact = [Fraction(float(v)) for v in centre]
    ball = Ball(tuple(exact), radius, norm) if norm else None
    return InputSet(tuple(v - radius for v in exact), tuple(v + radius for v in exact), ball)


def robust(label: int, outputs: int) -> tuple[Clause, ...]:
    def row(j: int) -> tuple[Fraction, ...]:
        return tuple(Fraction((k == j) - (k == label)) for k in range(outputs))

    return tuple(Clause((row(j),), (Fraction(0),)) for j in range(outputs) if j != label)


def classification(seed: int, radius: Fraction, count: int = 6, norm: float | None = None) -> Problem:
    graph = mlp([4, 10, 10, 3], seed)
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn((count, 4), generator=generator)
    labels = graph.forward(points.double()).argmax(1).tolist()
    cases = [Case(around(x.numpy(), radius, norm), robust(k, 3)) for x, k in zip(points, labels, strict=True)]
    return Problem(graph, cases, GraphExecutor(graph))


@settings(max_examples=16, deadline=None)
@given(
    st.integers(0, 500),
    st.sampled_from([Fraction(1, 1000), Fraction(1, 20), Fraction(1, 3), Fraction(2)]),
    st.sampled_from([None, 1.0, 2.0]),
)
def test_verdicts_never_contradict_sampling(seed: int, radius: Fraction, norm: float | None) -> None:
    problem = classification(seed, radius, norm=norm)
    result = backend("auto").solve(problem, Budget(60))
    generator = np.random.default_rng(seed)
    for case, outcome in zip(problem.cases, result.outcomes, strict=True):
        if outcome.verdict == Verdict.VERIFIED:
            unit = generator.random((500, 4)).round(1)
            points = case.inputs.lower + unit * (case.inputs.upper - case.inputs.lower)
            inside = [p for p in points if case.inputs.contains(p)]
            outputs = problem.graph.forward(torch.as_tensor(np.array(inside).reshape(-1, 4)))
            for output in outputs.tolist():
                assert not any(c.holds([Fraction(v) for v in output]) for c in case.clauses)
        if outcome.verdict == Verdict.FALSIFIED:
            assert outcome.witness is not None
            assert outcome.output is not None
            assert case.inputs.contains(outcome.witness)
            assert any(c.holds([Fraction(float(v)) for v in outcome.output]) for c in case.clauses)


def test_the_portfolio_decides_easy_problems_both_ways() -> None:
    tight = backend("auto").solve(classification(3, Fraction(1, 10_000)), Budget(60))
    assert {o.verdict for o in tight.outcomes} == {Verdict.VERIFIED}
    wide = backend("auto").solve(classification(3, Fraction(10)), Budget(60))
    assert {o.verdict for o in wide.outcomes} == {Verdict.FALSIFIED}


def test_the_portfolio_takes_the_linear_bounds_that_the_network_affords(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = replace(classification(3, Fraction(1, 2)), executor=None)
    stats = backend("auto").solve(problem, Budget(3)).stats
    assert "crown_seconds" in stats and "crown-ibp_seconds" not in stats
    monkeypatch.setattr(auto, "AFFORDABLE", 0.0)
    monkeypatch.setattr(auto, "DEAR", 0.0)
    stats = backend("auto").solve(problem, Budget(3)).stats
    assert "crown-ibp_seconds" in stats and "crown_seconds" not in stats


def test_a_case_that_cannot_be_bounded_is_unknown_with_the_reason_and_costs_the_others_nothing() -> None:
    """log(x): numbers below 0 are outside of its domain."""
    graph = sequential((1,), [Log()])
    clause = Clause(((Fraction(-1),),), (Fraction(1),))
    cases = [Case(around(np.array([x], np.float32), Fraction(1)), (clause,)) for x in (2, 0.5, 3)]
    for method in (Ibp(), Crown()):
        outcomes = method.solve(Problem(graph, cases), Budget(9)).outcomes
        assert [o.verdict for o in outcomes] == [Verdict.VERIFIED, Verdict.UNKNOWN, Verdict.VERIFIED]
        assert outcomes[1].reason is not None and "Log" in outcomes[1].reason and outcomes[0].reason is None


def test_the_l1_and_l2_balls_are_used_not_only_their_box() -> None:
    graph = mlp([2, 1], 0)
    radius = Fraction(1)
    clause = Clause(((Fraction(1),),), (Fraction(0),))
    margins = []
    for norm in (None, 2.0, 1.0):
        case = Case(around(np.zeros(2, np.float32), radius, norm), (clause,))
        margins.append(Crown().solve(Problem(graph, [case], dtype=torch.float64), Budget(9)).outcomes[0].margin)
    weight, bias = graph.nodes[1].op.weight[0], float(graph.nodes[1].op.bias)  # type: ignore[union-attr]
    for margin, order in zip(margins, (1, 2, float("inf")), strict=True):
        assert margin == pytest.approx(-bias - float(torch.linalg.vector_norm(weight, order)), rel=1e-6)


def test_margins_take_the_best_row_of_the_worst_clause() -> None:
    graph = mlp([1, 2], 0)
    one, two = Fraction(1), Fraction(2)
    rows = ((one, Fraction(0)), (Fraction(0), one))
    cases = [
        Case(around(np.zeros(1, np.float32), one), (Clause(rows, (one, two)), Clause(rows[:1], (two,)))),
        Case(around(np.zeros(1, np.float32), one), (Clause((), ()),)),
        Case(around(np.zeros(1, np.float32), one), ()),
    ]
    packed = pack(graph, cases, "cpu", torch.float64)
    lower = torch.zeros(packed.matrix.shape[:2], dtype=torch.float64)
    assert packed.margins(lower).tolist() == [2.0, -float("inf"), float("inf")]


def test_a_clause_without_rows_is_never_verified_and_always_falsified() -> None:
    graph = mlp([2, 3, 2], 1)
    case = Case(around(np.zeros(2, np.float32), Fraction(1)), (Clause((), ()),))
    result = backend("auto").solve(Problem(graph, [case], GraphExecutor(graph)), Budget(9))
    assert result.outcomes[0].verdict == Verdict.FALSIFIED
    for method in (Ibp(), Crown()):
        assert method.solve(Problem(graph, [case]), Budget(9)).outcomes[0].verdict == Verdict.UNKNOWN


def test_a_candidate_outside_the_exact_set_is_discarded() -> None:
    problem = classification(1, Fraction(1, 3))
    case, executor = problem.cases[0], problem.executor
    assert executor is not None
    outside = np.nextafter(case.inputs.upper.astype(np.float32), np.float32(np.inf))
    everything = Case(case.inputs, (Clause((), ()),))
    assert replay(executor, everything, outside[None]) is None
    assert replay(executor, everything, np.float32(case.inputs.lower + case.inputs.upper)[None] / 2) is not None


def test_an_ended_budget_is_a_timeout_not_a_verdict() -> None:
    for name in [name for name, chosen in BACKENDS.items() if chosen.status() == "available"]:
        result = backend(name).solve(classification(2, Fraction(1, 100)), Budget(0.0))
        assert {o.verdict for o in result.outcomes} == {Verdict.TIMEOUT}


def test_the_same_seed_gives_the_same_result() -> None:
    def run() -> Result:
        return backend("auto").solve(classification(5, Fraction(1, 2)), Budget(60))

    for a, b in zip(run().outcomes, run().outcomes, strict=True):
        assert (a.verdict, a.margin, a.method) == (b.verdict, b.margin, b.method)
        assert np.array_equal(a.witness, b.witness) if a.witness is not None else b.witness is None


def test_progress_reaches_every_case_and_may_interrupt() -> None:
    seen: list[tuple[int, int, str]] = []
    backend("auto").solve(classification(4, Fraction(1, 100)), Budget(60), lambda *now: seen.append(now))
    assert seen[-1][0] == seen[-1][1] == 6
    assert all(a <= b for a, b, _ in seen)

    def stop(*_: object) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        backend("auto").solve(classification(4, Fraction(1, 100)), Budget(60), stop)


def test_unknown_methods_are_named_with_the_known_ones() -> None:
    with pytest.raises(BackendError, match=r"unknown method; known methods: auto, ibp, .*attack"):
        backend("magic")
    with pytest.raises(BackendError, match="needs an executor"):
        Attack().solve(Problem(mlp([1, 1], 0), []), Budget(1))


def test_merging_keeps_the_decisive_outcome_and_the_largest_margin() -> None:
    loose = Outcome(Verdict.UNKNOWN, -3.0, "ibp", 1.0)
    late = Outcome(Verdict.TIMEOUT, -float("inf"), "crown", 0.5)
    found = Outcome(Verdict.FALSIFIED, -float("inf"), "attack", 0.5)
    assert merged(None, loose) is loose
    kept = merged(loose, late)
    assert (kept.verdict, kept.margin, kept.method, kept.seconds) == (Verdict.TIMEOUT, -3.0, "ibp", 1.5)
    assert merged(loose, found).verdict == Verdict.FALSIFIED
