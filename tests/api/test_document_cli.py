"""Documents on the command line: what is kept, what is shown, and that nothing else passes for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, Command

from provenn.models.executor import OnnxExecutor
from provenn.models.parametrization import Parametrized

SHIFT = {"type": "linear", "directions": [[1, 0], [0, 1]], "range": [-0.125, 0.125]}
DOCUMENT = {"format": "provenn-specification/1", "kind": "perturbation", "input": [1, 0], "label": 0}
RISING = {"format": "provenn-specification/1", "kind": "monotone", "features": [0], "rows": "0", "expect": "increasing"}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    write("near", {**DOCUMENT, "perturbations": [SHIFT]})
    write("far", {**DOCUMENT, "perturbations": [{**SHIFT, "range": [-2, 2]}]})
    write("rising", {**RISING, "region": {"input": [1, 0], "epsilon": 0.5}})
    return Command(capsys)


def write(name: str, document: dict[str, Any]) -> None:
    Path(f"{name}.json").write_text(json.dumps(document))


def test_a_certificate_is_about_network_and_document(run: Command) -> None:
    found = run("certify", "plain.onnx", "--spec", "near.json", "--out", "proof", "--json").json
    assert (found["verdict"], found["assurance"]) == ("verified", "checked")
    assert found["property"] == "class 0 wins for all multiples in [-0.125, 0.125] of 2 directions"
    checked = ("check", "proof/certificate.zip", "--json", "--model")
    accepted = run(*checked, "plain.onnx", "--spec", "near.json").json
    assert (accepted["accepted"], accepted["proves"]) == (True, found["property"])
    assert run(*checked, "proof/composed.onnx").json["accepted"]
    for others in (
        ("plain.onnx",),
        ("plain.onnx", "--spec", "far.json"),
        ("proof/composed.onnx", "--spec", "near.json"),
    ):
        refused = run(*checked, *others)
        assert refused.code in (2, 13), others
        assert not refused.json.get("accepted")


def test_a_counterexample_is_kept_as_an_input_of_the_given_network(run: Command) -> None:
    ran = run("certify", "plain.onnx", "--spec", "far.json", "--out", "proof", "--json")
    assert (ran.code, ran.json["assurance"]) == (10, "replayed")
    shown = ran.json["counterexample"]
    original = np.load("proof/counterexample.npy")
    assert original.ravel().tolist() == shown["original"]
    scores = OnnxExecutor(PLAIN).run(original[None])[0]
    assert scores.tolist() == shown["output"]
    assert scores[0] <= scores[1]
    made = Parametrized.of(Path("proof/composed.onnx").read_bytes())
    assert made is not None
    assert made.image(np.array([shown["input"]], np.float32)).ravel().tolist() == shown["original"]
    assert "parameters" in run("certify", "plain.onnx", "--spec", "far.json").out


def test_monotone_documents_are_answered_as_by_their_own_command(run: Command) -> None:
    found = run("certify", "plain.onnx", "--spec", "rising.json", "--json")
    assert (found.code, found.json["expected"], found.json["dependences"][0]["trend"]) == (
        0,
        "increasing",
        "increasing",
    )
    assert found.json["property"].endswith("for every input within l-infinity distance 0.5 of the one in the document")
    assert "of the one in the document" in " ".join(run("certify", "plain.onnx", "--spec", "rising.json").out.split())
    write("falling", {**RISING, "expect": "decreasing", "region": {"input": [1, 0], "epsilon": 0.5}})
    assert run("certify", "plain.onnx", "--spec", "falling.json").code == 10
    refused = run("certify", "plain.onnx", "--spec", "rising.json", "--semantics", "float32")
    assert (refused.code, "kind monotone" in refused.err) == (2, True)


def test_errors_name_file_and_key(run: Command) -> None:
    write("bad", {**DOCUMENT, "perturbations": [{**SHIFT, "range": [1]}]})
    ran = run("certify", "plain.onnx", "--spec", "bad.json")
    assert (ran.code, ran.err) == (2, 'error: bad.json: "perturbations"[0]."range"[1]: is missing\n')
    write("gone", {"format": "provenn-specification/1", "kind": "vnnlib", "file": "gone.vnnlib"})
    assert "gone.vnnlib: cannot be read" in run("certify", "plain.onnx", "--spec", "gone.json").err
    rejected = run("check", "plain.onnx", "--model", "plain.onnx", "--spec", "bad.json")
    assert (rejected.code, '"perturbations"[0]."range"[1]' in rejected.err) == (2, True)
