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
from provenn.verifier.bounds.backward import crown, interval_relaxed
from provenn.verifier.bounds.interval import output_lower, propagate
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
    interval = propagate(graph, packed.region.box)
    if method == "IBP":
        lower = output_lower(graph, interval, -packed.matrix)
    elif method == "CROWN":
        lower = crown(graph, packed.region).output_lower(-packed.matrix)
    else:
        lower = interval_relaxed(graph, packed.region, interval).output_lower(-packed.matrix)
    ours = (lower + packed.bound)[:, 0].numpy()
    theirs = np.array(peer["lower_bounds"])
    assert (ours >= theirs - 1e-4 * np.abs(theirs) - 1e-5).all(), (ours, theirs)
