"""The derivative's graph, and bounds of Jacobians and of their rows' norms."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import convolutional, linear, mlp, residual
from torch import Tensor

from provenn.models.onnx_reader import read
from provenn.verifier.bounds.jacobian import METHODS, forward_bounds, jacobian, row_norms
from provenn.verifier.derivative import jacobian_vector, transpose, vector_jacobian
from provenn.verifier.errors import BackendError, InvalidSpecification, UnsupportedOp
from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.gated import Gelu
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import ReduceMax
from provenn.verifier.ops.shape import Concat, Reshape
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.softmax import Softmax
from provenn.verifier.ops.sort import Sort
from provenn.verifier.ops.steps import Sign
from provenn.verifier.ops.tanh import Tanh
from provenn.verifier.region import Region

SAMPLES = 90


def concatenated() -> Graph:
    generator = torch.Generator().manual_seed(3)
    nodes = [Node("input", None, (), (4,)), Node("a", linear(4, 5, generator), (0,), (5,))]
    nodes += [Node("tanh", Tanh(), (1,), (5,)), Node("b", linear(5, 4, generator), (2,), (4,))]
    nodes += [Node("abs", Abs(), (3,), (4,)), Node("both", Concat(0), (2, 4, 0), (13,))]
    return Graph((*nodes, Node("out", linear(13, 3, generator), (5,), (3,))))


def chain(inputs: int, outputs: int, *middle: Op) -> Graph:
    generator = torch.Generator().manual_seed(5)
    shape = sequential((8,), middle).output_shape
    ops = [
        linear(inputs, 8, generator),
        *middle,
        Reshape((shape.numel() if isinstance(shape, torch.Size) else int(np.prod(shape)),)),
    ]
    return sequential((inputs,), [*ops, linear(int(np.prod(shape)), outputs, generator)])


GRAPHS: dict[str, Graph] = {
    "relu": mlp([4, 9, 8, 3], 1),
    "tanh": mlp([4, 7, 7, 3], 2, Tanh()),
    "gelu": mlp([4, 7, 3], 2, Gelu()),
    "sigmoid": mlp([3, 7, 2], 2, Sigmoid()),
    "clip": mlp([4, 9, 3], 2, Clip(-0.2, 0.5)),
    "abs": mlp([4, 9, 9, 3], 2, Abs()),
    "residual": residual(5, 2, 3, 1),
    "concatenated": concatenated(),
    "convolutional": convolutional(3, False),
    "max pool": chain(5, 3, Reshape((2, 4)), MaxPool((2,), (1,), (1, 0), (1,), False)),
    "sorted": chain(5, 3, Reshape((2, 4)), Sort(1, True)),
    "largest": chain(5, 3, Reshape((2, 4)), ReduceMax((1,), False)),
    "linear": sequential((4,), [linear(4, 3, torch.Generator().manual_seed(0))]),
}


class WithoutRule(Softmax):
    """What an op is before it has a rule."""

    increments = Op.increments  # type: ignore[assignment]


def centre(graph: Graph, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, *graph.input_shape, generator=generator, dtype=torch.float64)


def box(x: Tensor, radius: float) -> Region:
    return Region(Interval(x - radius, x + radius))


def eye(graph: Graph) -> Tensor:
    return torch.eye(int(np.prod(graph.output_shape)), dtype=torch.float64)


def jacobian_at(graph: Graph, x: Tensor) -> Tensor:
    """[outputs, inputs], by automatic differentiation at one point [1, *input]."""
    found = torch.autograd.functional.jacobian(lambda z: graph.forward(z).flatten(), x)
    return found.reshape(found.shape[0], -1)


def points(x: Tensor, radius: float, count: int = SAMPLES) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    share = 2 * torch.rand(count, *x.shape[1:], generator=generator, dtype=torch.float64) - 1
    share[: count // 3] = share[: count // 3].sign()
    return x + radius * share


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("radius", [0.02, 0.5])
def test_jacobians_and_quotients_lie_within_the_bounds(name: str, radius: float) -> None:
    graph = GRAPHS[name]
    x = centre(graph)
    sampled = points(x, radius)
    jacobians = torch.stack([jacobian_at(graph, p[None]) for p in sampled[:20]])
    generator = torch.Generator().manual_seed(1)
    weights = torch.tensor([[1.0, -1.0], [0.5, 2.0]], dtype=torch.float64)
    rows = torch.cat([eye(graph), weights @ eye(graph)[:2]])
    scale = 0.5 + torch.rand(x.numel(), generator=generator, dtype=torch.float64)
    values = graph.forward(sampled).flatten(1) @ rows.T
    gaps, moved = (values[1:] - values[:-1]).abs(), (sampled[1:] - sampled[:-1]).flatten(1).abs()
    largest: dict[str, Tensor] = {}
    for method in METHODS:
        bounds = forward_bounds(graph, box(x, radius), method)
        entries, norms = jacobian(graph, bounds, rows, method), row_norms(graph, bounds, rows, method)
        exact, slack = rows @ jacobians, 1e-9 * (1 + norms.max())
        assert (entries.lower - slack <= exact).all() and (exact <= entries.upper + slack).all(), method
        assert (exact.abs().sum(2) <= norms + slack).all(), method
        assert (gaps <= moved.amax(1, keepdim=True) * norms + slack).all(), method
        weighted = row_norms(graph, bounds, rows, method, scale)
        assert (gaps <= (moved * scale).amax(1, keepdim=True) * weighted + slack).all(), method
        largest[method] = norms
    for tighter, looser in (("crown", "recurjac"), ("recurjac", "ibp"), ("alpha-crown", "crown")):
        assert (largest[tighter] <= largest[looser] * (1 + 1e-9)).all(), (tighter, looser)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_point_has_its_own_derivative(name: str) -> None:
    graph = GRAPHS[name]
    x = centre(graph, 4)
    exact = jacobian_at(graph, x)
    bounds = forward_bounds(graph, box(x, 0.0), "crown")
    forward, back = jacobian_vector(graph, bounds), vector_jacobian(graph, bounds)
    tangents = torch.eye(x.numel(), dtype=torch.float64).reshape(-1, *graph.input_shape)
    torch.testing.assert_close(forward.forward(tangents).flatten(1).T, exact)
    seeds = eye(graph).reshape(-1, *graph.output_shape)
    torch.testing.assert_close(back.forward(seeds).flatten(1), exact)
    torch.testing.assert_close(transpose(back).forward(tangents).flatten(1).T, exact)
    for radius in (1e-3, 1e-6, 1e-9):
        norms = row_norms(graph, forward_bounds(graph, box(x, radius), "crown"), eye(graph))
    torch.testing.assert_close(norms, exact.abs().sum(1), rtol=1e-5, atol=1e-7)


def test_kinks_have_both_slopes() -> None:
    graph = mlp([2, 2, 1], 0)
    weight, bias = graph.nodes[1].op.weight, graph.nodes[1].op.bias  # type: ignore[union-attr]
    kink = torch.linalg.solve(weight, -bias)[None]
    found = jacobian(graph, forward_bounds(graph, box(kink, 1e-12), "crown"), eye(graph))
    outer = graph.nodes[3].op.weight[0]  # type: ignore[union-attr]
    every = torch.stack([(outer * torch.tensor(on)) @ weight for on in ((0, 0), (0, 1), (1, 0), (1, 1))])
    torch.testing.assert_close(found.lower[0], every.amin(0))
    torch.testing.assert_close(found.upper[0], every.amax(0))


def test_one_open_unit_is_bounded_exactly() -> None:
    """The norm is convex in a slope: largest at 0 or 1."""
    graph = mlp([3, 6, 2], 8)
    hidden = graph.nodes[1].op
    x = centre(graph)
    z = hidden.apply(x)[0]  # type: ignore[union-attr]
    steepness = hidden.weight.abs().sum(1)  # type: ignore[union-attr]
    first, second = (z.abs() / steepness).sort().values[:2].tolist()
    radius = (first + second) / 2
    outer, on = graph.nodes[3].op.weight, (z > 0).double()  # type: ignore[union-attr]
    unit = (z.abs() / steepness).argmin()
    norms = []
    for d in (0.0, 1.0):
        on[unit] = d
        norms.append(((outer * on) @ hidden.weight).abs().sum(1))  # type: ignore[union-attr]
    found = row_norms(graph, forward_bounds(graph, box(x, radius), "crown"), eye(graph))
    torch.testing.assert_close(found, torch.maximum(*norms), rtol=1e-12, atol=1e-12)


def test_a_linear_map_is_its_own_derivative() -> None:
    graph = GRAPHS["linear"]
    for method in METHODS:
        bounds = forward_bounds(graph, box(centre(graph), 3.0), method)
        found = jacobian(graph, bounds, eye(graph), method)
        torch.testing.assert_close(found.lower, graph.nodes[1].op.weight)  # type: ignore[union-attr]
        torch.testing.assert_close(found.upper, found.lower)


def test_what_has_no_derivative_is_refused_by_name() -> None:
    jumping = mlp([3, 4, 2], 0, Sign())
    with pytest.raises(UnsupportedOp, match="slopes over the region are not bounded"):
        vector_jacobian(jumping, forward_bounds(jumping, box(centre(jumping), 5.0), "crown"))
    unknown = sequential((4,), [linear(4, 4, torch.Generator()), WithoutRule(0)])
    with pytest.raises(UnsupportedOp, match=r"WithoutRule_1.*no rule"):
        vector_jacobian(unknown, forward_bounds(unknown, box(centre(unknown), 1.0), "ibp"))
    with pytest.raises(BackendError, match="recurjac"):
        forward_bounds(jumping, box(centre(jumping), 1.0), "magic")
    graph = GRAPHS["relu"]
    with pytest.raises(InvalidSpecification, match=r"expected \[rows, 3\]"):
        row_norms(graph, forward_bounds(graph, box(centre(graph), 1.0), "ibp"), torch.eye(4).double())


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tiny2_16-10-10", "tiny2_16-32-10", "tiny3_16-16-16-10", "digits_mlp_64-50-50-10"])
def test_reference_networks(shared: Path, name: str) -> None:
    """Never below the exact constants, and at most the published values."""
    folder = shared / "lipschitz" / "local"
    graph = read((folder / f"{name}.onnx").read_bytes())
    x = torch.tensor(np.load(folder / f"{name}.x0.npy")).double().reshape(1, *graph.input_shape)
    found = []
    for entry in json.loads((folder / "local_lip.json").read_text()):
        if entry["net"] != name:
            continue
        bounds = forward_bounds(graph, box(x, entry["eps"]), "crown")
        norm = float(row_norms(graph, bounds, eye(graph)).max())
        assert norm <= entry["lirpa_crown"]["value"] * (1 + 1e-6)
        known = [entry[key]["value"] for key in ("exact", "lower") if entry.get(key)]
        assert norm >= max(value for value in known if value is not None) * (1 - 1e-6)
        found.append(norm)
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(found))
