"""The networks of the benchmark of Lipschitz constants: the reference ones, read from their files, and random ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from scipy.io import loadmat
from torch import Tensor

from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape, Transpose
from provenn.verifier.ops.sort import Sort

ROW = 7
"""The output whose constant the reference values of `glipsdp` are."""

SIZES = {
    "784-64-64-10": [784, 64, 64, 10],
    "784-256-256-10": [784, 256, 256, 10],
    "20 x 50": [50] * 21,
    "50 x 100": [100] * 51,
    "3072-1024-1024-10": [3072, 1024, 1024, 10],
}
"""Widths of the random networks, the input's first: `depth x width` has that many linear layers of that width."""


def references(shared: Path, kind: str) -> dict[str, dict[str, Any]]:
    """The reference values of `glipsdp` or `maxmin` by network; none where the folder is not there."""
    path = shared / "lipschitz" / kind / "reference.json"
    found: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    return found


def glipsdp(shared: Path, name: str) -> Graph:
    """`fnn2_*`, `fnn3_*` or `cnn2_*` without its scaling of the input, float64.

    The published values of `cnn2_*` are those of features in the order (width, height, channel): of the four orders
    tried only this one gives them.
    """
    stored = loadmat(str(shared / "lipschitz" / "glipsdp" / f"{name}_weights.mat"))
    ops: list[Op] = []
    if "conv1_weight" in stored:
        ops += [*convolution(stored), Relu(), Transpose((2, 1, 0)), Reshape((512,))]
    count = sum(key.startswith("fc") and key.endswith("_weight") for key in stored)
    for k in range(1, count + 1):
        weight = torch.tensor(stored[f"fc{k}_weight"], dtype=torch.float64).T.contiguous()
        ops += [Linear(weight, torch.tensor(stored[f"fc{k}_bias"], dtype=torch.float64).flatten()), Relu()]
    return sequential((64,), ops[:-1])


def convolution(stored: dict[str, Any]) -> list[Op]:
    """3 x 3, stride 1, padding 1, on 8 x 8; the kernel is stored as [height, width, inputs, outputs]."""
    kernel = torch.tensor(stored["conv1_weight"], dtype=torch.float64).permute(3, 2, 0, 1).contiguous()
    bias = torch.tensor(stored["conv1_bias"], dtype=torch.float64).flatten()
    return [Reshape((1, 8, 8)), Conv(kernel, bias, (1, 1), (1, 1, 1, 1), (1, 1), 1)]


def maxmin(shared: Path, name: str) -> Graph:
    """Linear maps with MaxMin of neighbouring pairs between them, float64."""
    stored = loadmat(str(shared / "lipschitz" / "maxmin" / f"{name}.mat"))["W"].flatten()
    ops: list[Op] = []
    for matrix in stored:
        weight = torch.tensor(matrix, dtype=torch.float64)
        width = len(weight)
        ops += [linear(weight), Reshape((width // 2, 2)), Sort(1, True), Reshape((width,))]
    return sequential((stored[0].shape[1],), ops[:-3])


def random(widths: Sequence[int]) -> Graph:
    """ReLU layers with He-normal weights from seed 0 (He et al. 2015), float64."""
    generator = torch.Generator().manual_seed(0)
    ops: list[Op] = []
    for inputs, outputs in pairwise(widths):
        weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) * (2 / inputs) ** 0.5
        ops += [linear(weight), Relu()]
    return sequential((widths[0],), ops[:-1])


def linear(weight: Tensor) -> Linear:
    """Without a bias: no constant depends on it."""
    return Linear(weight, torch.zeros(len(weight), dtype=weight.dtype))
