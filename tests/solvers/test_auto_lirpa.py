"""auto_LiRPA beside ours: the same CROWN, sound bounds, refusals; and what is said where it is missing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from networks import box, linear, mlp, residual, samples
from test_solvers import classification

from provenn.solvers import auto_lirpa
from provenn.solvers.auto_lirpa import AutoLirpaAlphaCrown, AutoLirpaCrown, Slopes, crown_rows, lower_bounds
from provenn.solvers.base import Backend, Budget, Verdict
from provenn.solvers.portfolio import backend
from provenn.verifier.bounds.backward import crown
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.region import Region

METHODS = (None, Slopes(iterations=5))


@pytest.fixture
def peer() -> None:
    """Skips where auto_LiRPA cannot be imported, and says why."""
    if (status := AutoLirpaCrown.status()) != "available":
        pytest.skip(f"auto_LiRPA: {status}")


@pytest.fixture
def imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder where auto_LiRPA is looked for first."""
    for name in [name for name in sys.modules if name.split(".")[0] == auto_lirpa.PACKAGE]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    auto_lirpa.package.cache_clear()
    yield tmp_path
    sys.modules.pop(auto_lirpa.PACKAGE, None)
    auto_lirpa.package.cache_clear()


def convolutional(seed: int) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 2, 3, 3, generator=generator, dtype=torch.float64) / 4
    conv = Conv(weight, torch.zeros(3, dtype=torch.float64), (2, 2), (1, 1, 1, 1), (1, 1), 1)
    return sequential(
        (2, 6, 6), [conv, Relu(), Reshape((27,)), linear(27, 8, generator), Relu(), linear(8, 3, generator)]
    )


NETWORKS = {
    "dense": lambda seed: mlp([4, 16, 16, 3], seed),
    "residual": lambda seed: residual(5, 2, 3, seed),
    "convolutional": convolutional,
}


def asked(graph: Graph, seed: int, dtype: torch.dtype) -> tuple[Graph, Region, torch.Tensor]:
    """The network, three boxes of growing size, and both bounds of its outputs."""
    generator = torch.Generator().manual_seed(seed)
    centre = torch.randn(3, *graph.input_shape, generator=generator, dtype=dtype)
    radius = torch.tensor([0.05, 0.2, 1.0], dtype=dtype).reshape(-1, *(1,) * len(graph.input_shape))
    eye = torch.eye(3, dtype=dtype)
    matrix = torch.cat([eye, -eye]).unsqueeze(1).expand(-1, 3, -1).contiguous()
    return graph.to("cpu", dtype), box(centre, radius), matrix


def reached(graph: Graph, region: Region, matrix: torch.Tensor) -> torch.Tensor:
    """The smallest value of every row at sampled points: [spec, batch]."""
    points = samples(region, 2000)
    outputs = graph.forward(points.flatten(0, 1)).reshape(len(points), region.batch, -1)
    return torch.einsum("sbo,nbo->nsb", matrix, outputs).amin(0)


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_crown_is_the_same_in_both(name: str, dtype: torch.dtype, tolerance: float) -> None:
    for seed in range(4):
        graph, region, matrix = asked(NETWORKS[name](seed), seed, dtype)
        ours = crown(graph, region).lower(len(graph.nodes) - 1, matrix)
        torch.testing.assert_close(crown_rows(graph, region, matrix), ours, rtol=tolerance, atol=tolerance)


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("slopes", METHODS)
def test_bounds_hold(name: str, dtype: torch.dtype, slopes: Slopes | None) -> None:
    graph, region, matrix = asked(NETWORKS[name](7), 7, dtype)
    lower = lower_bounds(graph, region, matrix, slopes)
    assert (lower.dtype, lower.requires_grad, torch.get_default_dtype()) == (dtype, False, torch.float32)
    smallest = reached(graph, region, matrix)
    assert (lower <= smallest + 1e-5 * (1 + smallest.abs())).all()


@pytest.mark.usefixtures("peer")
def test_optimised_slopes_are_never_looser() -> None:
    graph, region, matrix = asked(mlp([4, 16, 16, 3], 1), 1, torch.float64)
    plain, optimised = (lower_bounds(graph, region, matrix, slopes) for slopes in METHODS)
    assert (optimised >= plain - 1e-9).all()
    assert (optimised > plain + 1e-3).any()


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("norm", [1.0, 2.0])
@pytest.mark.parametrize("slopes", METHODS)
def test_bounds_over_balls_hold_where_the_input_is_read_twice(norm: float, slopes: Slopes | None) -> None:
    for seed in range(6):
        graph, region, matrix = asked(residual(5, 2, 3, seed), seed, torch.float64)
        centre = (region.box.lower + region.box.upper) / 2
        ball = Region(region.box, centre, (region.box.upper - centre)[:, 0].clone(), norm)
        assert (lower_bounds(graph, ball, matrix, slopes) <= reached(graph, ball, matrix) + 1e-9).all()


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("slope", [-0.5, 0.0, 0.1, 1.0, 2.0])
def test_bounds_of_leaky_relus_hold_for_every_slope(slope: float) -> None:
    graph, region, matrix = asked(mlp([4, 8, 8, 3], 0, LeakyRelu(slope)), 0, torch.float64)
    assert (lower_bounds(graph, region, matrix, None) <= reached(graph, region, matrix) + 1e-9).all()


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("chosen", [AutoLirpaCrown, AutoLirpaAlphaCrown])
def test_verifies_but_never_falsifies(chosen: type[Backend], capsys: pytest.CaptureFixture[str]) -> None:
    for radius, expected in ((Fraction(1, 1000), Verdict.VERIFIED), (Fraction(5), Verdict.UNKNOWN)):
        outcomes = chosen().solve(classification(0, radius, count=3), Budget(60)).outcomes
        assert {o.verdict for o in outcomes} == {expected}
        assert {o.method for o in outcomes} == {chosen.name}
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("peer")
def test_budget_that_has_ended() -> None:
    outcomes = AutoLirpaCrown().solve(classification(0, Fraction(1, 100), count=3), Budget(0)).outcomes
    assert {o.verdict for o in outcomes} == {Verdict.TIMEOUT}


@pytest.mark.usefixtures("peer")
def test_refuses_what_it_has_no_rule_for() -> None:
    problem = classification(0, Fraction(1, 100), count=1)
    width = problem.graph.input_shape[0]
    weight = torch.ones(1, 1, 2, dtype=torch.float64)
    uneven = Conv(weight, torch.zeros(1, dtype=torch.float64), (1,), (1, 0), (1,), 1)
    ops = [Reshape((1, width)), uneven, Reshape((width,)), *(n.op for n in problem.graph.nodes if n.op is not None)]
    graph = sequential((width,), ops)
    with pytest.raises(BackendError, match=r"auto_LiRPA cannot bound this network: ."):
        AutoLirpaCrown().solve(type(problem)(graph, problem.cases), Budget(60))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('__version__ = "0.3.1"', "version 0.3.1 is too old, 0.7 is needed: "),
        ("import a_package_that_is_not_there", "cannot be imported (No module named 'a_package_that_is_not_there'): "),
        ('__version__ = "0.7.1+local"', "available"),
    ],
)
def test_status_by_what_is_imported(imported_from: Path, content: str, said: str) -> None:
    (imported_from / auto_lirpa.PACKAGE).mkdir()
    (imported_from / auto_lirpa.PACKAGE / "__init__.py").write_text(content)
    assert AutoLirpaCrown.status().startswith(said)


def test_what_is_missing_is_said_with_the_command() -> None:
    if AutoLirpaCrown.status() == "available":
        pytest.skip("auto_LiRPA can be imported here")
    with pytest.raises(BackendError, match=r"git clone .* PYTHONPATH=auto_LiRPA"):
        backend("auto-lirpa-crown")
