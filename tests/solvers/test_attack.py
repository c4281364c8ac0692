"""The attack: what it must find, what it must not believe, and where its points may lie."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from attack_kit import THIRD, GraphExecutor, box, clause, goal_of
from networks import convolutional, mlp, residual
from torch import Tensor

from provenn.models.executor import OnnxExecutor
from provenn.models.onnx_reader import read
from provenn.solvers.ascent import polish
from provenn.solvers.attack import Attack, replay
from provenn.solvers.base import Budget, Outcome, Problem, Verdict
from provenn.solvers.exploration import Effort, explore
from provenn.solvers.portfolio import BRIEF
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.spec import Ball, Case, Clause, Constraint, InputSet
from provenn.verifier.spec_reader import read_specification


def confirmed(case: Case, outcome: Outcome, graph: Graph) -> bool:
    """Whether the witness lies in the exact set and its output, as executed anew, is unsafe."""
    assert outcome.witness is not None and outcome.output is not None
    again = GraphExecutor(graph).run(outcome.witness[None])[0]
    assert np.array_equal(again, outcome.output)
    unsafe = any(c.holds([Fraction(float(v)) for v in again.ravel()]) for c in case.clauses)
    return unsafe and case.inputs.contains(outcome.witness)


@pytest.mark.parametrize("seed", range(12))
def test_cases_of_different_clauses_are_decided_as_a_fine_grid_says(seed: int) -> None:
    """Two inputs: where the grid is unsafe by 1e-3, the attack must find it; what it finds must be so."""
    graph = mlp([2, 12, 12, 3], seed)
    rng = np.random.default_rng(seed)
    bounds = [Fraction(round(float(v), 2)) for v in rng.uniform(-0.6, 0.9, 9)]
    cases = [
        Case(box(2), (clause(([1, 0, 0], bounds[0]), ([0, -1, 0], bounds[1]), ([0, 0, 1], bounds[2])),)),
        Case(box(2), ()),
        Case(
            box(2), tuple(clause((row, d)) for row, d in zip(np.eye(3, dtype=int).tolist(), bounds[3:6], strict=True))
        ),
        Case(box(2), (clause(([1, -1, 0], bounds[6]), ([0, 1, -1], bounds[7])), clause(([-2, 0, 1], bounds[8])))),
        Case(box(2), (Clause((), ()), clause(([1, 0, 0], 1000)))),
    ]
    outcomes = Attack().solve(Problem(graph, cases, GraphExecutor(graph), seed=seed), Budget(60)).outcomes
    axis = torch.linspace(-1, 1, 201, dtype=torch.float64) / 3
    y = graph.forward(torch.cartesian_prod(axis, axis)).numpy()
    for case, outcome in zip(cases, outcomes, strict=True):
        met = [
            np.array(c.matrix, dtype=float).reshape(-1, 3) @ y.T - np.array(c.bound, float)[:, None]
            for c in case.clauses
        ]
        deepest = max((rows.min(0, initial=np.inf).max() for rows in met), default=-np.inf)
        if deepest >= 1e-3:
            assert outcome.verdict == Verdict.FALSIFIED
        if outcome.verdict == Verdict.FALSIFIED:
            assert confirmed(case, outcome, graph)
        else:
            assert outcome.verdict == Verdict.UNKNOWN


@pytest.mark.parametrize("graph", [mlp([4, 9, 3], 1), mlp([30, 9, 3], 1), residual(5, 2, 3, 0), convolutional(3, True)])
@pytest.mark.parametrize("norm", [None, 1.0, 2.0])
def test_every_point_looked_at_lies_in_the_exact_set_as_float32(graph: Graph, norm: float | None) -> None:
    inputs = int(np.prod(graph.input_shape))
    ball = Ball((Fraction(1, 7),) * inputs, Fraction(2, 5), norm) if norm else None
    cases = [Case(box(inputs, ball), (clause(([1, -1, 0], 50)), clause(([0, 1, 0], 40)))), Case(box(inputs, ball), ())]
    generator = torch.Generator().manual_seed(0)
    seen = 0
    for now in explore(goal_of(graph, cases), Effort(3, 6, 2, 4), lambda: [0, 1], generator):
        for column, case in enumerate(now.cases):
            for x in now.x[:, column][::3]:
                assert cases[case].inputs.contains(x.numpy().astype(np.float32))
                seen += 1
    assert seen > 20


@pytest.mark.parametrize("norm", [None, 2.0])
def test_constraints_hold_where_points_count_as_unsafe(norm: float | None) -> None:
    cut = (Constraint((Fraction(1), -THIRD, THIRD, Fraction(1, 10)), Fraction(1, 10)),)
    ball = Ball((Fraction(0),) * 4, THIRD, norm) if norm else None
    case = Case(box(4, ball, cut), (Clause((), ()),))
    graph = mlp([4, 9, 3], 1)
    inside = outside = 0
    for now in explore(goal_of(graph, [case]), Effort(5, 8, 2, 4), lambda: [0], torch.Generator().manual_seed(0)):
        for x in now.x[now.violation >= 0]:
            inside, outside = (inside + 1, outside) if case.inputs.contains(x.numpy()) else (inside, outside + 1)
    assert inside > 500 and outside <= 0.01 * inside


def test_all_rows_of_a_clause_must_hold_at_one_point() -> None:
    """x_0 >= 1/4, x_1 >= 1/4 and x_0 + x_1 <= 0.51: a corner of the box is unsafe for each row alone, not for all."""
    graph = sequential((2,), [Linear(torch.eye(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64))])
    wanted = clause(([1, 0], Fraction(1, 4)), ([0, 1], Fraction(1, 4)), ([-1, -1], Fraction(-51, 100)))
    problem = Problem(graph, [Case(box(2), (wanted,))], GraphExecutor(graph))
    (outcome,) = Attack(rounds=1).solve(problem, Budget(20)).outcomes
    assert outcome.verdict == Verdict.FALSIFIED and confirmed(problem.cases[0], outcome, graph)


def slab(inputs: int, width: float) -> Graph:
    """1 - |w x - 0.1| / width: not negative in a slab only; w: 1, 1/2, 1/3, .."""
    weight = 1 / torch.arange(1, inputs + 1, dtype=torch.float64)
    ops = [
        Linear(torch.stack((weight, -weight)), torch.tensor([-0.1, 0.1], dtype=torch.float64)),
        Relu(),
        Linear(torch.full((1, 2), -1 / width, dtype=torch.float64), torch.ones(1, dtype=torch.float64)),
    ]
    return sequential((inputs,), ops)


@pytest.mark.parametrize("inputs", [3, 40])
def test_exact_line_search_finds_a_needle_that_gradient_steps_step_over(inputs: int) -> None:
    graph = slab(inputs, 4e-7)
    problem = Problem(graph, [Case(box(inputs), (clause(([1], 0)),))], GraphExecutor(graph))
    (without,) = Attack(lines=0).solve(problem, Budget(60)).outcomes
    (found,) = Attack().solve(problem, Budget(60)).outcomes
    assert without.verdict == Verdict.UNKNOWN
    assert found.verdict == Verdict.FALSIFIED and confirmed(problem.cases[0], found, graph)


def rounded_away() -> Graph:
    """x, computed as (x + 2^25) - 2^25: in float32 a multiple of 4."""
    one, far = torch.ones(1, 1, dtype=torch.float64), torch.tensor([2.0**25], dtype=torch.float64)
    return sequential((1,), [Linear(one, far), Linear(one, -far)])


def test_candidates_that_the_executor_finds_safe_are_discarded_and_counted() -> None:
    """Over [1/2, 3/2] our float32 pass computes 0, which is unsafe; exactly, and so for the executor, x is safe."""
    graph = rounded_away()
    case = Case(InputSet((Fraction(1, 2),), (Fraction(3, 2),)), (clause(([-1], 0)),))
    result = Attack().solve(Problem(graph, [case], GraphExecutor(graph, torch.float64)), Budget(60))
    assert result.outcomes[0].verdict == Verdict.UNKNOWN and result.outcomes[0].witness is None
    assert result.stats["attack_discarded"] > 0


def test_after_failed_candidates_the_search_goes_on() -> None:
    """Over [-1/9, 3/2] everything looks unsafe alike; that the least x is, some later candidate tells."""
    graph = rounded_away()
    case = Case(InputSet((Fraction(-1, 9),), (Fraction(3, 2),)), (clause(([-1], 0)),))
    executor = GraphExecutor(graph, torch.float64)
    result = Attack().solve(Problem(graph, [case], executor), Budget(60))
    assert result.outcomes[0].verdict == Verdict.FALSIFIED
    assert result.stats["attack_discarded"] == len(executor.ran) - 1 > 0


def test_the_executor_is_asked_only_where_our_pass_finds_something() -> None:
    graph = mlp([3, 8, 2], 0)
    executor = GraphExecutor(graph)
    never, always = Case(box(3), (clause(([1, 0], 1000)),)), Case(box(3), (clause(([1, 0], -1000)),))
    result = Attack(rounds=1).solve(Problem(graph, [never, always, never], executor), Budget(60))
    assert [o.verdict for o in result.outcomes] == [Verdict.UNKNOWN, Verdict.FALSIFIED, Verdict.UNKNOWN]
    assert len(executor.ran) == 1 and result.stats["attack_discarded"] == 0


def test_clauses_that_cannot_be_met_do_not_keep_the_others_from_being_aimed_at() -> None:
    """Output 0 is constant, and all but unsafe; output 1 must grow from 0 to 9 of at most 10."""
    weight = torch.stack((torch.zeros(30), torch.ones(30))).double()
    graph = sequential((30,), [Linear(weight, torch.zeros(2, dtype=torch.float64))])
    problem = Problem(
        graph, [Case(box(30), (clause(([1, 0], Fraction(1, 100))), clause(([0, 1], 9))))], GraphExecutor(graph)
    )
    (outcome,) = Attack(lines=0).solve(problem, Budget(60)).outcomes
    assert outcome.verdict == Verdict.FALSIFIED


def test_the_seed_decides_everything() -> None:
    graph = mlp([30, 20, 20, 4], 5)
    rows = [[1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 1, -1]]
    cases = [Case(box(30), tuple(clause((row, Fraction(d, 10))) for row in rows)) for d in (3, 6, 9, 12)]

    def witnesses(seed: int) -> list[bytes | None]:
        outcomes = Attack().solve(Problem(graph, cases, GraphExecutor(graph), seed=seed), Budget(60)).outcomes
        return [None if o.witness is None else o.witness.tobytes() for o in outcomes]

    def points(seed: int) -> list[bytes]:
        generator = torch.Generator().manual_seed(seed)
        return [now.x.numpy().tobytes() for now in explore(goal_of(graph, cases), Effort(3, 4, 1, 2), every, generator)]

    def every() -> list[int]:
        return list(range(len(cases)))

    assert witnesses(3) == witnesses(3) != witnesses(4)
    assert points(3) == points(3) != points(4)


@dataclass(frozen=True)
class Reads(Budget):
    """A budget that ends when it has been read so many times."""

    reads: list[int] = field(default_factory=list)

    @property
    def left(self) -> float:
        self.reads[0] -= 1
        return float(self.reads[0] >= 0)


class Counting(Relu):
    """A Relu that counts the passes through it."""

    passes = 0

    def forward(self, *inputs: Tensor) -> Tensor:
        Counting.passes += 1
        return super().forward(*inputs)


@pytest.mark.parametrize("inputs", [3, 30])
@pytest.mark.parametrize("reads", [0, 1, 5, 11])
def test_the_budget_is_read_between_passes(inputs: int, reads: int) -> None:
    graph = mlp([inputs, 8, 2], 0, Counting())
    problem = Problem(graph, [Case(box(inputs), (clause(([1, 0], 1000)),))] * 2, GraphExecutor(graph))
    Counting.passes = 0
    result = Attack().solve(problem, Reads(1.0, reads=[reads]))
    assert {o.verdict for o in result.outcomes} == {Verdict.TIMEOUT}
    assert Counting.passes <= 3 * reads and (Counting.passes > 0) == (reads > 0)


def test_polished_candidates_stay_in_their_parts_and_are_unsafe() -> None:
    graph = mlp([4, 16, 16, 2], 2)
    case = Case(box(4), (clause(([1, -1], Fraction(2, 5))),))
    goal = goal_of(graph, [case])
    cells = torch.cartesian_prod(*[torch.arange(4)] * 4).float()
    width = (goal.room.upper - goal.room.lower) / 4
    lower, upper = goal.room.lower + cells * width, goal.room.lower + (cells + 1) * width
    middle = (lower + upper) / 2
    found = torch.from_numpy(polish(goal, middle, lower, upper))
    outputs = goal.graph.forward(found)
    depth = outputs[:, 0] - outputs[:, 1] - 0.4
    assert (depth >= 0).all() and (depth.diff() <= 1e-6).all()
    at_middle = goal.graph.forward(middle)
    assert len(cells) > len(found) > int((at_middle[:, 0] - at_middle[:, 1] >= 0.4).sum()) > 5
    for cell in range(0, len(cells), 5):
        part = slice(cell, cell + 1)
        for x in torch.from_numpy(polish(goal, middle[part], lower[part], upper[part])):
            assert ((x >= lower[cell]) & (x <= upper[cell])).all()
    assert all(case.inputs.contains(x.numpy()) for x in found)
    assert replay(GraphExecutor(graph), case, found.numpy()) is not None
    safe = goal_of(graph, [Case(box(4), (clause(([1, -1], 1000)),))])
    assert polish(safe, middle, lower, upper).shape == (0, 4)


def test_a_first_gradient_imports_no_algebra_package() -> None:
    """torch.autograd would, to check the shapes of gradients it is given, and take longer than most attacks."""
    code = """
import sys
sys.path.insert(0, sys.argv[1])
from attack_kit import GraphExecutor, box, clause
from networks import mlp
from provenn.solvers.attack import Attack
from provenn.solvers.base import Budget, Problem
from provenn.verifier.spec import Case
graph = mlp([3, 8, 2], 0)
Attack().solve(Problem(graph, [Case(box(3), (clause(([1, 0], 1000)),))], GraphExecutor(graph)), Budget(60))
sys.exit("sympy" in sys.modules)
"""
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": str(here.parent)}
    assert subprocess.run([sys.executable, "-c", code, str(here)], check=False, env=environment).returncode == 0


INSTANCES = [
    ("acasxu", "ACASXU_run2a_2_2_batch_2000", "prop_2", BRIEF),
    ("acasxu", "ACASXU_run2a_4_9_batch_2000", "prop_2", BRIEF),
    ("acasxu", "ACASXU_run2a_1_9_batch_2000", "prop_7", Attack()),
    ("acasxu", "ACASXU_run2a_2_9_batch_2000", "prop_8", Attack()),
    ("acasxu", "ACASXU_run2a_5_3_batch_2000", "prop_2", Attack()),
    ("mnist_fc", "mnist-net_256x2", "prop_0_0.05", Attack()),
    ("rl_benchmarks", "lunarlander", "lunarlander_case_unsafe_3", BRIEF),
]


@pytest.mark.parametrize(("family", "network", "name", "attack"), INSTANCES)
def test_reference_instances_are_falsified_in_the_original_file(
    shared: Path, family: str, network: str, name: str, attack: Attack
) -> None:
    folder = shared / "vnncomp2022" / family
    data = gzip.decompress((folder / "onnx" / f"{network}.onnx.gz").read_bytes())
    (case,) = read_specification((folder / "vnnlib" / f"{name}.vnnlib.gz").read_bytes()).cases
    (outcome,) = attack.solve(Problem(read(data), [case], OnnxExecutor(data)), Budget(60)).outcomes
    assert outcome.verdict == Verdict.FALSIFIED
    assert outcome.witness is not None and case.inputs.contains(outcome.witness)
    output = OnnxExecutor(data).run(outcome.witness[None])[0]
    assert any(c.holds([Fraction(float(v)) for v in output.ravel()]) for c in case.clauses)
