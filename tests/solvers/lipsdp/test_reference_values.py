"""LipSDP finds the published optima of trained networks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.io import loadmat

from provenn.solvers.lipsdp import interior
from provenn.solvers.lipsdp.start import greedy
from provenn.solvers.lipsdp.task import Task
from provenn.verifier.bounds.quadratic import read
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape, Transpose
from provenn.verifier.ops.sort import Sort

ROW = 7
"""The output that the published values of trained networks are of."""


@pytest.fixture
def lipschitz(shared: Path) -> Path:
    """The folder of networks with published Lipschitz constants; skips where it is absent."""
    folder = shared / "lipschitz"
    if not folder.is_dir():
        pytest.skip(f"the networks with published Lipschitz constants are not at {folder}")
    return folder


def without_bias(weight: Any) -> Linear:
    matrix = torch.tensor(weight, dtype=torch.float64)
    return Linear(matrix, torch.zeros(len(matrix), dtype=torch.float64))


def trained(path: Path) -> Graph:
    """Weights are stored input-first, kernels [height, width, inputs, outputs], features (width, height, channel)."""
    stored, ops = loadmat(str(path)), list[Op]()
    if "conv1_weight" in stored:
        kernel = torch.tensor(stored["conv1_weight"].transpose(3, 2, 0, 1), dtype=torch.float64)
        conv = Conv(kernel, torch.zeros(8, dtype=torch.float64), (1, 1), (1, 1, 1, 1), (1, 1), 1)
        ops += [Reshape((1, 8, 8)), conv, Relu(), Transpose((2, 1, 0)), Reshape((512,))]
    for name in sorted(key for key in stored if key.startswith("fc") and key.endswith("_weight")):
        ops += [without_bias(stored[name].T), Relu()]
    return sequential((64,), ops[:-1])


def sorting(path: Path) -> Graph:
    """Linear maps with MaxMin of neighbouring pairs between them."""
    ops, weights = list[Op](), loadmat(str(path))["W"].flatten()
    for weight in weights:
        ops += [without_bias(weight), Reshape((len(weight) // 2, 2)), Sort(1, True), Reshape((len(weight),))]
    return sequential((weights[0].shape[1],), ops[:-3])


def optimum(graph: Graph, rows: torch.Tensor) -> float:
    task = Task(read(graph, rows))
    start = greedy(task)
    assert start is not None
    point = interior.solve(task, start, lambda _: True)
    return task.bound(point.metric) ** 0.5


@pytest.mark.shared
@pytest.mark.parametrize("name", ["fnn2_seed0", "fnn2_seed5", "fnn3_seed0", "fnn3_seed3", "cnn2_seed0"])
def test_trained_networks(lipschitz: Path, name: str) -> None:
    published = json.loads((lipschitz / "glipsdp" / "reference.json").read_text())[name]["LipSDP"]
    row = torch.eye(10, dtype=torch.float64)[ROW : ROW + 1]
    found = optimum(trained(lipschitz / "glipsdp" / f"{name}_weights.mat"), row)
    assert found >= published * (1 - 1e-9)
    assert found == pytest.approx(published, rel=1e-6)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["weights_l2_2fc_16", "weights_l2_2fc_32"])
def test_maxmin_networks_are_as_tight_as_the_eliminated_form(lipschitz: Path, name: str) -> None:
    known = json.loads((lipschitz / "maxmin" / "reference.json").read_text())[name]
    found = optimum(sorting(lipschitz / "maxmin" / f"{name}.mat"), torch.eye(10, dtype=torch.float64))
    assert found == pytest.approx(known["eliminated_form_optimum"], rel=1e-5)
    assert found < known["paper_program_S=P=0_optimum"]
