"""The methods by name: each is valid, they are ordered as they should be, and they end when they are told to."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from networks import mlp, residual

from provenn.solvers.base import Budget
from provenn.solvers.lipsdp import descent, interior
from provenn.solvers.lipsdp.methods import METHODS, solve
from provenn.solvers.lipsdp.start import eclipse_fast, greedy, norm_product
from provenn.solvers.lipsdp.task import Point, Task
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.tanh import Tanh

LIPSDP = ("norm-product", "eclipse-fast", "lipsdp-layer", "lipsdp-neuron", "auto")


def program(graph: Graph) -> Program:
    return read(graph, torch.eye(graph.output_shape[0], dtype=torch.float64))


def feasible(task: Task, point: Point) -> bool:
    form = task.program.form(point.metric, point.multipliers)
    return float(torch.linalg.eigvalsh(form)[0]) >= -1e-9 * float(form.abs().max())


def equilibrium(width: int, strength: float) -> Graph:
    """z = relu(W z + U x), y = C z, with W = strength times an orthogonal matrix plus a skew part."""
    generator = torch.Generator().manual_seed(0)
    first, second, last = (torch.randn(width, width, generator=generator, dtype=torch.float64) for _ in range(3))
    zero = torch.zeros(width, dtype=torch.float64)
    weight = strength * torch.linalg.qr(first)[0] + (second - second.T)
    return sequential((width,), [Linear(last, zero), Implicit(weight, Relu()), Linear(first, zero)])


def test_every_method_is_feasible_and_they_are_ordered() -> None:
    task = Task(program(mlp([7, 9, 8, 4], 3)))
    found = {}
    for method in LIPSDP:
        solved = solve(task, method, Budget(60), lambda point: None)
        assert solved is not None
        assert feasible(task, solved.point), method
        found[method] = task.bound(solved.point.metric)
    assert found["lipsdp-neuron"] <= found["lipsdp-layer"] * (1 + 1e-8)
    assert found["lipsdp-layer"] <= min(found["norm-product"], found["eclipse-fast"])
    assert found["auto"] == pytest.approx(found["lipsdp-neuron"], rel=1e-9)


@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("method", ["norm-product", "lipsdp-layer", "lipsdp-neuron", "auto"])
def test_residual_networks_in_both_norms(method: str, norm: str) -> None:
    task = Task(program(residual(6, 3, 3, 1)), norm)
    solved = solve(task, method, Budget(60), lambda point: None)
    assert solved is not None
    assert feasible(task, solved.point)
    assert solved.point.metric.shape == (6,)


def test_the_best_point_so_far_is_told_and_only_improves() -> None:
    task, seen = Task(program(mlp([10, 20, 20, 5], 0))), list[float]()
    solve(task, "lipsdp-neuron", Budget(60), lambda point: seen.append(task.bound(point.metric)))
    assert len(seen) > 3
    assert all(later <= earlier for earlier, later in pairwise(seen))


def test_without_time_there_is_an_answer() -> None:
    task = Task(program(mlp([10, 20, 20, 5], 0)))
    solved = solve(task, "auto", Budget(0), lambda point: None)
    assert solved is not None
    assert feasible(task, solved.point)
    best = min(task.bound(p.metric) for p in (norm_product(task), eclipse_fast(task), greedy(task)) if p is not None)
    assert task.bound(solved.point.metric) <= best


def test_unknown_methods_and_networks_that_one_does_not_take_are_refused() -> None:
    task = Task(program(residual(4, 2, 2, 0)))
    with pytest.raises(BackendError, match="auto, norm-product, eclipse-fast"):
        solve(task, "lipsdp-network", Budget(9), lambda point: None)
    with pytest.raises(BackendError, match="chains"):
        solve(task, "eclipse-fast", Budget(9), lambda point: None)
    with pytest.raises(BackendError, match="implicit"):
        solve(Task(program(equilibrium(3, 0.5))), "norm-product", Budget(9), lambda point: None)


def test_the_lipsdp_network_multipliers_that_are_unsound_are_not_offered() -> None:
    assert not any("network" in name for name in METHODS)


def test_implicit_layers_have_a_bound_where_they_are_well_posed_and_none_elsewhere() -> None:
    task = Task(program(equilibrium(5, 0.6)))
    solved = solve(task, "auto", Budget(60), lambda point: None)
    assert solved is not None
    assert feasible(task, solved.point)
    assert solve(Task(program(equilibrium(5, 30.0))), "auto", Budget(9), lambda point: None) is None


def test_a_network_without_units_has_the_norm_of_its_matrix() -> None:
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    task = Task(program(sequential((6,), [Linear(weight, torch.zeros(4, dtype=torch.float64))])))
    solved = solve(task, "auto", Budget(9), lambda point: None)
    assert solved is not None
    assert task.bound(solved.point.metric) ** 0.5 == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=1e-7)


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_descent_is_feasible_and_comes_near_the_optimum(norm: str) -> None:
    task = Task(program(mlp([8, 12, 12, 4], 2, Tanh())), norm)
    start = greedy(task)
    assert start is not None
    found = descent.solve(task, start, lambda point: True)
    best = interior.solve(task, start, lambda point: True)
    assert feasible(task, found)
    least = task.bound(best.metric)
    assert least * (1 - 1e-9) <= task.bound(found.metric) < task.bound(start.metric)
    if norm == "2":
        assert task.bound(found.metric) <= 1.01 * least


def test_descent_ends_when_it_is_told() -> None:
    task, calls = Task(program(mlp([8, 12, 12, 4], 2))), list[Point]()
    start = greedy(task)
    assert start is not None

    def improved(point: Point) -> bool:
        calls.append(point)
        return len(calls) < 3

    descent.solve(task, start, improved)
    assert len(calls) == 3


@pytest.mark.parametrize("seed", range(4))
def test_closed_forms_are_never_above_the_product_of_the_norms(seed: int) -> None:
    graph = mlp([6, 10, 9, 8, 3], seed)
    task = Task(program(graph))
    norms = [float(torch.linalg.matrix_norm(n.op.weight, 2)) for n in graph.nodes if isinstance(n.op, Linear)]
    product = float(torch.tensor(norms).prod())
    exact, back = norm_product(task), greedy(task)
    assert exact is not None and back is not None
    assert task.bound(back.metric) ** 0.5 <= product * (1 + 1e-6)
    assert task.bound(exact.metric) ** 0.5 <= product * (1 + 1e-6)
    forward = eclipse_fast(task)
    assert forward is not None and feasible(task, forward)
