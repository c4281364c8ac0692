"""On the reference networks every bound method reaches a peer's published bounds, row by row."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from provenn.models.onnx_reader import read
from provenn.solvers.packing import pack
from provenn.verifier.bounds.backward import crown, crown_ibp
from provenn.verifier.bounds.forward import forward_backward, forward_lower
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.graph import Graph
from provenn.verifier.region import Region
from provenn.verifier.spec_reader import read_specification

CASES = ["acasxu_1_1_p1", "acasxu_1_1_p3", "mnist_fc_256x2", "mnist_fc_256x4", "mnist_fc_256x6", "oval21_base"]

METHODS: dict[str, Callable[[Graph, Region, Tensor], Tensor]] = {
    "IBP": lambda graph, region, matrix: output_lower(graph, propagate(graph, region.box), matrix),
    "CROWN": lambda graph, region, matrix: crown(graph, region).output_lower(matrix),
    "CROWN-IBP": lambda graph, region, matrix: crown_ibp(graph, region).output_lower(matrix),
    "Forward": forward_lower,
    "Forward+Backward": lambda graph, region, matrix: forward_backward(graph, region).output_lower(matrix),
}
"""The peer's names."""


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", METHODS)
def test_bounds_equal_or_tighter_than_the_peers(shared: Path, case: str, method: str) -> None:
    results = json.loads((shared / "peers" / "auto_lirpa_bounds.json").read_text())["results"]
    peer = next(r for r in results if r["case"] == case and r["method"] == method)
    graph = read(gzip.decompress((shared / f"{peer['onnx']}.gz").read_bytes())).to("cpu", torch.float32)
    specification = read_specification((shared / f"{peer['vnnlib']}.gz").read_bytes())
    packed = pack(graph, specification.cases, "cpu", torch.float32)
    lower = METHODS[method](graph, packed.region, -packed.matrix)
    ours = (lower + packed.bound)[:, 0].numpy()
    theirs = np.array(peer["lower_bounds"])
    assert (ours >= theirs - 1e-4 * np.abs(theirs) - 1e-5).all(), (ours, theirs)
