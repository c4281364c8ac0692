"""On a sample of the reference instances no verdict contradicts what all tools of a competition agree on."""

from __future__ import annotations

import csv
import json
from functools import cache
from pathlib import Path

import pytest

from provenn.api.certification import LoadedModel, Options, certify, load_model
from provenn.verifier.check import check
from provenn.verifier.spec_reader import read_specification

FAMILIES = {"acasxu": 30, "mnist_fc": 13, "rl_benchmarks": 24}
"""Folder -> every how many instances one is taken."""
OPPOSITE = {"verified": "sat", "falsified": "unsat"}


@cache
def loaded(path: Path) -> LoadedModel:
    return load_model(path.read_bytes())


@pytest.mark.shared
@pytest.mark.parametrize("family", FAMILIES)
def test_verdicts_agree_with_the_known_ones(shared: Path, family: str) -> None:
    folder = shared / "vnncomp2022" / family
    known = json.loads((shared / "peers" / "ground_truth.json").read_text())
    instances = list(csv.reader((folder / "instances.csv").read_text().splitlines()))
    decided = 0
    for network, text, _ in instances[:: FAMILIES[family]]:
        key = f"{family}/{Path(network).stem}/{Path(text).stem}"
        model = loaded(folder / f"{network}.gz")
        specification = read_specification((folder / f"{text}.gz").read_bytes())
        (item,) = certify(model, [specification], Options(seconds=4))
        truth = known.get(key, {}).get("verdict")
        assert truth != OPPOSITE.get(item.verdict, "nothing"), f"{key}: {item.verdict}, known to be {truth}"
        if item.verdict == "verified":
            late = item.assurance == "computed" and "the time ended" in (item.reason or "")
            assert item.certificate is not None or late, f"{key}: {item.reason}"
        if item.certificate is not None:
            assert model.network is not None
            assert check(item.certificate, model.network, specification.text).margin > 0
        decided += item.verdict in OPPOSITE
    assert decided > 0
