"""On the reference networks IBP and CROWN reach a peer's published bounds, row by row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from provenn.models.onnx_reader import read
from provenn.solvers.packing import pack
from provenn.verifier.bounds.backward import crown, interval_relaxed, rows_over_box
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.spec_reader import read_specification

CASES = ["acasxu_1_1_p1", "acasxu_1_1_p3", "mnist_fc_256x2", "mnist_fc_256x4", "mnist_fc_256x6", "oval21_base"]


@pytest.mark.shared
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("method", ["IBP", "CROWN", "CROWN-IBP"])
def test_bounds_equal_or_tighter_than_the_peers(shared: Path, case: str, method: str) -> None:
    results = json.loads((shared / "peers" / "auto_lirpa_bounds.json").read_text())["results"]
    peer = next(r for r in results if r["case"] == case and r["method"] == method)
    graph = read(gzip.decompress((shared / f"{peer['onnx']}.gz").read_bytes())).to("cpu", torch.float32)
    specification = read_specification((shared / f"{peer['vnnlib']}.gz").read_bytes())
    packed = pack(graph, specification.cases, "cpu", torch.float32)
    matrix = torch.tensor(np.array(peer["C"]), dtype=torch.float32).reshape(-1, 1, graph.output_shape[-1])
    interval = propagate(graph, packed.region.box)
    if method == "IBP":
        lower = rows_over_box(matrix, interval[-1])
    elif method == "CROWN":
        lower = crown(graph, packed.region).output_lower(matrix)
    else:
        lower = interval_relaxed(graph, packed.region, interval).output_lower(matrix)
    ours = lower[:, 0].numpy() - np.array(peer["b"]).ravel()
    theirs = np.array(peer["lower_bounds"])
    assert (ours >= theirs - 1e-4 * np.abs(theirs) - 1e-5).all(), (ours, theirs)
