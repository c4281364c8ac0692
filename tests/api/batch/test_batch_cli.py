"""`provenn batch`, and `provenn check` of what it leaves."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from batch_kit import LABELS, POINTS, ROOMY, put_together, taken_apart
from cli_kit import Command
from securesystemslib.signer import CryptoSigner
from signing_kit import OTHER, SIGNER

from provenn.api.batch.bundle import batch_item
from provenn.api.batch.rows import canonical
from provenn.api.signing import sign
from provenn.api.signing_batch import statement
from provenn.api.signing_bundle import attach
from provenn.api.signing_keys import Keyring, published


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a folder with a network and data."""
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").write_bytes(ROOMY)
    points, labels = np.array(POINTS, np.float32), np.array(LABELS)
    np.savez("d.npz", x=points, y=labels)
    np.save("x.npy", points * 8)
    np.save("y.npy", labels)
    return Command(capsys)


def test_verdicts_kept_and_checked(provenn: Command) -> None:
    ran = provenn("batch", "m.onnx", "d.npz", "--eps", "0.1,0.4", "--clip", "0", "1", "--out", "o", "--json")
    assert (ran.code, ran.err) == (10, "")
    assert (ran.json["verdict"], ran.json["inputs"], ran.json["rows"]) == ("falsified", 6, 12)
    assert ran.json["summary"]["radii"][0]["certified"]["count"] == 4
    assert json.loads(Path("o/summary.json").read_text())["root"] == ran.json["root"]
    assert len(Path("o/results.jsonl").read_text().splitlines()) == 12
    assert set(ran.json["files"]) >= {"results", "summary", "bundle", "curve", "histogram"}
    assert all(Path(path).stat().st_size > 0 for path in ran.json["files"].values())
    for name in ("curve", "histogram"):
        page = Path(ran.json["files"][name]).read_text()
        assert "<svg" in page
        assert not re.search(r"\bnan\b", page)
        alone = ElementTree.parse(ran.json["files"][f"{name}_svg"]).getroot()
        shapes = [each.get("d") for each in alone.iter("{http://www.w3.org/2000/svg}path")]
        assert shapes == re.findall(r'<path [^>]*\bd="([^"]*)"', page)
        if find_spec("matplotlib") is not None:
            assert Path(ran.json["files"][f"{name}_png"]).read_bytes().startswith(b"\x89PNG")
    accepted = provenn("check", "o/batch.zip", "--model", "m.onnx", "--data", "d.npz", "--json")
    assert (accepted.code, accepted.json["accepted"], accepted.json["replayed"]) == (0, True, 6)
    assert "of 6 inputs 4 within l-infinity distance 0.1" in accepted.json["proves"]
    alone = provenn("check", "o/batch.zip", "--model", "m.onnx", "--item", "3", "--json")
    assert (alone.code, alone.json["rows"]) == (0, 1)
    taken = provenn("batch-item", "o/batch.zip", "3", "--out", "row.zip", "--json")
    assert (taken.code, taken.json["row"], taken.json["index"], taken.json["signed"]) == (0, 3, 1, False)
    assert (taken.json["root"], Path("row.zip").read_bytes()) == (ran.json["root"], batch_item(Path("o/batch.zip"), 3))
    assert provenn("batch-item", "o/batch.zip", "12", "--out", "row.zip").code == 2
    assert provenn("batch-item", "d.npz", "1", "--out", "no.zip").code == 13
    assert provenn("batch-item", "none.zip", "1", "--out", "no.zip").code == 2
    assert "not checked: a row alone" in provenn("check", "row.zip", "--model", "m.onnx").out
    assert "not checked" not in provenn("check", "row.zip", "--model", "m.onnx", "--data", "d.npz").out
    manifest, rows, kept = taken_apart(Path("o/batch.zip"))
    rows[0]["margin"] *= 2
    put_together(Path("wrong.zip"), manifest, rows, kept)
    rejected = provenn("check", "wrong.zip", "--model", "m.onnx")
    assert rejected.code == 13
    assert "row 0" in rejected.out


def signed(path: Path, to: str, signer: CryptoSigner = SIGNER) -> str:
    """The bundle as a service sends it."""
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        manifest = archive.read("batch.json")
    told = statement(manifest, "m.onnx", hashlib.sha256(data).hexdigest())
    Path(to).write_bytes(attach(data, sign(told, signer)))
    return to


def test_who_signed_a_batch(provenn: Command) -> None:
    """Is one question; whether it is true another."""
    Path("secret.pem").write_bytes(SIGNER.private_bytes)
    Path("secret.pem").chmod(0o600)
    Path("keys.json").write_text(published(Keyring(Path("keys"), Path("secret.pem")).folder).model_dump_json())
    assert provenn("batch", "m.onnx", "d.npz", "--eps", "0.1", "--out", "o").code == 10
    whole = signed(Path("o/batch.zip"), "signed.zip")
    assert provenn("batch-item", whole, "2", "--out", "row.zip").code == 0
    manifest, rows, kept = taken_apart(Path("o/batch.zip"))
    rows[0]["margin"] *= 2
    false = signed(put_together(Path("false.zip"), manifest, rows, kept), "false.zip")
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    files["batch.json"] = canonical(manifest | {"produced_by": {"provenn": "0.0.1"}})
    with zipfile.ZipFile("other.zip", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    stranger = signed(Path("o/batch.zip"), "stranger.zip", OTHER)
    for path, code, status in (
        ("o/batch.zip", 14, "absent"),
        (whole, 0, "valid"),
        ("row.zip", 0, "valid"),
        (false, 13, "valid"),
        ("other.zip", 14, "invalid"),
        (stranger, 14, "unknown-key"),
    ):
        ran = provenn("check", path, "--model", "m.onnx", "--keys", "keys.json", "--require-signature", "--json")
        assert (ran.code, ran.json["signature"]["status"]) == (code, status), path
        assert ran.json["accepted"] == (code != 13)
    assert "unknown key" in provenn("check", whole, "--model", "m.onnx").out


def test_tables_for_people(provenn: Command) -> None:
    ran = provenn("batch", "m.onnx", "d.npz", "--eps", "0.1,0.4")
    assert "certified accuracy" in ran.out
    assert "66.7 %" in ran.out
    assert "not kept: give --out DIR" in ran.out
    assert sorted(path.name for path in Path().iterdir()) == ["d.npz", "m.onnx", "x.npy", "y.npy"]


def test_radii_in_the_units_of_the_data(provenn: Command) -> None:
    asked = ("--radius", "2", "--tolerance", "0.1", "--divide", "8", "--labels", "y.npy", "--out", "o", "--json")
    ran = provenn("batch", "m.onnx", "x.npy", *asked)
    assert (ran.code, ran.json["question"]["largest"]) == (10, "2")
    rows = [json.loads(line) for line in Path("o/results.jsonl").read_text().splitlines()]
    truth = [8 * (x[k] - x[1 - k]) / 2 for x, k in zip(POINTS, LABELS, strict=True)]
    for row, radius in zip(rows, truth, strict=True):
        if 0 < radius <= 2:
            assert row["certified"] < radius <= row["attacked"] <= row["certified"] / 0.89
    accepted = provenn("check", "o/batch.zip", "--model", "o/model.onnx", "--data", "x.npy", "--labels", "y.npy")
    assert accepted.code == 0
    assert provenn("check", "o/batch.zip", "--model", "m.onnx").code == 13


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ((), "either --eps"),
        (("--eps", "0.1", "--radius", "1"), "either --eps"),
        (("--eps", "0.1,x"), "'x' is not a number"),
        (("--eps", "0.1,-1"), "not a radius"),
        (("--radius", "0"), "above 0"),
        (("--eps", "0.1", "--clip", "1", "0"), "--clip"),
        (("--radius", "1", "--tolerance", "2"), "--tolerance"),
        (("--eps", "0.1", "--mean", "a"), "--mean"),
        (("--eps", "0.1", "--divide", "0"), "'divide'"),
        (("--eps", "0.1", "--timeout", "0"), "--timeout"),
        (("--eps", "0.1", "--method", "else"), "unknown method"),
        (("--eps", "0.1", "--labels", "0,1"), "leave the labels out"),
        (("--eps", "0.1", "--mean", "1,2,3"), "channel"),
        (("--eps", "0.1", "--clip", "0", "0.5"), "empty region"),
    ],
)
def test_bad_input_is_named(given: tuple[str, ...], said: str, provenn: Command) -> None:
    ran = provenn("batch", "m.onnx", "d.npz", *given)
    assert ran.code == 2
    assert said in ran.err


def test_options_of_batches_alone(provenn: Command) -> None:
    Path("c.zip").write_bytes(b"")
    ran = provenn("check", "c.zip", "--model", "m.onnx", "--item", "1")
    assert (ran.code, "belong to a batch" in ran.err) == (2, True)


def test_a_folder_that_cannot_be_written(provenn: Command) -> None:
    Path("file").write_text("")
    ran = provenn("batch", "m.onnx", "d.npz", "--eps", "0.1", "--out", "file/o")
    assert ran.code == 1
    assert "cannot write to file/o" in ran.err
