"""The differences of products, the softmax and its relatives, normalization and gates, alone and in networks."""

from __future__ import annotations

from math import prod

import pytest
import torch
from cases_products import PRODUCT_CASES
from hypothesis import given
from hypothesis import strategies as st
from networks import linear
from op_case import Case
from table import BOXES, box, few, points
from torch import Tensor

from provenn.solvers.lipsdp.start import greedy
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.bounds.jacobian import forward_bounds, jacobian, row_norms
from provenn.verifier.bounds.quadratic import read
from provenn.verifier.derivative import jacobian_vector, vector_jacobian
from provenn.verifier.errors import ResourceLimit, UnsupportedOp
from provenn.verifier.graph import Graph, Node
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add, Sub
from provenn.verifier.ops.base import Affine, Elementwise, Op
from provenn.verifier.ops.centre import Centre
from provenn.verifier.ops.gate import Gate
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.log_sum_exp import LogSumExp
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.normalization import Normalize
from provenn.verifier.ops.power import Reciprocal
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.root_mean_square import RootMeanSquare
from provenn.verifier.ops.shape import Reshape, Select, Transpose
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.softmax import LogSoftmax, Softmax
from provenn.verifier.ops.table import OPS
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

ROUNDING = 1e-9
"""Of float64 Jacobians and of their bounds, search results rounded to nearest, relative to 1 plus the largest norm."""

Plan = list[tuple[Op, tuple[int, ...]]]


def made(size: int, plan: Plan) -> Graph:
    """Nodes in order, each an op and its inputs; node 0 is the input [size]."""
    nodes, values = [Node("input", None, (), (size,))], [torch.zeros(1, size, dtype=torch.float64)]
    for k, (op, inputs) in enumerate(plan, start=1):
        values.append(op.forward(*(values[i] for i in inputs)))
        nodes.append(Node(f"{type(op).__name__}_{k}", op, inputs, tuple(values[-1].shape[1:])))
    return Graph(tuple(nodes))


def parted(shapes: tuple[tuple[int, ...], ...]) -> Plan:
    """The input cut into values of these shapes, nodes 2, 4, .."""
    plan: Plan = []
    start = 0
    for shape in shapes:
        plan += [(Select(0, tuple(range(start, start + prod(shape)))), (0,)), (Reshape(shape), (len(plan) + 1,))]
        start += prod(shape)
    return plan


def alone(case: Case) -> Graph:
    plan = parted(case.shapes)
    plan.append((case.op, tuple(range(2, len(plan) + 1, 2))))
    return made(sum(map(prod, case.shapes)), plan)


def normalized(shape: tuple[int, ...], axes: tuple[int, ...], centred: bool, epsilon: float) -> Graph:
    plan: Plan = [(Reshape(shape), (0,))]
    plan += [(Centre(axes), (1,))] if centred else []
    c = len(plan)
    plan += [(RootMeanSquare(axes, epsilon), (c,)), (Reciprocal(), (c + 1,))]
    plan.append((Normalize(axes, epsilon, centred), (c, c + 2)))
    return made(prod(shape), plan)


def attention(tokens: int, width: int, seed: int) -> Graph:
    """A token's layer norm, self-attention beside a skip connection, a gated unit."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value, up, gate = (linear(width, width, generator) for _ in range(5))
    plan: Plan = [(Reshape((tokens, width)), (0,)), (Centre((1,)), (1,)), (RootMeanSquare((1,), 0.1), (2,))]
    plan += [(Reciprocal(), (3,)), (Normalize((1,), 0.1, True), (2, 4))]
    plan += [(query, (5,)), (key, (5,)), (value, (5,)), (Transpose((1, 0)), (7,))]
    plan += [(MatMul(), (6, 9)), (Softmax(1), (10,)), (MatMul(), (11, 8)), (Add(), (1, 12))]
    plan += [(up, (13,)), (gate, (13,)), (Sigmoid(), (15,)), (Multiply(), (14, 16))]
    return made(tokens * width, plan)


def classifier(seed: int) -> Graph:
    """The margin of the first logit over the others, and the cross-entropies."""
    generator = torch.Generator().manual_seed(seed)
    plan: Plan = [(linear(3, 6, generator), (0,)), (Tanh(), (1,)), (linear(6, 4, generator), (2,))]
    plan += [(LogSumExp((0,), True), (3,)), (LogSoftmax(0), (3,)), (Sub(), (5, 4))]
    return made(3, plan)


def decided(closed: bool) -> Graph:
    """A gate whose condition is a sigmoid, plus or minus 2: open in some cells, shut in others."""
    shift = torch.tensor([2.0, -2.0, 2.0], dtype=torch.float64)
    plan = [*parted(((3,), (2, 3))), (Sigmoid(), (2,)), (Linear(torch.eye(3).double(), shift), (5,))]
    return made(9, [*plan, (Gate(closed), (6, 4))])


GRAPHS = {case.name: alone(case) for case in PRODUCT_CASES if not isinstance(case.op, Affine)} | {
    "layer-norm": normalized((3, 4), (1,), True, 1e-5),
    "instance-norm": normalized((2, 2, 3), (1, 2), True, 0.5),
    "rms-norm": normalized((3, 4), (1,), False, 1e-3),
    "gate-open": decided(False),
    "gate-closed": decided(True),
    "square": made(3, [(Multiply(), (0, 0))]),
    "attention": attention(3, 4, 1),
    "classifier": classifier(2),
}

NETWORKS = ("attention", "classifier", "layer-norm", "rms-norm", "square", "multiply-broadcast", "matmul-matrices")


def test_every_op_has_a_rule() -> None:
    assert [op for op in OPS if op.increments is Op.increments] == []


def jacobians(graph: Graph, at: Tensor) -> Tensor:
    """[points, outputs, inputs], by automatic differentiation."""
    size = prod(graph.output_shape)

    def total(x: Tensor) -> Tensor:
        return graph.forward(x).flatten(1).sum(0)

    found = torch.autograd.functional.jacobian(total, at)
    return found.reshape(size, len(at), -1).transpose(0, 1)


def outputs(graph: Graph) -> Tensor:
    return torch.eye(prod(graph.output_shape), dtype=torch.float64)


def region(graph: Graph, kind: str, seed: int) -> tuple[Interval, Tensor]:
    """A box [1, inputs] of a kind, and points in it."""
    generator = torch.Generator().manual_seed(seed)
    both = box(kind, graph.input_shape, generator)
    chosen = Interval(both.lower[:1], both.upper[:1])
    return chosen, points(chosen, 24, generator)[:, 0]


@pytest.mark.parametrize("name", GRAPHS)
@few
@given(seed=st.integers(0, 2**20))
def test_a_point_has_its_own_derivative(name: str, seed: int) -> None:
    graph = GRAPHS[name]
    at, _ = region(graph, "point", seed)
    exact = jacobians(graph, at.lower)[0]
    bounds = forward_bounds(graph, Region(at), "crown")
    seeds = outputs(graph).reshape(-1, *graph.output_shape)
    found = vector_jacobian(graph, bounds).forward(seeds).flatten(1)
    torch.testing.assert_close(found, exact, rtol=1e-9, atol=1e-9 * float(1 + exact.abs().max()))
    tangents = torch.eye(exact.shape[1], dtype=torch.float64)
    forward = jacobian_vector(graph, bounds).forward(tangents).flatten(1).T
    torch.testing.assert_close(forward, found, rtol=1e-12, atol=1e-12 * float(1 + exact.abs().max()))


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("method", ["ibp", "crown"])
@few
@given(kind=st.sampled_from(BOXES), seed=st.integers(0, 2**20))
def test_jacobians_and_quotients_lie_within_the_bounds(name: str, method: str, kind: str, seed: int) -> None:
    graph = GRAPHS[name]
    within, sampled = region(graph, kind, seed)
    bounds, rows = forward_bounds(graph, Region(within), method), outputs(graph)
    entries, norms = jacobian(graph, bounds, rows, method), row_norms(graph, bounds, rows, method)
    exact, slack = jacobians(graph, sampled[:12]), ROUNDING * (1 + float(norms.max()))
    assert (entries.lower - slack <= exact).all()
    assert (exact <= entries.upper + slack).all()
    assert (exact.abs().sum(2) <= norms + slack).all()
    values, moved = graph.forward(sampled).flatten(1), sampled[1:] - sampled[:-1]
    gaps, largest = values[1:] - values[:-1], moved.abs().amax(1, keepdim=True)
    assert (gaps.abs() <= largest * norms + slack * (1 + largest)).all()
    # The two executions' difference is one of those that the graph of the tangent has.
    images = [propagate(jacobian_vector(graph, bounds), Interval(d, d))[-1] for d in moved[:6, None]]
    for gap, image, size in zip(gaps, images, largest, strict=False):
        assert (image.lower.flatten() - slack * (1 + size) <= gap).all()
        assert (gap <= image.upper.flatten() + slack * (1 + size)).all()


@pytest.mark.parametrize("name", NETWORKS)
@few
@given(seed=st.integers(0, 2**20))
def test_quadratic_forms_bound_every_pair_of_a_region(name: str, seed: int) -> None:
    graph = GRAPHS[name]
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(1, *graph.input_shape, generator=generator, dtype=torch.float64)
    within = Interval(centre - 0.05, centre + 0.05)
    program = read(graph, outputs(graph), None, dict(enumerate(propagate(graph, within))))
    point = greedy(Task(program))
    assert point is not None
    sampled = points(within, 40, generator)[:, 0]
    values, moved = graph.forward(sampled).flatten(1), sampled[1:] - sampled[:-1]
    bound = moved.square() @ point.metric
    assert ((values[1:] - values[:-1]).square().sum(1) <= bound * (1 + ROUNDING) + 1e-24).all()


@pytest.mark.parametrize("name", GRAPHS)
def test_nothing_is_known_everywhere_or_of_some_inputs_alone(name: str) -> None:
    graph = GRAPHS[name]
    with pytest.raises(UnsupportedOp, match="bounded over a region only"):
        read(graph, outputs(graph))
    bounds = dict(enumerate(propagate(graph, Interval(*torch.ones(2, 1, *graph.input_shape).double()))))
    last = next(n for n in reversed(graph.nodes) if not isinstance(n.op, Affine | Elementwise))
    bounds.pop(last.inputs[0])
    with pytest.raises(UnsupportedOp, match="bounded over a region only"):
        read(graph, outputs(graph), None, bounds)


@pytest.mark.parametrize("closed", [False, True])
def test_jumps_are_refused_by_name(closed: bool) -> None:
    graph = made(4, [*parted(((2,), (2,))), (Gate(closed), (2, 4))])
    within = Interval(-torch.ones(1, 4).double(), torch.ones(1, 4).double())
    bounds = propagate(graph, within)
    with pytest.raises(UnsupportedOp, match=r"Gate_5.*slopes over the region are not bounded"):
        vector_jacobian(graph, bounds)
    with pytest.raises(UnsupportedOp, match=r"Gate_5.*slopes are not bounded"):
        read(graph, outputs(graph), None, dict(enumerate(bounds)))
    nothing = torch.tensor([[1.0, 1, 0, 0]]).double()
    bounds = propagate(graph, Interval(-nothing, nothing))
    assert not row_norms(graph, bounds, outputs(graph), "ibp").lt(0).any(), "what is 0 all over its box does not jump"


def test_products_of_large_matrices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two numbers a pair of entries that meet: their limit is looked at before any is made."""
    wide = Linear(torch.ones(4096, 1).double(), torch.zeros(4096).double())
    plan: Plan = [(wide, (0,)), (Reshape((64, 64)), (1,)), (MatMul(), (2, 2)), (Reshape((4096,)), (3,))]
    graph = made(1, plan)
    bounds = propagate(graph, Interval(torch.zeros(1, 1).double(), torch.ones(1, 1).double()))
    with pytest.raises(ResourceLimit, match="MatMul_3"):
        read(graph, torch.ones(1, 4096).double(), None, dict(enumerate(bounds)))
    monkeypatch.setattr("provenn.verifier.derivative.CELLS", 2**16)
    with pytest.raises(ResourceLimit, match="MatMul_3"):
        vector_jacobian(graph, bounds)
