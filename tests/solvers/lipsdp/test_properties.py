"""What the optimum is known to be, and what it must not depend on."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import mlp, residual
from torch import Tensor

from provenn.solvers.lipsdp.interior import solve
from provenn.solvers.lipsdp.searched import Measure, searched
from provenn.solvers.lipsdp.start import eclipse_fast, greedy, norm_product
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.arithmetic import Add, Sub
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.maximum import Maximum, Minimum
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Reshape, Select
from provenn.verifier.ops.sort import Sort
from provenn.verifier.ops.tanh import Tanh

SLACK = 1e-6
"""Relative accuracy of what the interior-point method is asked for, and some for its own rounding."""


def program(graph: Graph, scale: Tensor | None = None) -> Program:
    return read(graph, torch.eye(torch.Size(graph.output_shape).numel(), dtype=torch.float64), scale)


def optimum(given: Graph | Program, norm: str = "2", shared: bool = False) -> float:
    """The bound; the start is the best closed form, or the other one."""
    task = Task(given if isinstance(given, Program) else program(given), norm, shared)
    start = greedy(task)
    assert start is not None
    point = solve(task, start, lambda _: True)
    bound = task.bound(point.metric)
    assert point.lower <= bound * (1 + SLACK) and bound - point.lower <= SLACK * bound, "no optimum was reached"
    return float(bound**0.5)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def linear(weight: Tensor, seed: int = 0) -> Linear:
    return Linear(weight, random(len(weight), seed=seed))


def graph(inputs: int, *plan: tuple[Op, tuple[int, ...], tuple[int, ...]]) -> Graph:
    nodes = [Node("input", None, (), (inputs,))]
    return Graph((*nodes, *(Node(f"node{k}", op, sources, shape) for k, (op, sources, shape) in enumerate(plan, 1))))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (1, 4), (4, 1)])
def test_linear_maps(shape: tuple[int, int]) -> None:
    weight = random(*shape)
    network = sequential((shape[1],), [linear(weight)])
    assert optimum(network) == pytest.approx(float(torch.linalg.matrix_norm(weight, 2)), rel=SLACK)
    if shape[0] == 1:
        assert optimum(network, "inf") == pytest.approx(float(weight.abs().sum()), rel=SLACK)


def test_orthogonal_layers_and_functions_of_slope_one() -> None:
    turns = [linear(torch.linalg.qr(random(4, 4, seed=k))[0]) for k in range(4)]
    assert optimum(sequential((4,), [turns[0], Relu(), turns[1], Tanh(), turns[2], Abs(), turns[3]])) == pytest.approx(
        1, rel=SLACK
    )


def test_max_min_alone() -> None:
    sort: list[Op] = [Reshape((4, 2)), Sort(1, True), Reshape((8,))]
    turns = [linear(torch.linalg.qr(random(8, 8, seed=k))[0]) for k in range(2)]
    assert optimum(sequential((8,), sort)) == pytest.approx(1, rel=SLACK)
    assert optimum(sequential((8,), [turns[0], *sort, turns[1], *sort])) == pytest.approx(1, rel=SLACK)


def test_a_householder_reflection() -> None:
    """x - 2 v relu(v'x), |v| = 1: x, or its mirror image."""
    v = random(5, 1)
    v = v / v.norm()
    zero = torch.zeros(1, dtype=torch.float64)
    network = graph(
        5,
        (Linear(v.T, zero), (0,), (1,)),
        (Relu(), (1,), (1,)),
        (Linear(2 * v, torch.zeros(5, dtype=torch.float64)), (2,), (5,)),
        (Sub(), (0, 3), (5,)),
    )
    assert optimum(network) == pytest.approx(1, rel=SLACK)


@pytest.mark.parametrize("blocks", [1, 3])
def test_convex_potential_layers(blocks: int) -> None:
    """x - 2 / |W|^2 W' relu(W x + b): Meunier et al. 2022."""
    plan: list[tuple[Op, tuple[int, ...], tuple[int, ...]]] = []
    for k in range(blocks):
        weight = random(7, 4, seed=k)
        back = 2 / torch.linalg.matrix_norm(weight, 2) ** 2 * weight.T
        last = len(plan)
        plan += [
            (linear(weight, k), (last,), (7,)),
            (Relu(), (last + 1,), (7,)),
            (linear(back, k), (last + 2,), (4,)),
            (Sub(), (last, last + 3), (4,)),
        ]
    assert optimum(graph(4, *plan)) == pytest.approx(1, rel=SLACK)


MADE = {
    "relu": lambda seed: mlp([4, 7, 5, 3], seed),
    "tanh": lambda seed: mlp([3, 6, 6, 2], seed, Tanh()),
    "leaky": lambda seed: mlp([4, 6, 5, 2], seed, LeakyRelu(0.3)),
    "steep": lambda seed: mlp([3, 5, 5, 2], seed, LeakyRelu(-1.5)),
    "residual": lambda seed: residual(4, 2, 3, seed),
    "one": lambda seed: mlp([1, 1, 1, 1], seed),
    "wide": lambda seed: mlp([2, 30, 2], seed),
}


@given(st.sampled_from(sorted(MADE)), st.integers(0, 10_000), st.sampled_from(["2", "inf"]))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_methods(kind: str, seed: int, norm: str) -> None:
    network = MADE[kind](seed)
    made = program(network)
    task = Task(made, norm)
    found = searched(
        network, Measure(torch.eye(network.output_shape[0], dtype=torch.float64), norm), None, 1e9, seed, 1
    )
    neuron, layer = (optimum(made, norm, shared) for shared in (False, True))
    above = 1 + SLACK
    assert found.value <= neuron * above
    assert neuron <= layer * above
    for closed in (norm_product(task), greedy(task), eclipse_fast(task)):
        assert closed is None or neuron <= task.bound(closed.metric) ** 0.5 * above
    product_ = norm_product(task)
    assert product_ is not None and layer <= task.bound(product_.metric) ** 0.5 * above


def largest_and_smallest(kind: str) -> Graph:
    """MaxMin of neighbours between two random maps of 6, in three ways."""
    first, last = linear(random(6, 4, seed=1)), linear(random(3, 6, seed=2))
    if kind == "sort":
        return sequential((4,), [first, Reshape((3, 2)), Sort(1, True), Reshape((6,)), last])
    even, odd = Select(0, (0, 2, 4)), Select(0, (1, 3, 5))
    order = torch.stack([torch.arange(3), torch.arange(3, 6)], 1).flatten()
    zipped = Linear(torch.eye(6, dtype=torch.float64)[order], torch.zeros(6, dtype=torch.float64))
    start = [(first, (0,), (6,)), (even, (1,), (3,)), (odd, (1,), (3,))]
    if kind == "maximum":
        ends = [(Maximum(), (2, 3), (3,)), (Minimum(), (2, 3), (3,))]
        return graph(4, *start, *ends, (Concat(0), (4, 5), (6,)), (zipped, (6,), (6,)), (last, (7,), (3,)))
    half = Linear(torch.eye(3, dtype=torch.float64) / 2, torch.zeros(3, dtype=torch.float64))
    means = [(Add(), (2, 3), (3,)), (half, (4,), (3,)), (Sub(), (2, 3), (3,)), (Abs(), (6,), (3,)), (half, (7,), (3,))]
    ends = [(Add(), (5, 8), (3,)), (Sub(), (5, 8), (3,))]
    return graph(4, *start, *means, *ends, (Concat(0), (9, 10), (6,)), (zipped, (11,), (6,)), (last, (12,), (3,)))


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_max_min_in_three_ways(norm: str) -> None:
    networks = [largest_and_smallest(kind) for kind in ("sort", "maximum", "abs")]
    x = random(5, 4)
    for other in networks[1:]:
        assert torch.allclose(networks[0].forward(x), other.forward(x))
    values = [optimum(network, norm) for network in networks]
    assert values[1:] == pytest.approx(values[:1] * 2, rel=1e-7)


def slopes(weights: list[Tensor]) -> float:
    """The largest |J|_1 of a scalar ReLU network over all patterns of its neurons, whether there is an input or not."""
    sizes = [len(w) for w in weights[:-1]]
    best = 0.0
    for pattern in product((0.0, 1.0), repeat=sum(sizes)):
        total = weights[0]
        for on, weight in zip(torch.tensor(pattern, dtype=torch.float64).split(sizes), weights[1:], strict=True):
            total = weight @ (on[:, None] * total)
        best = max(best, float(total.abs().sum()))
    return best


@given(st.integers(0, 10_000))
@settings(max_examples=8, deadline=None)
def test_scalar_rows_in_the_largest_norm(seed: int) -> None:
    network = mlp([3, 3, 3, 1], seed)
    weights = [node.op.weight for node in network.nodes if isinstance(node.op, Linear)]
    exact = slopes(weights)
    assert exact <= optimum(network, "inf") * (1 + SLACK)
    # One hidden layer of one neuron: every pattern occurs, and the program is exact.
    single = mlp([3, 1, 1], seed)
    weights = [node.op.weight for node in single.nodes if isinstance(node.op, Linear)]
    assert optimum(single, "inf") == pytest.approx(slopes(weights), rel=SLACK)


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_a_weighted_norm_is_that_of_a_rescaled_network(norm: str) -> None:
    network = mlp([4, 6, 5, 3], 7)
    scale = torch.tensor([0.1, 1.0, 3.0, 20.0], dtype=torch.float64)
    ops = [node.op for node in network.nodes[1:] if node.op is not None]
    assert isinstance(ops[0], Linear)
    rescaled = sequential((4,), [Linear(ops[0].weight / scale, ops[0].bias), *ops[1:]])
    assert optimum(program(network, scale), norm) == pytest.approx(optimum(rescaled, norm), rel=SLACK)


@pytest.mark.parametrize("shared", [False, True])
def test_deep_chains_converge(shared: bool) -> None:
    network = mlp([5] * 21, 0)
    task = Task(program(network), shared=shared)
    product_ = norm_product(task)
    assert product_ is not None
    assert optimum(network, shared=shared) < task.bound(product_.metric) ** 0.5 / 10


SIZES = 10.0 ** torch.linspace(-6, 6, 6, dtype=torch.float64)
BARE: dict[str, tuple[list[Tensor], Op]] = {
    "dead neurons": ([random(6, 4) * (torch.arange(6) != 2)[:, None], random(5, 6) * (torch.arange(6) != 3)], Relu()),
    "duplicates": ([random(3, 4).repeat(2, 1), random(5, 6)], Relu()),
    "opposites": ([torch.cat([random(3, 4), -random(3, 4)]), random(5, 6)], Relu()),
    "rank one": ([random(6, 1) @ random(1, 4), random(5, 1) @ random(1, 6)], Relu()),
    "one neuron": ([random(1, 4), random(1, 1), random(3, 1)], Relu()),
    "tiny": ([1e-12 * random(6, 4), 1e-12 * random(5, 6)], Relu()),
    "huge": ([1e12 * random(6, 4), 1e12 * random(5, 6)], Relu()),
    "opposed sizes": ([1e12 * random(6, 4), 1e-12 * random(5, 6)], Relu()),
    "sizes": ([random(6, 4) * SIZES[:, None], random(5, 6)], Relu()),
    "same sign": ([random(6, 4), random(5, 6), random(3, 5)], LeakyRelu(0.5)),
    "steep": ([random(6, 4), random(5, 6), random(3, 5)], LeakyRelu(1e3)),
    "nearly linear": ([random(6, 4), random(5, 6)], LeakyRelu(0.99)),
}


@pytest.mark.parametrize("norm", ["2", "inf"])
@pytest.mark.parametrize("kind", sorted(BARE))
def test_degenerate_networks_converge(kind: str, norm: str) -> None:
    weights, function = BARE[kind]
    ops: list[Op] = [op for weight in weights for op in (linear(weight), function)]
    network = sequential((weights[0].shape[1],), ops[:-1])
    value = optimum(network, norm)
    found = searched(network, Measure(torch.eye(len(weights[-1]), dtype=torch.float64), norm), None, 1e9, 0, 1)
    assert 0 <= found.value <= value * (1 + SLACK)
