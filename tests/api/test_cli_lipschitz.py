"""`provenn lipschitz` and what `provenn check` says of its certificates."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, Command
from lipschitz_models import ILL_POSED, POSED, pointwise

from provenn.api.statements import at_least, at_most, lipschitz, named


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("posed.safetensors").write_bytes(POSED)
    Path("ill.safetensors").write_bytes(ILL_POSED)
    Path("exp.onnx").write_bytes(pointwise("Exp"))
    Path("softmax.onnx").write_bytes(pointwise("Softmax"))
    Path("residual.onnx").write_bytes(pointwise("Tanh", residual=True))
    np.save("x.npy", np.array([1.0, 0.0], np.float32))
    np.save("weights.npy", np.array([2.0, 4.0]))
    np.save("negative.npy", np.array([2.0, -4.0]))
    np.save("wide.npy", np.zeros(3))
    return Command(capsys)


def test_the_object_and_the_certificate(provenn: Command) -> None:
    ran = provenn("lipschitz", "plain.onnx", "--rows", "pairs", "--out", "proof", "--timeout", "8", "--json")
    assert ran.code == 0
    found = ran.json
    assert list(found)[:8] == ["verdict", "upper", "lower", "method", "norm", "output_norm", "rows", "seconds"]
    assert found["upper"] == pytest.approx([math.sqrt(2)], rel=1e-6)
    assert found["lower"][0] <= math.sqrt(2)
    assert (found["assurance"], found["certificate"]) == ("checked", "proof/certificate.zip")
    checked = provenn("check", "proof/certificate.zip", "--model", "plain.onnx", "--json").json
    assert checked["accepted"]
    assert checked["uppers"] == found["upper"]
    said = f"output 0 - 1 change by at most {at_most(found['upper'][0])} times the l2 distance of the inputs"
    assert checked["proves"].startswith(said)
    table = provenn("check", "proof/certificate.zip", "--model", "plain.onnx").out
    assert "uppers" in table
    assert "margin" not in table
    wrong = provenn("check", "proof/certificate.zip", "--model", "residual.onnx")
    assert wrong.code == 13


def test_tables(provenn: Command) -> None:
    one = provenn("lipschitz", "plain.onnx", "--scale", "weights.npy", "--timeout", "8").out
    assert "0.5000000" in one
    assert "made and checked, not kept: give --out DIR" in one
    region = ("--at", "x.npy", "--eps", "1/4", "--region-norm", "2", "--clip", "0", "1")
    each = provenn("lipschitz", "plain.onnx", "--to", "each", *region, "--timeout", "8").out
    assert "output 0" in each
    assert "output 1" in each
    posed = provenn("lipschitz", "posed.safetensors", "--timeout", "8").out
    assert "one fixed point for every input" in posed


@pytest.mark.parametrize("method", ["crown", "alpha-crown", "recurjac", "ibp", "bab"])
def test_norm_1_by_bounds_of_the_jacobian(provenn: Command, method: str) -> None:
    region = ("--at", "x.npy", "--eps", "1/2", "--timeout", "5", "--method", method)
    ran = provenn("lipschitz", "plain.onnx", "--norm", "1", "--to", "inf", *region, "--out", "proof", "--json")
    assert ran.code == 0
    assert (ran.json["norm"], ran.json["upper"]) == ("1", pytest.approx(1, rel=1e-6))
    checked = provenn("check", "proof/certificate.zip", "--model", "plain.onnx", "--json").json
    assert "times the l1 distance of the inputs" in checked["proves"]


def test_verdicts_without_a_number(provenn: Command) -> None:
    ran = provenn("lipschitz", "ill.safetensors", "--timeout", "8", "--json")
    assert ran.code == 11
    assert (ran.json["verdict"], ran.json["upper"], ran.json["well_posed"]) == ("unknown", None, False)
    late = provenn("lipschitz", "plain.onnx", "--timeout", "1e-9", "--json")
    assert late.code == 12
    assert (late.json["verdict"], late.json["upper"]) == ("timeout", None)


def test_a_folder_that_cannot_be_written_loses_no_answer(provenn: Command) -> None:
    ran = provenn("lipschitz", "plain.onnx", "--out", "x.npy", "--timeout", "8", "--json")
    assert ran.code == 1
    assert ran.json["upper"] == pytest.approx(1.0)
    assert ran.json["error"]["type"] == "CannotWrite"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plain.onnx --rows 2", "row 2 is not an output of this network; the outputs are 0 to 1"),
        ("plain.onnx --rows some", "'some' does not name rows"),
        ("plain.onnx --scale negative.npy", "negative.npy: has the value -4.0; weights are above 0"),
        ("plain.onnx --scale wide.npy", "wide.npy: has shape [3], but the network takes [2]"),
        ("plain.onnx --at wide.npy --eps 0.1", "wide.npy: has shape [3], but the network takes [2]"),
        ("plain.onnx --eps 0.1", "--at: is missing"),
        ("plain.onnx --at x.npy", "--eps: is missing"),
        ("plain.onnx --clip 0 1", "belong to --at"),
        ("plain.onnx --at x.npy --eps 0.1 --clip 1 0", "LO below HI"),
        ("plain.onnx --at x.npy --eps -0.1", "epsilon"),
        ("plain.onnx --at x.npy --eps wide", "not a number"),
        ("plain.onnx --norm 3", "--norm"),
        ("plain.onnx --to 3", "--to"),
        ("plain.onnx --method magic", "no such method; there are auto"),
        ("plain.onnx --solver scs", "takes no solver"),
        ("plain.onnx --timeout 0", "--timeout: 0.0 is not a time"),
        ("residual.onnx --method eclipse-fast", "chains of layers"),
        ("exp.onnx", "node 'exp': operator Exp is not supported: its slopes are not bounded"),
        ("softmax.onnx", "node 'softmax': operator Softmax is not supported"),
        ("none.onnx", "none.onnx: cannot be read"),
        ("x.npy", "ONNX"),
    ],
)
def test_bad_input(provenn: Command, line: str, message: str) -> None:
    ran = provenn("lipschitz", *line.split(), "--json")
    assert ran.code == 2, ran
    assert message in ran.json["error"]["message"]
    assert "Traceback" not in ran.err


def test_statements_in_words() -> None:
    base = {"input": {"norm": "inf"}, "outputs": [["0x1p+0", "0"], ["0", "1"]], "output_norm": "1", "upper": ["0x1p+1"]}
    said = "the l1 distance of outputs 0, 1 is at most 2 times the l-infinity distance of the inputs, for all inputs"
    assert lipschitz(base, "s.json") == said
    around = {"input": ["0"], "epsilon": "1/2", "norm": "2", "clip": ["0", "1"]}
    weighted = base | {"input": {"norm": "2", "scale": ["1", "2"]}, "output_norm": "each", "region": around}
    assert lipschitz(json.loads(json.dumps(weighted)), "s.json") == (
        "outputs 0, 1 change by at most 2 times the weighted l2 distance of the inputs, for all inputs "
        "within l2 distance 1/2 of the one in its s.json with values in [0, 1]"
    )
    box = base | {"region": {"lower": ["0"], "upper": ["1"]}, "outputs": [["1", "-2"]]}
    assert lipschitz(box, "s.json").startswith("a combination of outputs changes by at most 2 times")
    assert lipschitz(box, "s.json").endswith("in the box in its s.json")
    assert named(np.eye(12).tolist()) == "outputs 0 to 11"
    assert (at_most(1 / 3), at_least(1 / 3)) == ("0.33333334", "0.33333333")
