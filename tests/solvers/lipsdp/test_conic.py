"""Other people's solvers find the same constants, and what they return is always made feasible."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest
import torch
from networks import linear, mlp, residual
from torch import Tensor

from provenn.solvers.lipsdp import conic, interior, start
from provenn.solvers.lipsdp.start import greedy
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.errors import BackendError, ResourceLimit
from provenn.verifier.graph import sequential
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.ops.sort import Sort

pytestmark = pytest.mark.xdist_group("conic")
"""What the tests share is made once."""

SLOPES = [(0.0, 1.0), (0.1, 1.0), (-0.13, 1.13), (-1.0, 1.0)]

SAME = 1e-5
"""How far, relatively, the constants of two solvers may be apart."""


def chain(widths: list[int], seed: int, slopes: tuple[float, float]) -> Program:
    """A random chain whose units all have these slopes."""
    program = read(mlp(widths, seed), torch.eye(widths[-1], dtype=torch.float64))
    lower, upper = slopes
    units = [replace(u, lower=0 * u.lower + lower, upper=0 * u.upper + upper) for u in program.units]
    return Program(program.sizes, tuple(units), program.output)


def maxmin() -> Program:
    """Two layers of MaxMin."""
    generator = torch.Generator().manual_seed(2)
    ops: list[Op] = [linear(4, 6, generator), Reshape((3, 2)), Sort(1, True), Reshape((6,))]
    ops += [linear(6, 6, generator), Reshape((3, 2)), Sort(1, True), Reshape((6,)), linear(6, 2, generator)]
    return read(sequential((4,), ops), torch.eye(2, dtype=torch.float64))


def constant(task: Task, point: Point) -> float:
    return task.bound(point.metric) ** 0.5


def least(task: Task, point: Point) -> float:
    """The smallest eigenvalue of M."""
    return float(torch.linalg.eigvalsh(task.program.form(point.metric, point.multipliers))[0])


def ours(task: Task) -> Point:
    closed = greedy(task)
    assert closed is not None
    return interior.solve(task, closed, lambda _: True)


def agree(task: Task, solver: str) -> None:
    found, expected = conic.solve(task, solver), constant(task, ours(task))
    assert constant(task, found) == pytest.approx(expected, rel=SAME)
    assert found.lower**0.5 == pytest.approx(expected, rel=1e-3)
    assert found.lower**0.5 <= constant(task, found)
    assert least(task, found) > 0
    assert bool((found.multipliers >= 0).all())
    assert bool((found.multipliers[task.groups] == found.multipliers).all()) or task.shared
    assert (found.metric.shape, found.multipliers.shape) == (
        (task.program.sizes[0],),
        (task.program.size - task.program.sizes[0],),
    )


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("slopes", SLOPES)
@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("shared", [False, True])
def test_the_same_constants_as_ours(solver: str, slopes: tuple[float, float], norm: str, shared: bool) -> None:
    agree(Task(chain([6, 5, 4, 3], 1, slopes), norm, shared), solver)


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("name", ["residual", "maxmin"])
def test_the_same_constants_for_graphs_that_are_no_chains(solver: str, norm: str, name: str) -> None:
    rows = torch.eye(3, dtype=torch.float64)
    agree(Task(maxmin() if name == "maxmin" else read(residual(4, 2, 3, 5), rows), norm), solver)


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("slopes", SLOPES[::3])
def test_a_loose_tolerance_still_gives_a_bound(solver: str, norm: str, slopes: tuple[float, float]) -> None:
    task = Task(chain([6, 5, 4, 3], 3, slopes), norm)
    found, best = conic.solve(task, solver, tolerance=3e-2), constant(task, ours(task))
    closed = greedy(task)
    assert closed is not None
    assert least(task, found) > 0
    assert constant(task, found) >= best * (1 - 1e-7)
    assert constant(task, found) <= constant(task, closed) * (1 + 1e-6)


def test_more_inputs_and_outputs_than_units() -> None:
    """The problem that is solved is a smaller one; what is returned is for the one that was asked."""
    task = Task(chain([20, 3, 12], 4, (0.0, 1.0)))
    assert len(conic.solve(task, "clarabel").metric) == 20
    agree(task, "clarabel")


def test_a_linear_network_has_its_norm() -> None:
    matrix = torch.tensor([[3.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    for solver in ("clarabel", "scs"):
        task = Task(Program((2,), (), {0: matrix}))
        assert constant(task, conic.solve(task, solver)) == pytest.approx(3.0, rel=1e-6)


def test_mosek_without_a_licence_is_refused() -> None:
    status = conic.availability("mosek")
    if status == "available":
        pytest.skip("MOSEK is licensed here")
    with pytest.raises(BackendError, match=r"mosek': .*licence"):
        conic.solve(Task(chain([3, 2, 1], 0, (0.0, 1.0))), "mosek")


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Task(chain([3, 2, 1], 0, (0.0, 1.0)))
    with pytest.raises(BackendError, match="unknown; there are clarabel, mosek, scs"):
        conic.solve(task, "sedumi")
    monkeypatch.setitem(sys.modules, "scs", None)
    with pytest.raises(BackendError, match="'scs' is not installed"):
        conic.solve(task, "scs")


def test_a_solver_that_finds_nothing_is_named_with_its_status() -> None:
    task = Task(chain([6, 5, 4, 3], 1, (0.0, 1.0)))
    closed = greedy(task)
    assert closed is not None
    problem = conic._Problem.of(task, closed)
    hopeless = replace(problem, matrix=0 * problem.matrix, constant=torch.eye(len(problem.constant)).double())
    for solver in ("clarabel", "scs"):
        with pytest.raises(BackendError, match=f"lipsdp-conic, {solver}.* status 'infeasible"):
            hopeless.ask(solver, 1e-6, None)


def test_too_large_a_problem_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conic, "ENTRIES", 50)
    with pytest.raises(ResourceLimit, match="50"):
        conic.solve(Task(chain([6, 5, 4, 3], 1, (0.0, 1.0))), "scs")


def test_implicit_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "TRIES", 20)
    weight = torch.tensor([[0.3, 0.5], [-0.5, 0.2]], dtype=torch.float64)

    def program(scale: float) -> Program:
        plain = chain([2, 2, 2], 1, (0.0, 1.0))
        units = [replace(u, rows={**u.rows, 1: scale * weight}) for u in plain.units]
        return Program(plain.sizes, tuple(units), plain.output)

    agree(Task(program(1.0)), "clarabel")
    with pytest.raises(BackendError, match="well-posed"):
        conic.solve(Task(program(8.0)), "clarabel")


def test_the_answer_of_a_graph_of_ops() -> None:
    agree(Task(read(mlp([4, 6, 3], 1), torch.eye(3, dtype=torch.float64))), "scs")


def test_repair_leaves_what_is_feasible_as_it_is() -> None:
    task = Task(chain([6, 5, 4, 3], 1, (0.0, 1.0)))
    closed = greedy(task)
    assert closed is not None
    problem = conic._Problem.of(task, closed)
    inside = torch.full_like(problem.cost, 3.0)
    torch.testing.assert_close(problem.repaired(inside), inside, rtol=1e-8, atol=0)
    bad: Tensor = problem.repaired(torch.zeros_like(inside))
    assert float(torch.linalg.eigvalsh(problem.form(bad))[0]) > 0
    assert float(bad.max()) < conic.INSIDE
