"""Implicit layers: their value solves the equation, is the one solution where there is one, and nothing else is known.

The tests over the table of ops do not apply to them: see `LIPSCHITZ_ONLY`.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import InvalidModel, Unbounded
from provenn.verifier.graph import sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.implicit import TOLERANCE, Implicit
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.table import LIPSCHITZ_ONLY, OPS
from provenn.verifier.ops.tanh import Tanh

FUNCTIONS = (Relu(), Tanh(), Sigmoid())
every_function = pytest.mark.parametrize("function", FUNCTIONS, ids=lambda op: type(op).__name__)


def well_posed(width: int, seed: int, size: float = 1.0, margin: float = 0.1) -> Tensor:
    """W with 2 T - T W - W'T = 2 margin T at least for a random diagonal T: 1 - W = T^-1 (T margin + A'A + B - B')."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(width, width, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.exp(1.5 * torch.randn(width, generator=generator, dtype=torch.float64))
    eye = torch.eye(width, dtype=torch.float64)
    return (1 - margin) * eye - size * (a.T @ a / width + b - b.T) / t.unsqueeze(1)


def sources(count: int, width: int, seed: int) -> Tensor:
    return 3 * torch.randn((count, width), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_is_no_op_of_the_table() -> None:
    assert (Implicit,) == LIPSCHITZ_ONLY
    assert Implicit not in OPS
    assert Implicit.onnx == ()


@every_function
@pytest.mark.parametrize("width", (1, 4, 30))
@pytest.mark.parametrize("size", (0.1, 3.0, 100.0))
@pytest.mark.parametrize("margin", (1.0, 1e-3))
def test_the_value_solves_the_equation(function: Op, width: int, size: float, margin: float) -> None:
    weight, u = well_posed(width, width, size, margin), sources(5, width, 1)
    z = Implicit(weight, function).forward(u)
    gap = z - function.forward(z @ weight.T + u)
    assert (gap.abs().amax(1) <= TOLERANCE * (1 + z.abs().amax(1))).all()


@pytest.mark.parametrize("function", (Tanh(), Sigmoid()), ids=lambda op: type(op).__name__)
def test_a_contraction_has_the_limit_of_its_iteration(function: Op) -> None:
    weight, u = 0.9 * well_posed(6, 0) / torch.linalg.matrix_norm(well_posed(6, 0), 2), sources(20, 6, 2)
    z = torch.zeros_like(u)
    for _ in range(400):
        z = function.forward(z @ weight.T + u)
    torch.testing.assert_close(Implicit(weight, function).forward(u), z, rtol=0, atol=1e-11)


def test_a_relu_layer_is_the_solution_of_its_complementarity_problem() -> None:
    """All 2^4 sets of active units: exactly one gives z >= 0 and W z + u <= 0 where z = 0."""
    weight, u = well_posed(4, 3), sources(10, 4, 3)
    z = Implicit(weight, Relu()).forward(u)
    for value, source in zip(z, u, strict=True):
        solutions = []
        for number in range(16):
            active = torch.tensor([number >> i & 1 for i in range(4)], dtype=torch.float64)
            found = torch.linalg.solve(torch.eye(4).double() - active[:, None] * weight, active * source)
            if (found >= 0).all() and ((weight @ found + source) * (1 - active) <= 0).all():
                solutions.append(found)
        (only,) = solutions
        torch.testing.assert_close(value, only, rtol=0, atol=1e-11)


def test_one_unit_by_hand() -> None:
    """z = relu(z / 2 + u) is 2 u for u >= 0, else 0."""
    op = Implicit(torch.tensor([[0.5]]).double(), Relu())
    u = torch.tensor([[-3.0], [0.0], [0.25], [4.0]]).double()
    torch.testing.assert_close(op.forward(u), 2 * u.clamp(min=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight", (1.0, 2.0))
def test_an_equation_without_solution_is_refused(weight: float) -> None:
    """z = relu(z + 1) has none, nor has z = relu(2 z + 1)."""
    op = Implicit(torch.tensor([[weight]]).double(), Relu())
    with pytest.raises(InvalidModel, match=r"did not converge for 1 of 2 inputs, .*no diagonal T > 0"):
        op.forward(torch.tensor([[1.0], [-1.0]]).double())


@every_function
def test_a_batch_is_its_entries(function: Op) -> None:
    op, u = Implicit(well_posed(5, 4), function), sources(12, 5, 4)
    whole = op.forward(u.reshape(3, 4, 5))
    assert whole.shape == (3, 4, 5)
    alone = torch.cat([op.forward(row[None]) for row in u])
    torch.testing.assert_close(whole.reshape(12, 5), alone, rtol=0, atol=1e-11)
    assert op.forward(u[:0]).shape == (0, 5)


@every_function
def test_float32_is_solved_in_float64(function: Op) -> None:
    op, u = Implicit(well_posed(5, 5), function).to("cpu", torch.float32), sources(12, 5, 5).float()
    assert isinstance(op, Implicit)
    z = op.forward(u)
    assert z.dtype == torch.float32
    exact = Implicit(op.weight.double(), function).forward(u.double())
    assert torch.equal(z, exact.float())


@every_function
def test_the_derivative_is_that_of_the_solution(function: Op) -> None:
    op, u = Implicit(well_posed(4, 6), function), sources(5, 4, 6).requires_grad_()
    assert torch.autograd.gradcheck(op.forward, (u,), eps=1e-6, atol=1e-6)


def test_bounds_are_refused_with_what_is_known_instead() -> None:
    eye = torch.eye(3, dtype=torch.float64)
    graph = sequential((3,), [Linear(eye, eye[0]), Implicit(well_posed(3, 7), Relu())])
    box = Interval(-torch.ones((1, 3)).double(), torch.ones((1, 3)).double())
    with pytest.raises(Unbounded, match="provenn lipschitz"):
        propagate(graph, box)
    with pytest.raises(Unbounded, match="provenn lipschitz"):
        Implicit(eye, Relu()).backward(torch.ones((1, 1, 3)).double(), [box])


def test_what_is_no_implicit_layer_is_refused() -> None:
    with pytest.raises(InvalidModel, match=r"must be square, not \(2, 3\)"):
        Implicit(torch.zeros(2, 3).double(), Relu())
    with pytest.raises(InvalidModel, match="an implicit layer of Implicit; it must be relu, tanh or sigmoid"):
        Implicit(torch.zeros(2, 2).double(), Implicit(torch.zeros(2, 2).double(), Relu()))
