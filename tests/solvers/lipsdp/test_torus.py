"""Multipliers by channel: between the dense program and the product of norms, proved by the kernel, never too small."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from provenn.models.reading import read as read_model
from provenn.solvers.lipsdp import interior
from provenn.solvers.lipsdp.layout import Layout, layout
from provenn.solvers.lipsdp.searched import Measure, searched
from provenn.solvers.lipsdp.start import greedy, norm_product
from provenn.solvers.lipsdp.task import Task
from provenn.solvers.lipsdp.torus import Choice, Problem, bounded, solve
from provenn.verifier.bounds.quadratic import Program, read
from provenn.verifier.certificate.lipschitz import Channels, Prover, Statement
from provenn.verifier.check import CertificateRejected, Network, check, read_network
from provenn.verifier.check.manifest import sealed
from provenn.verifier.errors import BackendError
from provenn.verifier.graph import Graph

pytestmark = pytest.mark.xdist_group("torus")
"""What the tests share is made once."""

Build = Callable[[], nn.Sequential]


def plain() -> nn.Sequential:
    parts = [nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Flatten()]
    return nn.Sequential(*parts, nn.Linear(36, 5), nn.ReLU(), nn.Linear(5, 3))


class Absolute(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs()


def mixed() -> nn.Sequential:
    parts = [nn.Conv2d(2, 4, 3, padding=1, groups=2), nn.BatchNorm2d(4), Absolute(), nn.AvgPool2d(2)]
    parts += [nn.Conv2d(4, 2, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2, 1), nn.Conv2d(2, 3, 1), nn.ReLU()]
    return nn.Sequential(*parts, nn.Flatten(), nn.Linear(12, 3)).eval()


class Residual(nn.Module):
    """relu(c relu(b x) + s x), s of stride 2."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.c, self.s = nn.Conv2d(2, 3, 3, 2, 1), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(2, 3, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.c(torch.relu(self.b(x))) + self.s(x))
        return result


def residual() -> nn.Sequential:
    return nn.Sequential(Residual(), nn.Flatten(), nn.Linear(27, 3))


BUILDS: dict[str, Build] = {"plain": plain, "mixed": mixed, "residual": residual}


class File:
    """An ONNX file of a module, layer by layer: torch's own exporter takes seconds for each."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(self, operator: str, *inputs: str | Tensor | None, **attributes: Any) -> str:
        names = []
        for value in inputs:
            if isinstance(value, Tensor):
                name = f"c{len(self.constants)}"
                self.constants.append(numpy_helper.from_array(value.detach().numpy(), name))
                names.append(name)
            elif value is not None:
                names.append(value)
        self.nodes.append(helper.make_node(operator, names, [f"v{len(self.nodes)}"], **attributes))
        return f"v{len(self.nodes) - 1}"

    def layer(self, x: str, part: nn.Module) -> str:
        match part:
            case nn.Conv2d():
                pads = [*part.padding, *part.padding]
                return self.add("Conv", x, part.weight, part.bias, strides=part.stride, pads=pads, group=part.groups)
            case nn.BatchNorm2d():
                return self.add("BatchNormalization", x, part.weight, part.bias, part.running_mean, part.running_var)
            case nn.Linear():
                return self.add("Gemm", x, part.weight, part.bias, transB=1)
            case nn.AvgPool2d() | nn.MaxPool2d():
                kind = "AveragePool" if isinstance(part, nn.AvgPool2d) else "MaxPool"
                return self.add(kind, x, kernel_shape=[part.kernel_size] * 2, strides=[part.stride] * 2)
            case Residual():
                inner = self.layer(self.add("Relu", self.layer(x, part.b)), part.c)
                return self.add("Relu", self.add("Add", inner, self.layer(x, part.s)))
        named = {nn.ReLU: "Relu", nn.Tanh: "Tanh", Absolute: "Abs", nn.Flatten: "Flatten"}
        return self.add(named[type(part)], x)


@cache
def file(build: Build) -> bytes:
    torch.manual_seed(0)
    module, made, last = build(), File(), "x"
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(-1, 2)
    for part in module:
        last = made.layer(last, part)
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 2, 6, 6]), (last, [1, 3]))]
    graph = helper.make_graph(made.nodes, "network", ends[:1], ends[1:], made.constants)
    opset = [helper.make_opsetid("", 17)]
    return bytes(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


@dataclass
class Case:
    """A network, read twice, for all outputs in l2."""

    graph: Graph
    network: Network
    prover: Prover
    where: Layout
    problem: Problem

    @classmethod
    def of(cls, build: Build, scale: tuple[float, ...] | None = None) -> Case:
        data = file(build)
        graph, network = read_model(data).to("cpu", torch.float64), read_network(data, slopes=True)
        prover = Prover(network, Statement(tuple(map(tuple, np.eye(3).tolist())), scale=scale))
        where = layout(graph, prover.units)
        sizes = None if scale is None else np.array(scale)
        return cls(graph, network, prover, where, Problem.of(prover.units, where, np.eye(3), sizes))

    def solved(self, rounds: int = 8) -> Choice:
        seen: list[Choice] = []

        def improved(choice: Choice) -> bool:
            seen.append(choice)
            return len(seen) < rounds

        found = solve(self.problem, improved)
        assert found is not None
        bounds = [choice.bound for choice in seen]
        assert found.bound == min(bounds) and bounds == sorted(bounds, reverse=True)
        return found

    def channels(self, choice: Choice) -> Channels:
        return Channels(self.where.maps(self.prover.units), self.where.torus, choice.multipliers, choice.cut)

    def files(self, choice: Choice) -> tuple[float, dict[str, bytes]]:
        prover = Prover(self.network, self.prover.statement)
        proved = prover.least_by_frequency([0, 1, 2], self.channels(choice), choice.bound)
        assert proved is not None
        return proved.upper, prover.bundle([proved], {})


@pytest.fixture(scope="module")
def cases() -> dict[str, Case]:
    return {name: Case.of(build) for name, build in BUILDS.items()}


class ByChannel(Task):
    """One multiplier for every channel of a layer with `cells` cells, or for every unit."""

    @property
    def groups(self) -> Tensor:
        found, start = [], 0
        for units in self.program.units:
            channels = {192: 2, 144: 4, 108: 3, 36: 4, 18: 2, 27: 3, 8: 2}.get(units.length, units.length)
            found.append(start + torch.arange(channels).repeat_interleave(units.length // channels))
            start += channels
        return torch.cat(found)


def optimum(program: Program, kind: type[Task] = Task) -> float:
    task = kind(program)
    start = greedy(Task(program, shared=True))
    assert start is not None
    return float(task.bound(interior.solve(task, start, lambda _: True, 1e-6).metric)) ** 0.5


def test_the_bounds_are_in_order(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    program = read(case.graph, torch.eye(3, dtype=torch.float64))
    free, shared = optimum(program), optimum(program, ByChannel)
    frequency = case.solved().bound ** 0.5
    product = norm_product(Task(program))
    assert product is not None
    assert free <= shared * (1 + 1e-5) and shared <= frequency * (1 + 1e-5)
    assert frequency < 0.95 * float(product.metric[0]) ** 0.5


@pytest.mark.parametrize("name", BUILDS)
def test_what_is_found_is_proved_and_above_every_slope(name: str, cases: dict[str, Case]) -> None:
    case = cases[name]
    choice = case.solved(4)
    upper, files = case.files(choice)
    assert choice.bound**0.5 <= upper <= choice.bound**0.5 * (1 + 1e-7)
    assert check(files, case.network).uppers == (upper,)
    measure = Measure(torch.eye(3, dtype=torch.float64), "2", "2")
    assert 0 < searched(case.graph, measure, None, 1e9, 0, 2).value <= upper


def test_a_scaled_input_is_measured_by_the_scales_of_channels(cases: dict[str, Case]) -> None:
    case = Case.of(plain, (2.0,) * 36 + (4.0,) * 36)
    seen: list[Choice] = []
    found = bounded(case.graph, case.prover, [0, 1, 2], lambda choice: seen.append(choice) or len(seen) < 3)
    assert found is not None and found[1] == seen[-1].bound
    proved = case.prover.least_by_frequency([0, 1, 2], *found)
    assert proved is not None
    upper, files = proved.upper, case.prover.bundle([proved], {})
    other = cases["plain"].solved(3).bound ** 0.5
    assert other / 4 * 0.9 < upper < other / 2 * 1.1
    assert check(files, case.network).uppers == (upper,)


def test_other_norms_and_regions_are_refused(cases: dict[str, Case]) -> None:
    case, rows = cases["plain"], ((1.0, 0.0, 0.0),)
    for statement in (Statement(rows, "inf"), Statement(rows, region={"lower": [0] * 72, "upper": [1] * 72})):
        with pytest.raises(BackendError, match="it bounds l2 norms, and everywhere"):
            bounded(case.graph, Prover(case.network, statement), [0], lambda _: True)


def edited(files: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    content = json.loads(files["manifest.json"])
    content.pop("sha256")
    content["claims"][0].update(changes)
    return files | {"manifest.json": sealed(content)}


def test_what_is_changed_is_refused(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    upper, files = case.files(case.solved(2))
    claim = json.loads(files["manifest.json"])["claims"][0]
    assert claim["kind"] == "lipschitz-torus"
    other = {name: [*grid[:3], grid[4] * 2, grid[4] * 2] for name, grid in claim["maps"].items()}
    for changes, reason in (
        ({"upper": (upper * 0.99).hex()}, "is not proved"),
        ({"torus": [n - 1 for n in claim["torus"]]}, "the torus is too small"),
        ({"maps": other}, "not 24 multipliers|not 48 multipliers"),
        ({"maps": {}}, "there must be one of the inputs|multipliers"),
        ({"maps": [1]}, "wrong type"),
        ({"cut": "absent"}, "entries"),
        ({"cut": next(iter(claim["multipliers"].values()))}, "is not proved|entries"),
        ({"kind": "lipschitz"}, "unknown"),
        ({"rows": [0, 1]}, "nor each has a claim"),
        ({"more": 1}, "unknown"),
    ):
        with pytest.raises(CertificateRejected, match=reason):
            check(edited(files, **changes), case.network)


def test_weights_that_are_edited_are_refused(cases: dict[str, Case]) -> None:
    case = cases["plain"]
    choice = case.solved(1)
    steps = list(case.network.steps)
    matrix = steps[3].matrix.copy()  # type: ignore[attr-defined]
    matrix.data[7] *= 1 + 2.0**-30
    steps[3] = replace(steps[3], matrix=matrix)  # type: ignore[call-arg]
    prover = Prover(replace(case.network, steps=tuple(steps)), case.prover.statement)
    with pytest.raises(CertificateRejected, match="no convolution"):
        prover.least_by_frequency([0, 1, 2], case.channels(choice), choice.bound)
    assert layout(case.graph, prover.units).last < case.where.last


def test_networks_without_convolutions_are_refused() -> None:
    with pytest.raises(BackendError, match="does not begin with convolutions"):
        Case.of(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 4), nn.ReLU(), nn.Linear(4, 3)))
    with pytest.raises(BackendError, match="reads several of their layers"):
        Case.of(lambda: nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3)))
