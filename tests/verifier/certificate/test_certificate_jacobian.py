"""Bounds of Jacobians as certificates: of torch modules, mixed with LipSDP's claims, of the reference networks."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from provenn.models.reading import read as read_graph
from provenn.models.torch_export import export
from provenn.models.zoo.sorting import MaxMin
from provenn.solvers.base import Budget
from provenn.solvers.lipsdp.methods import solve
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.quadratic import read
from provenn.verifier.certificate.jacobian import JacobianProver
from provenn.verifier.certificate.lipschitz import Prover, Statement
from provenn.verifier.check import check, read_network

pytestmark = pytest.mark.xdist_group("certificate jacobian")
"""What the tests share is made once."""

Numbers = NDArray[np.float64]


def unit_rows(count: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(float(i == j) for j in range(count)) for i in range(count))


class Expression(nn.Module):
    """Layers, and what is made of them."""

    def __init__(self, layers: dict[str, nn.Module], expression: Callable[[nn.ModuleDict, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers, self.expression = nn.ModuleDict(layers), expression

    def forward(self, x: Tensor) -> Tensor:
        return self.expression(self.layers, x)


def modules() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """Chains, a sum and a concatenation, convolutions with pooling and MaxMin, bounded functions."""
    linear = nn.Linear
    joined = Expression(
        {"a": linear(5, 4), "b": linear(4, 4), "c": linear(8, 3)},
        lambda m, x: m["c"](torch.cat([m["a"](x) + m["b"](torch.relu(m["a"](x))), torch.abs(m["a"](x))], 1)),
    )
    pooled = nn.Sequential(
        *(nn.Conv2d(1, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 2, 2, padding=1)),
        *(nn.MaxPool2d(3, 2, padding=1), nn.Flatten(), linear(8, 6), MaxMin(), linear(6, 3)),
    )
    smooth = (linear(5, 6), nn.Tanh(), linear(6, 6), nn.Sigmoid(), linear(6, 6), nn.Hardtanh(-0.1, 0.2), linear(6, 3))
    return {
        "chain": (nn.Sequential(linear(5, 8), nn.ReLU(), linear(8, 7), nn.ReLU(), linear(7, 3)), (5,)),
        "joined": (joined, (5,)),
        "pooled": (pooled, (1, 6, 6)),
        "smooth": (nn.Sequential(*smooth), (5,)),
    }


with torch.random.fork_rng(devices=[]):
    torch.manual_seed(0)
    MODULES = modules()


@cache
def exported(name: str) -> bytes:
    return export(*MODULES[name])


def prover(data: bytes, x: Numbers, radius: float, output: str = "each", scale: Numbers | None = None) -> Prover:
    """Of unit rows over a box, read as in the file's float32 weights."""
    region = {"lower": [float(v - radius).hex() for v in x], "upper": [float(v + radius).hex() for v in x]}
    network = read_network(data, slopes=True)
    rows = unit_rows(network.steps[network.output].length)
    weights = None if scale is None else tuple(scale.tolist())
    return Prover(network, Statement(rows, "inf", output, weights, region))


def centre(name: str) -> Numbers:
    return np.random.default_rng(7).uniform(-0.5, 0.5, int(np.prod(MODULES[name][1])))


def derivatives(module: nn.Module, points: Tensor) -> Tensor:
    """By autograd: [points, outputs, inputs]."""
    return torch.func.vmap(torch.func.jacrev(lambda x: module(x[None])[0]))(points).flatten(2)


@pytest.mark.parametrize("name", MODULES)
def test_numbers_are_above_autograd_s_jacobians_and_differences(name: str) -> None:
    """At random points, and at and around points where a unit has a kink."""
    x, generator = centre(name), torch.Generator().manual_seed(1)
    scale = np.random.default_rng(8).uniform(0.5, 2, len(x))
    module, shape = MODULES[name][0].double(), MODULES[name][1]
    weights = torch.tensor(scale)
    for radius in (0.02, 0.6):
        own = prover(exported(name), x, radius, scale=scale)
        proved = [JacobianProver(own).prove([i]) for i in range(3)]
        files = own.bundle(proved, {})
        uppers = torch.tensor(check(files, exported(name)).uppers, dtype=torch.float64)
        assert uppers.tolist() == [claim.upper for claim in proved]
        inside = 2 * torch.rand(40, len(x), generator=generator, dtype=torch.float64) - 1
        points = torch.tensor(x) + radius * torch.cat([inside, inside.sign()])
        jacobian = derivatives(module, points.reshape(-1, *shape))
        assert ((jacobian.abs() / weights).sum(2) <= uppers * (1 + 1e-12)).all()
        others = torch.tensor(x) + radius * (2 * torch.rand(80, len(x), generator=generator, dtype=torch.float64) - 1)
        with torch.no_grad():
            change = module(points.reshape(-1, *shape)) - module(others.reshape(-1, *shape))
        size = ((points - others) * weights).abs().amax(1, keepdim=True)
        assert (change.abs() <= uppers * size + 1e-12).all()


@pytest.mark.parametrize("name", MODULES)
def test_small_regions_converge_to_the_jacobian(name: str) -> None:
    """Unless it is at a kink, which random points are not."""
    x = centre(name)
    module, shape = MODULES[name][0].double(), MODULES[name][1]
    exact = derivatives(module, torch.tensor(x).reshape(1, *shape))[0].abs().sum(1).detach().numpy()
    own = prover(exported(name), x, 1e-7)
    uppers = [JacobianProver(own).prove([i]).upper for i in range(3)]
    assert uppers == pytest.approx(exact, rel=1e-5)


def test_backward_passes_are_tighter_than_intervals() -> None:
    for name in ("chain", "joined", "pooled"):
        jacobian = JacobianProver(prover(exported(name), centre(name), 0.5))
        for row in range(3):
            crown, interval = jacobian.prove([row]), jacobian.prove([row], method="interval")
            assert crown.upper <= interval.upper * (1 + 1e-12)
            assert name == "joined" or crown.upper < interval.upper
    assert check(jacobian.prover.bundle([jacobian.prove([i], method="interval") for i in range(3)], {}), exported(name))


@pytest.mark.parametrize("output", ["inf", "1", "each"])
def test_rows_may_be_proved_in_either_way(output: str) -> None:
    """Row 0 by LipSDP, the others by their Jacobians: one certificate."""
    own = prover(exported("chain"), centre("chain"), 0.1, output)
    graph, jacobian = read_graph(exported("chain")), JacobianProver(own)
    program = read(graph, torch.eye(3, dtype=torch.float64), None, own.boxes(graph))
    first = program.with_output({k: matrix[:1] for k, matrix in program.output.items()})
    solved = solve(Task(first, "inf"), "auto", Budget(60), lambda point: None)
    assert solved is not None
    claim = own.least([0], first, (solved.point.metric.numpy(), solved.point.multipliers.numpy()))
    assert claim is not None
    proved = [claim, jacobian.prove([1]), jacobian.prove([2])]
    files = own.bundle(proved, {})
    assert {c["kind"] for c in json.loads(files["manifest.json"])["claims"]} == {
        "interval",
        "lipschitz",
        "lipschitz-jacobian",
    }
    assert list(check(files, exported("chain")).uppers) == own.uppers(proved)


def test_without_a_region_slopes_are_those_everywhere() -> None:
    network = read_network(exported("chain"))
    region = {"lower": [-100] * 5, "upper": [100] * 5}
    far, everywhere = (Prover(network, Statement(unit_rows(3), "inf", "each", None, r)) for r in (region, None))
    uppers = [[JacobianProver(own).prove([i]).upper for i in range(3)] for own in (far, everywhere)]
    assert uppers[0] == pytest.approx(uppers[1], rel=1e-6)
    files = everywhere.bundle([JacobianProver(everywhere).prove([i]) for i in range(3)], {})
    assert list(check(files, exported("chain")).uppers) == uppers[1]


def quotient(name: str, inward: str, outward: str, x: Numbers, radius: float) -> float:
    """The largest induced norm of autograd's Jacobians at points of the box, by vectors of many kinds."""
    module, shape = MODULES[name][0].double(), MODULES[name][1]
    generator = torch.Generator().manual_seed(3)
    points = torch.tensor(x) + radius * (2 * torch.rand(200, len(x), generator=generator, dtype=torch.float64) - 1)
    jacobian, order = derivatives(module, points.reshape(-1, *shape)).detach(), {"1": 1.0, "2": 2.0, "inf": torch.inf}
    v = torch.randn(200, 60, len(x), generator=generator, dtype=torch.float64)
    v = torch.cat(
        [v, v.sign(), torch.eye(len(x), dtype=torch.float64).expand(200, -1, -1), jacobian, jacobian.sign()], 1
    )
    change = torch.einsum("poi,pvi->pvo", jacobian, v)
    size = torch.linalg.vector_norm(v, ord=order[inward], dim=2).clamp(min=1e-9)
    return float((torch.linalg.vector_norm(change, ord=order[outward], dim=2) / size).max())


@pytest.mark.parametrize("outward", ["1", "2", "inf"])
@pytest.mark.parametrize("inward", ["1", "2", "inf"])
def test_all_norms(inward: str, outward: str) -> None:
    """Rows together and row by row are above what points show, and exact where nothing switches."""
    for name, radius in (("joined", 0.3), ("smooth", 1e-6)):
        x = centre(name)
        region = {"lower": [float(v - radius).hex() for v in x], "upper": [float(v + radius).hex() for v in x]}
        own = Prover(read_network(exported(name)), Statement(unit_rows(3), inward, outward, None, region))
        prover, exact = JacobianProver(own), quotient(name, inward, outward, x, radius)
        for claims in ([prover.prove([0, 1, 2])], [prover.prove([i]) for i in range(3)]):
            upper = check(own.bundle(claims, {}), exported(name)).uppers[0]
            assert upper >= exact * (1 - 1e-9)
            assert upper == own.uppers(claims)[0]
        together = prover.prove([0, 1, 2]).upper
        assert together <= own.uppers(claims)[0] * (1 + 1e-6)
        if name == "smooth" and (inward, outward) in (("1", "1"), ("1", "inf"), ("1", "2"), ("inf", "inf")):
            assert together == pytest.approx(exact, rel=1e-4)


# Network, radius as it is named there, the number: where the exact one is known, the published method's otherwise.
REFERENCES = [("tiny2_16-10-10", "8/255", 0.889222), ("tiny2_16-32-10", "8/255", 1.2188573)]
REFERENCES += [("tiny3_16-16-16-10", "8/255", 0.3223933), ("digits_mlp_64-50-50-10", "1e-2", 102.62396)]
REFERENCES += [("digits_mlp_64-50-50-10", "8/255", 116.54748)]


@pytest.mark.shared
@pytest.mark.parametrize(("name", "radius", "number"), REFERENCES)
def test_reference_networks(shared: Path, name: str, radius: str, number: float) -> None:
    folder = shared / "lipschitz" / "local"
    if not folder.is_dir():
        pytest.skip(f"the reference networks are not at {folder}")
    entries = json.loads((folder / "local_lip.json").read_text())
    entry = next(e for e in entries if (e["net"], e["eps_name"]) == (name, radius))
    data, x = (folder / f"{name}.onnx").read_bytes(), np.load(folder / f"{name}.x0.npy").astype(np.float64).ravel()
    own = prover(data, x, entry["eps"], "inf")
    proved = [JacobianProver(own).prove([i]) for i in range(10)]
    upper = check(own.bundle(proved, {}), data).uppers[0]
    assert upper == pytest.approx(number, rel=1e-6)
    assert upper >= (entry["exact"]["value"] or entry["lower"]["value"])
