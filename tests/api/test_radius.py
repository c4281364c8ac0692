"""Radii from Lipschitz constants: known by hand, on the command line, and never too large."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, Command
from lipschitz_models import POSED
from service_kit import mlp

import provenn
from provenn.api.certification import load_model
from provenn.api.lipschitz import Options
from provenn.api.radius import WRONG, Batch, radii
from provenn.verifier.errors import BackendError

INPUTS = np.array([[1.0, 0.0], [0.0, 3.0], [1.0, 0.0]], np.float32)
LABELS = [0, 1, 1]


def test_radii_of_relu_are_its_margins_by_the_root_of_two() -> None:
    found = radii(load_model(PLAIN), Batch(INPUTS, LABELS), Options(seconds=8.0))
    assert found.radii == pytest.approx([1 / math.sqrt(2), 3 / math.sqrt(2), 0], rel=1e-6)
    assert found.radii[0] < 1 / math.sqrt(2)
    assert found.constants.certificate is not None
    (upper,) = provenn.check(found.constants.certificate, PLAIN).uppers
    assert upper == pytest.approx(math.sqrt(2), rel=1e-6)
    curve = [(point["radius"], point["accuracy"]) for point in found.curve()]
    assert curve == [(0.0, 2 / 3), (found.radii[0], 2 / 3), (found.radii[1], 1 / 3)]
    inf = radii(load_model(PLAIN), Batch(INPUTS, LABELS, "inf"), Options(seconds=8.0))
    assert inf.radii == pytest.approx([0.5, 1.5, 0], rel=1e-6)


def test_items_say_what_is_certain_and_why_not() -> None:
    found = radii(load_model(PLAIN), Batch(INPUTS, LABELS), Options(seconds=8.0))
    items = found.certified([Fraction(0), Fraction(7, 10), Fraction(71, 100)])
    verdicts = [item.verdict for item in items]
    assert verdicts == ["verified", "verified", "unknown"] + ["verified"] * 3 + ["unknown"] * 3
    assert items[1].margin == pytest.approx(1 - 0.7 * math.sqrt(2), rel=1e-5)
    assert (items[1].assurance, items[2].assurance) == ("checked", None)
    assert items[1].certificate is items[0].certificate
    assert items[2].margin is not None
    assert items[2].margin < 0
    assert items[2].reason == "the Lipschitz constants do not reach so far"
    assert {item.reason for item in items[6:]} == {WRONG}


def test_no_radius_is_above_what_an_input_shows() -> None:
    """Random directions up to the radius never change the class."""
    data = mlp([6, 16, 16, 4], seed=3)
    model, generator = load_model(data), np.random.default_rng(0)
    inputs = generator.standard_normal((12, 6)).astype(np.float32)
    labels = model.executor.run(inputs).argmax(1).tolist()
    found = radii(model, Batch(inputs, labels), Options(seconds=8.0))
    assert all(radius > 0 for radius in found.radii)
    for x, label, radius in zip(inputs, labels, found.radii, strict=True):
        away = generator.standard_normal((200, 6))
        away *= 0.999 * radius / np.linalg.norm(away, axis=1, keepdims=True)
        assert (model.executor.run((x + away).astype(np.float32)).argmax(1) == label).all()


def test_without_time_nothing_is_certain() -> None:
    found = radii(load_model(PLAIN), Batch(INPUTS, LABELS), Options(seconds=1e-9))
    assert found.radii == [0.0, 0.0, 0.0]
    assert {item.verdict for item in found.certified([Fraction(0)])} == {"timeout"}


def test_a_target_is_the_only_rival() -> None:
    data = mlp([4, 8, 3], seed=1)
    inputs = np.zeros((1, 4), np.float32)
    label = int(load_model(data).executor.run(inputs).argmax())
    all_rivals = radii(load_model(data), Batch(inputs, [label]), Options(seconds=8.0))
    alone = [
        radii(load_model(data), Batch(inputs, [label], "2", j), Options(seconds=8.0)).radii[0]
        for j in range(3)
        if j != label
    ]
    assert min(alone) == pytest.approx(all_rivals.radii[0], rel=1e-4)


def test_networks_without_intervals_are_refused() -> None:
    with pytest.raises(BackendError, match="margins at inputs need the trusted checker's intervals"):
        radii(load_model(POSED), Batch(np.zeros((1, 2)), [0]), Options())


@pytest.fixture
def provenn_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("posed.safetensors").write_bytes(POSED)
    np.save("xs.npy", INPUTS)
    np.save("ys.npy", np.array(LABELS))
    return Command(capsys)


def test_the_command_keeps_and_draws(provenn_command: Command) -> None:
    asked = ("radius", "plain.onnx", "--input", "xs.npy", "--label", "ys.npy", "--timeout", "8")
    plain = provenn_command(*asked)
    assert plain.code == 0
    assert "median 0.7071" in plain.out
    pytest.importorskip("matplotlib")
    ran = provenn_command(*asked, "--out", "kept", "--plot", "curve.png", "--json")
    assert ran.code == 0
    assert (ran.json["verdict"], ran.json["assurance"]) == ("verified", "checked")
    kept = json.loads(Path(ran.json["curve_file"]).read_text())
    assert (kept["radii"], kept["curve"]) == (ran.json["radii"], ran.json["curve"])
    assert Path(ran.json["plot"]).read_bytes().startswith(b"\x89PNG")
    checked = provenn_command("check", ran.json["certificate"], "--model", "plain.onnx")
    assert checked.code == 0
    assert "output 0 - 1" in checked.out


def test_certify_with_method_lipschitz(provenn_command: Command) -> None:
    asked = ("certify", "plain.onnx", "--input", "xs.npy", "--label", "0,1,0", "--norm", "2", "--method", "lipschitz")
    ran = provenn_command(*asked, "--eps", "0.7", "--eps", "0.71", "--timeout", "8", "--out", "kept", "--json")
    assert ran.code == 11
    verdicts = [(item["epsilon"], item["verdict"]) for item in ran.json["items"]]
    one = [(0.7, "verified"), (0.71, "unknown")]
    assert verdicts == [*one, (0.7, "verified"), (0.71, "verified"), *one]
    assert {item["certificate"] for item in ran.json["items"]} == {"kept/certificate-00000.zip", None}
    assert "does not repeat" in ran.json["items"][0]["reason"]
    assert sorted(path.name for path in Path("kept").iterdir()) == ["certificate-00000.zip"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("radius plain.onnx --input xs.npy --label 0", "1 labels for 3 inputs"),
        ("radius plain.onnx --input xs.npy --label 0,1,7", "7 is not a class"),
        ("radius plain.onnx --input ys.npy --label ys.npy", "has shape [3], but the network takes [2]"),
        ("radius plain.onnx --input xs.npy --label ys.npy --method magic", "no such method"),
        ("radius plain.onnx --input xs.npy --label ys.npy --timeout -1", "is not a time"),
        ("radius posed.safetensors --input xs.npy --label 0,0,0", "has none: step layer0"),
        ("certify plain.onnx --input xs.npy --label ys.npy --eps 0.1 --norm 1 --method lipschitz", "norms 2 and inf"),
        (
            "certify plain.onnx --input xs.npy --label ys.npy --eps 0.1 --method lipschitz --semantics float32",
            "real arithmetic only",
        ),
        ("certify plain.onnx --input xs.npy --label ys.npy --eps 0.1 --method lipschitz --save s", "keeps no search"),
        ("certify plain.onnx --input xs.npy --label ys.npy --eps 0.1 --method lipschitz --clip 5 6", "clip"),
    ],
)
def test_bad_input(provenn_command: Command, line: str, message: str) -> None:
    ran = provenn_command(*line.split(), "--json")
    assert ran.code == 2, ran
    assert message in ran.json["error"]["message"]
