"""Quadratic forms of increments: coordinates, slopes and the inequality (1) hold at every pair of executions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import mlp, residual
from random_graphs import Builder
from table import CASES, Case
from torch import Tensor

from provenn.solvers.lipsdp.interior import solve
from provenn.solvers.lipsdp.start import greedy
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.errors import UnsupportedOp
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.arithmetic import Add, Sub
from provenn.verifier.ops.base import Affine, Op
from provenn.verifier.ops.exponential import Exp
from provenn.verifier.ops.gated import Gelu
from provenn.verifier.ops.implicit import Implicit
from provenn.verifier.ops.increments import Increments
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.maximum import Maximum, Minimum
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Reshape
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.softmax import Softmax
from provenn.verifier.ops.sort import Sort, comparators
from provenn.verifier.ops.steps import Floor
from provenn.verifier.ops.tanh import Tanh

TOLERANCE = 1e-9
"""Of identities between float64 numbers near 1, which are linear maps of up to a few hundred terms."""


@dataclass
class Executions:
    """The scope in which a `difference` is two executions' values [2, *node]: units are the functions themselves.

    seen: for every node its layers of units in order, arguments and results, each [2, cells].
    """

    node: Node
    seen: dict[str, list[tuple[Tensor, Tensor]]] = field(default_factory=dict)

    def slopes(self) -> tuple[Tensor, Tensor]:
        return torch.zeros(1), torch.ones(1)

    def boxes(self) -> Sequence[Interval]:
        raise UnsupportedOp(self.node.name, type(self.node.op).__name__, "units that are not functions of one value")

    def units(self, argument: Increments, lower: Tensor, upper: Tensor) -> Increments:
        assert self.node.op is not None
        return self.layer(argument, self.node.op.forward)

    def rectified(self, gap: Increments) -> Increments:
        return self.layer(gap, torch.relu)

    def fixed_point(self, weight: Tensor, argument: Increments) -> Increments:
        assert isinstance(self.node.op, Implicit)
        solution = self.node.op.forward(argument.blocks[0])
        own = argument.blocks[0] + solution @ weight.T
        self.seen.setdefault(self.node.name, []).append((own.flatten(1), solution.flatten(1)))
        return Increments({0: solution})

    def layer(self, argument: Increments, function: Callable[[Tensor], Tensor]) -> Increments:
        value = argument.blocks[0]
        result = function(value)
        self.seen.setdefault(self.node.name, []).append((value.flatten(1), result.flatten(1)))
        return Increments({0: result})


def executed(graph: Graph, pair: Tensor) -> Executions:
    """Two executions, every op by its increments where it is not affine; they must give what `forward` gives."""
    scope = Executions(graph.nodes[0])
    values = [pair]
    for node in graph.nodes[1:]:
        assert node.op is not None
        scope.node = node
        inputs = [values[i] for i in node.inputs]
        value = node.op.forward(*inputs)
        if not isinstance(node.op, Affine):
            decomposed = node.op.increments([Increments({0: x}) for x in inputs], scope)
            assert decomposed is not None
            assert torch.allclose(decomposed.blocks[0], value, rtol=0, atol=TOLERANCE), node.name
        values.append(value)
    return scope


def coordinates(program: Program, scope: Executions, pair: Tensor) -> Tensor:
    """Z [size] of two executions, after the rows of every layer's arguments were compared with the real ones."""
    z = torch.zeros(program.size, dtype=torch.float64)
    z[program.block(0)] = (pair[0] - pair[1]).flatten()
    layers = {node: iter(entries) for node, entries in scope.seen.items()}
    for k, units in enumerate(program.units, start=1):
        for argument, result in layers[units.node]:  # a gap that was rectified before has no layer of its own
            if argument.shape[1] != units.length:
                continue
            z[program.block(k)] = (result[0] - result[1])[units.places]
            v = program.applied(units.rows, z[:, None])[:, 0]
            if torch.allclose(v, (argument[0] - argument[1])[units.places], rtol=0, atol=TOLERANCE):
                break
        else:
            pytest.fail(f"no layer of node {units.node} has the arguments of layer {k} of the program")
    return z


def products(program: Program, z: Tensor) -> Tensor:
    """(w - a v)(b v - w) of every unit."""
    w, v = z[program.sizes[0] :], program.arguments(z[:, None])[:, 0]
    return (w - program.lower * v) * (program.upper * v - w)


def equal(first: Tensor, second: Tensor) -> bool:
    """Up to rounding."""
    return torch.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE)


def right(graph: Graph, pairs: Tensor, boxes: Mapping[int, Interval] | None = None) -> Program:
    """The program of all outputs, once the coordinates and slopes are right at every pair [pairs, 2, *input]."""
    program = read(graph, torch.eye(torch.Size(graph.output_shape).numel(), dtype=torch.float64), None, boxes)
    for pair in pairs:
        z = coordinates(program, executed(graph, pair), pair)
        outputs = graph.forward(pair).flatten(1)
        assert equal(program.applied(program.output, z[:, None])[:, 0], outputs[0] - outputs[1])
        assert float(products(program, z).min() if program.units else 0.0) >= -TOLERANCE * (1 + float(z @ z))
    return program


def drawn(graph: Graph, count: int, seed: int) -> Tensor:
    """Pairs of inputs, near and far: [count, 2, *input]."""
    generator = torch.Generator().manual_seed(seed)
    first = 2 * torch.randn((count, *graph.input_shape), generator=generator, dtype=torch.float64)
    away = torch.randn(first.shape, generator=generator, dtype=torch.float64)
    size = 10 ** torch.linspace(-2, 1, count, dtype=torch.float64)
    return torch.stack([first, first + away * size.reshape(-1, *[1] * (away.dim() - 1))], 1)


def supported(case: Case) -> bool:
    try:
        read(alone(case), torch.eye(4, dtype=torch.float64))
    except UnsupportedOp:
        return False
    return True


def alone(case: Case, seed: int = 0) -> Graph:
    builder = Builder(torch.Generator().manual_seed(seed))
    builder.follow(case)
    return builder.graph()


COVERED = [case for case in CASES if supported(case)]
BRANCHING = [c for c in COVERED if type(c.op) in (Maximum, Minimum, Sort, Abs, LeakyRelu, Tanh, Sigmoid, Gelu, Relu)]


def test_the_cases_with_a_rule_are_those_of_the_contract() -> None:
    kinds = {type(case.op).__name__ for case in COVERED}
    wanted = (
        "Linear Conv AveragePool MaxPool Maximum Minimum Sort Add Sub Reshape Concat Abs LeakyRelu Relu Tanh Sigmoid"
    )
    assert kinds >= {*wanted.split(), "Gelu", "Clip", "Scale", "ReduceMax", "ReduceMin", "PRelu", "Elu", "Softplus"}
    assert not kinds & {"Exp", "Pow", "Softmax", "Multiply", "Floor", "MatMul", "Square", "Reciprocal", "Log"}


@pytest.mark.parametrize("case", COVERED, ids=lambda c: c.name)
def test_an_op_after_random_maps(case: Case) -> None:
    graph = alone(case, 1)
    right(graph, drawn(graph, 3, 0))


@given(st.lists(st.integers(0, len(COVERED) - 1), min_size=1, max_size=4), st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_random_graphs(picked: list[int], seed: int) -> None:
    builder = Builder(torch.Generator().manual_seed(seed))
    for k, number in enumerate(picked):
        builder.follow(COVERED[number])
        if (seed + k) % 3 == 0:
            builder.compare(smallest=bool(seed % 2))
    graph = builder.graph()
    right(graph, drawn(graph, 4, seed))


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
@settings(max_examples=10, deadline=None)
def test_sorting_networks(seed: int, cells: int, descending: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = Linear(
        torch.randn((2 * cells, 3), generator=generator, dtype=torch.float64), torch.zeros(2 * cells).double()
    )
    last = Linear(torch.randn((2, 2 * cells), generator=generator, dtype=torch.float64), torch.ones(2).double())
    shapes: list[Op] = [first, Reshape((2, cells)), Sort(1, descending), Reshape((2 * cells,)), last]
    graph = sequential((3,), shapes)
    program = right(graph, drawn(graph, 4, seed))
    assert program.size == 3 + 2 * sum(map(len, comparators(cells)))


@pytest.mark.parametrize("kind", ["tanh", "gelu", "relu", "sigmoid", "leaky"])
def test_slopes_of_a_box(kind: str) -> None:
    op = {"tanh": Tanh(), "gelu": Gelu(), "relu": Relu(), "sigmoid": Sigmoid(), "leaky": LeakyRelu(0.1)}[kind]
    graph = mlp([3, 8, 8, 2], 5, op)
    generator = torch.Generator().manual_seed(1)
    centre = torch.randn((1, 3), generator=generator, dtype=torch.float64)
    boxes, around = {0: Interval(centre - 0.2, centre + 0.2)}, 0.4 * torch.rand((6, 2, 3), generator=generator).double()
    for index, node in enumerate(graph.nodes[1:], start=1):
        assert node.op is not None
        boxes[index] = node.op.interval(*(boxes[i] for i in node.inputs))
    program = right(graph, centre - 0.2 + around, boxes)
    everywhere = read(graph, torch.eye(2, dtype=torch.float64))
    assert program.size < everywhere.size or bool(
        (program.upper - program.lower).sum() < (everywhere.upper - everywhere.lower).sum()
    )
    if kind in ("relu", "leaky"):
        assert program.size < everywhere.size, "neurons that are stable in the box have no coordinate"


def branched(seed: int) -> Graph:
    """Two branches, one of three layers, joined and compared: nodes that several others read."""
    generator = torch.Generator().manual_seed(seed)

    def linear(inputs: int, outputs: int) -> Linear:
        weight = torch.randn((outputs, inputs), generator=generator, dtype=torch.float64) / inputs**0.5
        return Linear(weight, torch.randn(outputs, generator=generator, dtype=torch.float64))

    plan: list[tuple[Op, tuple[int, ...], int]] = [
        (linear(3, 4), (0,), 4),
        (Relu(), (1,), 4),
        (linear(4, 5), (2,), 5),
        (Tanh(), (3,), 5),
        (linear(5, 4), (4,), 4),
        (Sub(), (1, 5), 4),
        (LeakyRelu(0.2), (6,), 4),
        (Maximum(), (7, 2), 4),
        (Minimum(), (7, 2), 4),
        (Concat(0), (8, 9, 0), 11),
        (linear(11, 4), (10,), 4),
        (Add(), (11, 1), 4),
        (Abs(), (12,), 4),
        (linear(4, 2), (13,), 2),
    ]
    nodes = [Node("input", None, (), (3,))]
    nodes += [Node(f"{type(op).__name__}_{k}", op, inputs, (size,)) for k, (op, inputs, size) in enumerate(plan)]
    return Graph(tuple(nodes))


MADE: dict[str, Callable[[int], Graph]] = {
    "chain": lambda seed: mlp([4, 6, 5, 3], seed),
    "smooth": lambda seed: mlp([4, 6, 5, 3], seed, Gelu()),
    "leaky": lambda seed: mlp([4, 6, 5, 3], seed, LeakyRelu(0.3)),
    "residual": lambda seed: residual(4, 2, 3, seed),
    "branched": branched,
}


def feasible(program: Program, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A random metric and multipliers with M >= 0: multipliers enlarged backward until the form passes, then metric."""
    point = greedy(Task(program))
    assert point is not None
    t = point.multipliers * (1 + torch.rand(len(point.multipliers), generator=generator, dtype=torch.float64) / 50)
    form = program.pulled(t)
    if form is None:
        t, form = point.multipliers, program.pulled(point.multipliers)
    assert form is not None
    skew = torch.rand(len(form), generator=generator, dtype=torch.float64)
    return form.abs().sum(1) + skew * float(form.diagonal().max()), t


@given(st.sampled_from(sorted(MADE)), st.integers(0, 10_000))
@settings(max_examples=25, deadline=None)
def test_a_positive_form_bounds_every_pair(kind: str, seed: int) -> None:
    graph = MADE[kind](seed)
    program = right(graph, drawn(graph, 2, seed))
    metric, t = feasible(program, torch.Generator().manual_seed(seed))
    assert float(torch.linalg.eigvalsh(program.form(metric, t))[0]) > -1e-9 * float(metric.max())
    for pair in drawn(graph, 20, seed + 1):
        outputs = graph.forward(pair).flatten(1)
        first, second = pair.flatten(1)
        assert float((outputs[0] - outputs[1]).square().sum()) <= float(metric @ (first - second) ** 2) * (1 + 1e-9)
        # The form itself at the real z is what the proof adds up.
        z = coordinates(program, executed(graph, pair), pair)
        total = z @ program.form(metric, t) @ z + 2 * t @ products(program, z)
        exact = metric @ (first - second) ** 2 - (outputs[0] - outputs[1]).square().sum()
        assert abs(float(total - exact)) <= 1e-8 * (1 + float(metric @ z[: len(metric)] ** 2))


@pytest.mark.parametrize("kind", sorted(MADE))
def test_forms_agree_with_their_blocks(kind: str) -> None:
    program = read(MADE[kind](3), torch.eye(MADE[kind](3).output_shape[0], dtype=torch.float64))
    generator = torch.Generator().manual_seed(0)
    metric, t = feasible(program, generator)
    z = torch.randn(program.size, generator=generator, dtype=torch.float64)
    outputs = program.applied(program.output, z[:, None])[:, 0]
    expected = metric @ z[: len(metric)] ** 2 - outputs @ outputs - 2 * t @ products(program, z)
    assert torch.allclose(z @ program.form(metric, t) @ z, expected, rtol=1e-10)
    # The Schur complement onto the input is the form minimised over all units.
    whole = program.form(torch.zeros_like(metric), t)
    n = len(metric)
    schur = whole[:n, :n] - whole[:n, n:] @ torch.linalg.solve(whole[n:, n:], whole[n:, :n])
    form = program.pulled(t)
    assert form is not None and torch.allclose(-form, schur, rtol=1e-8, atol=1e-10)


def test_the_input_scale_and_the_coordinates_scale() -> None:
    graph = mlp([4, 6, 5, 3], 0)
    c = torch.eye(3, dtype=torch.float64)
    scale = torch.tensor([0.5, 1, 2, 4], dtype=torch.float64)
    program, plain = read(graph, c, scale), read(graph, c)
    assert torch.allclose(program.units[0].rows[0], plain.units[0].rows[0] / scale)
    sizes = torch.rand(plain.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.5
    z = torch.randn(plain.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    scaled = plain.scaled(sizes)
    assert torch.allclose(products(scaled, z / sizes) * sizes[4:] ** 2, products(plain, z))


def optimum(graph: Graph, norm: str = "2") -> float:
    task = Task(read(graph, torch.eye(torch.Size(graph.output_shape).numel(), dtype=torch.float64)), norm)
    start = greedy(task)
    assert start is not None
    return task.bound(solve(task, start, lambda _: True).metric) ** 0.5


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_names_of_neurons_and_units_of_measure_do_not_matter(norm: str) -> None:
    graph = mlp([4, 7, 6, 2], 2)
    linears = [node.op for node in graph.nodes if isinstance(node.op, Linear)]
    orders = [torch.randperm(n, generator=torch.Generator().manual_seed(n)) for n in (7, 6)]
    weights = [op.weight.clone() for op in linears]
    biases = [op.bias for op in linears]
    for k, order in enumerate(orders):
        weights[k], biases[k], weights[k + 1] = weights[k][order], biases[k][order], weights[k + 1][:, order]
    permuted = chain(weights, biases)
    c = 17.0
    stretched = chain([linears[0].weight * c, linears[1].weight / c, linears[2].weight], biases)
    expected = optimum(graph, norm)
    assert optimum(permuted, norm) == pytest.approx(expected, rel=1e-6)
    assert optimum(stretched, norm) == pytest.approx(expected, rel=1e-6)


def chain(weights: list[Tensor], biases: list[Tensor]) -> Graph:
    ops: list[Op] = []
    for weight, bias in zip(weights, biases, strict=True):
        ops += [Linear(weight, bias), Relu()]
    return sequential((weights[0].shape[1],), ops[:-1])


@pytest.mark.parametrize(
    ("op", "shapes"),
    [(Exp(), 1), (Pow(2.0), 1), (Softmax(0), 1), (Multiply(), 2), (Floor(), 1)],
    ids=lambda x: type(x).__name__ if isinstance(x, Op) else "",
)
def test_what_has_no_rule_is_refused_by_name(op: Op, shapes: int) -> None:
    nodes = [Node("input", None, (), (3,)), Node("squashed", Tanh(), (0,), (3,))]
    nodes.append(Node("culprit", op, (1, 0)[:shapes], (3,)))
    with pytest.raises(UnsupportedOp, match=rf"'culprit': operator {type(op).__name__} .* region") as caught:
        read(Graph(tuple(nodes)), torch.eye(3, dtype=torch.float64))
    assert caught.value.node == "culprit" and caught.value.op_type == type(op).__name__


def test_a_region_makes_finite_slopes() -> None:
    graph = sequential((3,), [Exp()])
    centre = torch.zeros((1, 3), dtype=torch.float64)
    program = read(graph, torch.eye(3, dtype=torch.float64), None, {0: Interval(centre - 1, centre + 1)})
    e = torch.tensor(1.0, dtype=torch.float64).exp()
    assert equal(program.upper, e.expand(3)) and equal(program.lower, (1 / e).expand(3))


def implicit(seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((5, 5), generator=generator, dtype=torch.float64)
    weight = weight / torch.linalg.matrix_norm(weight, 2) * 0.7
    first, last = (
        Linear(torch.randn(s, generator=generator).double(), torch.zeros(s[0]).double()) for s in ((5, 3), (2, 5))
    )
    return sequential((3,), [first, Implicit(weight, (Relu(), Tanh())[seed % 2]), last])


@pytest.mark.parametrize("seed", [0, 1])
def test_implicit_layers_have_themselves_as_argument(seed: int) -> None:
    graph = implicit(seed)
    program = right(graph, drawn(graph, 4, seed))
    assert program.units[0].rows.keys() == {0, 1}
