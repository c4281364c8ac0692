"""From a solver's multipliers to a certificate that the kernel accepts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from networks import mlp
from numpy.typing import NDArray
from torch import Tensor, nn

from provenn.models.implicit_export import export as export_implicit
from provenn.models.reading import read as read_graph
from provenn.models.torch_export import export
from provenn.models.zoo.deq import MonotoneDEQ
from provenn.models.zoo.sorting import GroupSort, MaxMin
from provenn.solvers.base import Budget
from provenn.solvers.lipsdp.methods import solve
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.certificate.lipschitz import Prover, Statement
from provenn.verifier.check import CertificateRejected, check, read_network

pytestmark = pytest.mark.xdist_group("certificate lipschitz")
"""What the tests share is made once."""

Numbers = NDArray[np.float64]


def unit_rows(count: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(i == j) for j in range(count)) for i in range(count))


class Flat(nn.Module):
    """max_pool over a convolution, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.MaxPool2d(3, 2, padding=1), nn.Flatten())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


Files = dict[str, tuple[bytes, nn.Module, tuple[int, ...]]]


@pytest.fixture(scope="module")
def files() -> Files:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        modules: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
            "relu": (nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 3)), (6,)),
            "sorting": (
                nn.Sequential(nn.Linear(6, 10), MaxMin(), nn.Linear(10, 10), GroupSort(5), nn.Linear(10, 3)),
                (6,),
            ),
            "elu": (nn.Sequential(nn.Linear(6, 8), nn.ELU(), nn.Linear(8, 3)), (6,)),
            "pool": (Flat(), (1, 4, 4)),
        }
        implicit = nn.Sequential(nn.Linear(6, 5), MonotoneDEQ(5, 7), nn.Linear(7, 3))
        made = {name: (export(module, shape), module, shape) for name, (module, shape) in modules.items()}
        return made | {"implicit": (export_implicit(implicit, (6,)), implicit, (6,))}


def proved(data: bytes, statement: Statement, method: str = "auto") -> tuple[dict[str, bytes], list[float], Prover]:
    """The certificate, the numbers of the statement, and the prover."""
    graph, network = read_graph(data), read_network(data, slopes=True)
    prover = Prover(network, statement)
    scale = None if statement.scale is None else torch.tensor(statement.scale, dtype=torch.float64)
    eye = torch.eye(torch.Size(graph.output_shape).numel(), dtype=torch.float64)
    program, claims = read(graph, eye, scale, prover.boxes(graph)), []
    for group in statement.groups:
        rows = torch.tensor([statement.rows[i] for i in group], dtype=torch.float64)
        own = program.with_output({k: rows @ matrix for k, matrix in program.output.items()})
        solved = solve(Task(own, statement.norm), method, Budget(60), lambda point: None)
        assert solved is not None
        claim = prover.least(group, own, (solved.point.metric.numpy(), solved.point.multipliers.numpy()))
        assert claim is not None
        bound = Task(own, statement.norm).bound(solved.point.metric) ** 0.5
        assert claim.upper <= bound * (1 + 1e-6)
        claims.append(claim)
    return prover.bundle(claims, {"verifier": "test"}), prover.uppers(claims), prover


def slopes(module: nn.Module, statement: Statement, shape: tuple[int, ...], radius: float | None = None) -> Numbers:
    """|C (f(x) - f(y))| over |scale * (x - y)| of random pairs: [pairs], or [pairs, rows] for "each"."""
    generator = torch.Generator().manual_seed(1)
    module = module.double().eval()
    x = torch.randn(400, *shape, generator=generator, dtype=torch.float64)
    step = torch.randn(400, *shape, generator=generator, dtype=torch.float64)
    size = 10.0 ** torch.linspace(-4, 1, 400, dtype=torch.float64).reshape(-1, *(1,) * len(shape))
    y = x + size * step
    if radius is not None:
        x, y = x.clamp(-radius, radius), y.clamp(-radius, radius)
        apart = (x != y).flatten(1).any(1)
        x, y = x[apart], y[apart]
    with torch.no_grad():
        change = (module(x) - module(y)) @ torch.tensor(statement.rows, dtype=torch.float64).T
    gap = (x - y).flatten(1) * torch.tensor(statement.scale or (1.0,), dtype=torch.float64)
    below = gap.norm(dim=1) if statement.norm == "2" else gap.abs().amax(1)
    orders = {"2": 2.0, "inf": float("inf"), "1": 1.0}
    above = change.abs() if statement.output == "each" else change.norm(orders[statement.output], dim=1)
    return (above / (below[:, None] if statement.output == "each" else below)).numpy()


STATEMENTS = {
    "joint": Statement(unit_rows(3)),
    "rows": Statement(unit_rows(3), "inf", "inf"),
    "sum": Statement(unit_rows(3), "inf", "1"),
    "pairs": Statement(((1.0, -1.0, 0.0), (0.0, 1.0, -1.0)), "2", "each"),
    "largest": Statement(unit_rows(3), "2", "inf"),
}


PAIRS = [("relu", kind) for kind in STATEMENTS]
PAIRS += [("sorting", "joint"), ("sorting", "rows"), ("elu", "sum"), ("pool", "joint"), ("implicit", "joint")]
PAIRS += [("implicit", "pairs")]


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_what_is_proved_is_accepted_and_no_pair_violates_it(files: Files, name: str, kind: str) -> None:
    data, module, shape = files[name]
    statement = STATEMENTS[kind]
    bundle, uppers, _ = proved(data, statement)
    report = check(bundle, data)
    assert report.assurance == "checked"
    assert list(report.uppers) == uppers
    assert (slopes(module, statement, shape) <= np.array(uppers)).all()


@pytest.mark.parametrize("method", ["norm-product", "lipsdp-layer"])
def test_every_method_goes_through_the_same_door(files: Files, method: str) -> None:
    data, _, _ = files["relu"]
    bundle, uppers, _ = proved(data, STATEMENTS["joint"], method)
    assert list(check(bundle, data).uppers) == uppers
    assert uppers[0] >= proved(data, STATEMENTS["joint"])[1][0]


@pytest.mark.parametrize("norm", ["2", "inf"])
def test_weighted_inputs_are_measured_in_the_user_s_units(files: Files, norm: str) -> None:
    data, module, shape = files["relu"]
    scale = (0.5, 1.0, 2.0, 4.0, 1.0, 0.25)
    bundle, uppers, _ = proved(data, Statement(unit_rows(3), norm, "each", scale))
    check(bundle, data)
    assert (slopes(module, Statement(unit_rows(3), norm, "each", scale), shape) <= np.array(uppers)).all()
    double = tuple(2 * s for s in scale)
    assert proved(data, Statement(unit_rows(3), norm, "each", double))[1] == pytest.approx(
        [u / 2 for u in uppers], rel=1e-6
    )


@pytest.mark.parametrize(("name", "norm"), [("relu", "2"), ("relu", "inf"), ("sorting", "2"), ("pool", "2")])
def test_a_region_makes_the_bound_smaller_and_holds_within(files: Files, name: str, norm: str) -> None:
    data, module, shape = files[name]
    count = int(np.prod(shape))
    region = {"lower": [(-0.2).hex()] * count, "upper": [(0.2).hex()] * count}
    local = Statement(unit_rows(3)[:1], norm, "inf", None, region)
    bundle, uppers, _ = proved(data, local)
    check(bundle, data)
    assert uppers[0] <= proved(data, Statement(unit_rows(3)[:1], norm, "inf"))[1][0] * (1 + 1e-7)
    assert (slopes(module, local, shape, 0.2) <= uppers[0]).all()


def test_a_ball_is_a_region(files: Files) -> None:
    data, _, _ = files["relu"]
    ball = {"input": ["1/10"] * 6, "epsilon": "0.05", "norm": "2"}
    bundle, uppers, _ = proved(data, Statement(unit_rows(3), region=ball))
    assert list(check(bundle, data).uppers) == uppers
    assert uppers[0] < proved(data, Statement(unit_rows(3)))[1][0]


def test_an_equilibrium_is_reported_to_be_well_posed(files: Files) -> None:
    data, _, _ = files["implicit"]
    assert proved(data, STATEMENTS["joint"])[2].well_posed
    assert not proved(files["relu"][0], STATEMENTS["joint"])[2].well_posed


def test_useless_multipliers_prove_nothing_and_foreign_ones_are_refused(files: Files) -> None:
    data, _, _ = files["relu"]
    graph, prover = read_graph(data), Prover(read_network(data, slopes=True), STATEMENTS["joint"])
    program: Program = read(graph, torch.eye(3, dtype=torch.float64))
    assert prover.least([0, 1, 2], program, (np.ones(6), np.zeros(15))) is None
    other = read(mlp([6, 5, 3], 0), torch.eye(3, dtype=torch.float64))
    with pytest.raises(CertificateRejected, match="two readings"):
        prover.least([0, 1, 2], other, (np.ones(6), np.ones(5)))


def test_a_smaller_number_than_was_proved_is_rejected(files: Files) -> None:
    data, _, _ = files["relu"]
    bundle, uppers, _ = proved(data, STATEMENTS["joint"])
    lowered = STATEMENTS["joint"].text([uppers[0] * (1 - 1e-9)])
    with pytest.raises(CertificateRejected):
        check({**bundle, "specification.json": lowered}, data)
