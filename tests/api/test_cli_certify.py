"""`provenn certify` and `check` in process: verdicts, JSON, files, batches."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, PROPERTY, STUBBORN, Command

from provenn.verifier.certificate.bundle import load, write


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """The command, in a folder with networks, inputs and a property."""
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("stubborn.onnx").write_bytes(STUBBORN)
    Path("p.vnnlib").write_text(PROPERTY)
    np.save("x.npy", np.array([1, 0], np.float32))
    np.save("xs.npy", np.array([[1, 0], [0, 1], [0.25, 1]], np.float32))
    np.save("ys.npy", np.array([0, 1, 1]))
    np.save("zero.npy", np.zeros(1))
    return Command(capsys)


ROBUST = ("certify", "plain.onnx", "--input", "x.npy", "--label", "0")


def test_verified_with_a_certificate_that_check_accepts(provenn: Command) -> None:
    ran = provenn(*ROBUST, "--eps", "0.25", "--out", "proof", "--json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["verdict"] == "verified"
    assert ran.json["assurance"] == "checked"
    assert 0 < ran.json["margin"] <= 0.5
    assert ran.json["certificate"] == "proof/certificate.zip"
    assert ran.json["counterexample"] is None
    assert ran.json["seconds"] > 0
    assert set(ran.json) >= {"method", "reason", "stats"}
    accepted = provenn("check", "proof/certificate.zip", "--model", "plain.onnx", "--json")
    assert accepted.code == 0
    assert accepted.json["accepted"] is True
    assert accepted.json["margin"] == ran.json["margin"]
    assert "for every input within l-infinity distance" in accepted.json["proves"]


def test_falsified_with_a_counterexample_that_is_one(provenn: Command) -> None:
    ran = provenn(*ROBUST, "--eps", "0.75", "--clip", "0", "1", "--out", "proof", "--json")
    assert ran.code == 10
    found = ran.json["counterexample"]
    assert found["path"] == "proof/counterexample.npy"
    x = np.load(found["path"])
    assert x.dtype == np.float32
    assert x.tolist() == found["input"]
    assert np.abs(x - [1, 0]).max() <= 0.75
    assert ((x >= 0) & (x <= 1)).all()
    assert found["output"][1] >= found["output"][0]
    assert (ran.json["assurance"], ran.json["certificate"]) == ("replayed", None)


def test_unknown_and_timeout_have_codes_of_their_own(provenn: Command) -> None:
    stubborn = ("certify", "stubborn.onnx", "--input", "zero.npy", "--label", "0", "--eps", "1", "--json")
    unknown = provenn(*stubborn, "--method", "crown")
    assert (unknown.code, unknown.json["verdict"]) == (11, "unknown")
    assert unknown.json["margin"] < 0
    branched = provenn(*stubborn)
    assert (branched.code, branched.json["method"], branched.json["assurance"]) == (0, "branch-and-bound", "checked")
    late = provenn(*stubborn, "--timeout", "1e-9")
    assert (late.code, late.json["verdict"], late.json["margin"]) == (12, "timeout", None)


def test_without_out_nothing_is_written(provenn: Command) -> None:
    before = sorted(Path().iterdir())
    ran = provenn(*ROBUST, "--eps", "0.25", "--json")
    assert (ran.json["certificate"], ran.json["assurance"]) == (None, "checked")
    assert sorted(Path().iterdir()) == before


def test_a_batch_is_verified_if_all_of_it_is(provenn: Command) -> None:
    batch = ("certify", "plain.onnx", "--input", "xs.npy", "--json")
    both = provenn(*batch, "--label", "0,1,1", "--eps", "0.1", "--eps", "1/4")
    assert (both.code, both.json["verdict"], both.json["assurance"]) == (0, "verified", "checked")
    items = both.json["items"]
    assert [(i["input"], i["epsilon"]) for i in items] == [(i, e) for i in range(3) for e in (0.1, 0.25)]
    assert both.json["margin"] == min(i["margin"] for i in items)
    one = provenn(*batch, "--label", "ys.npy", "--eps", "0.4", "--out", "proof")
    assert (one.code, one.json["verdict"]) == (10, "falsified")
    assert [i["verdict"] for i in one.json["items"]] == ["verified", "verified", "falsified"]
    assert one.json["items"][0]["certificate"] == "proof/certificate-00000.zip"
    assert one.json["counterexample"]["path"] == "proof/counterexample-00002.npy"
    assert sorted(p.name for p in Path("proof").iterdir()) == [
        "certificate-00000.zip",
        "certificate-00001.zip",
        "counterexample-00002.npy",
    ]


def test_many_items_are_certified_in_chunks_and_stay_in_order(provenn: Command) -> None:
    points = np.random.default_rng(0).random((300, 2)).astype(np.float32)
    np.save("many.npy", points)
    np.save("labels.npy", points.argmax(axis=1))
    ran = provenn(
        "certify",
        "plain.onnx",
        "--input",
        "many.npy",
        "--label",
        "labels.npy",
        "--eps",
        "0.05",
        "--clip",
        "0",
        "1",
        "--json",
    )
    gap = np.abs(points[:, 0] - points[:, 1])
    verdicts = {i["input"]: i["verdict"] for i in ran.json["items"]}
    assert len(verdicts) == 300
    for index in range(300):
        assert verdicts[index] == "verified" or gap[index] < 0.1 + 1e-5, index
        assert verdicts[index] != "verified" or gap[index] > 0.1 - 1e-6, index


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_every_norm(provenn: Command, norm: str) -> None:
    ran = provenn(*ROBUST, "--eps", "0.3", "--norm", norm, "--target", "1", "--json")
    assert (ran.code, ran.json["assurance"]) == (0, "checked")


@pytest.mark.parametrize("method", ["auto", "ibp", "crown"])
def test_every_method_says_which_one_it_was(provenn: Command, method: str) -> None:
    ran = provenn(*ROBUST, "--eps", "0.1", "--method", method, "--json")
    assert ran.code == 0
    assert ran.json["method"] in (("ibp", "crown") if method == "auto" else (method,))


def test_files_may_be_gzipped_and_the_certificate_is_about_what_is_inside(provenn: Command) -> None:
    Path("plain.onnx.gz").write_bytes(gzip.compress(PLAIN))
    Path("p.vnnlib.gz").write_bytes(gzip.compress(PROPERTY.encode()))
    assert provenn("certify", "plain.onnx.gz", "--spec", "p.vnnlib.gz", "--out", "proof").code == 0
    for model in ("plain.onnx", "plain.onnx.gz"):
        for spec in ("p.vnnlib", "p.vnnlib.gz"):
            assert provenn("check", "proof/certificate.zip", "--model", model, "--spec", spec).code == 0


def test_a_json_specification(provenn: Command) -> None:
    unsafe = [{"C": [["-1", "1"]], "d": ["0"]}]
    text = {
        "format": "provenn-specification/1",
        "kind": "box",
        "lower": [0.9, -0.1],
        "upper": [1.1, 0.1],
        "unsafe": unsafe,
    }
    Path("p.json").write_text(json.dumps(text))
    assert provenn("certify", "plain.onnx", "--spec", "p.json").code == 0


def test_check_rejects_another_model_another_property_and_an_edited_file(provenn: Command) -> None:
    assert provenn("certify", "plain.onnx", "--spec", "p.vnnlib", "--out", "proof").code == 0
    check = ("check", "proof/certificate.zip", "--json")
    other = provenn(*check, "--model", "stubborn.onnx")
    assert (other.code, other.json["accepted"], other.json["claim"]) == (13, False, "model")
    assert "another model" in other.json["reason"]
    Path("q.vnnlib").write_text(PROPERTY.replace("1.1", "1.2"))
    assert provenn(*check, "--model", "plain.onnx", "--spec", "q.vnnlib").code == 13
    files = load(Path("proof/certificate.zip"))
    write({**files, "manifest.json": files["manifest.json"].replace(b"verified", b"verifiee")}, Path("edited"))
    edited = provenn("check", "edited", "--model", "plain.onnx")
    assert edited.code == 13
    assert "rejected" in edited.out


def test_stale_results_of_an_earlier_run_are_removed_and_nothing_else(provenn: Command) -> None:
    assert provenn(*ROBUST, "--eps", "0.25", "--out", "proof").code == 0
    Path("proof/notes.txt").write_text("mine")
    assert provenn(*ROBUST, "--eps", "0.75", "--out", "proof").code == 10
    assert sorted(p.name for p in Path("proof").iterdir()) == ["counterexample.npy", "notes.txt"]


def test_a_verdict_survives_a_folder_that_cannot_be_written(provenn: Command) -> None:
    Path("file").write_text("not a folder")
    ran = provenn(*ROBUST, "--eps", "0.25", "--out", "file/proof", "--json")
    assert ran.code == 1
    assert (ran.json["verdict"], ran.json["certificate"]) == ("verified", None)
    assert ran.json["error"]["type"] == "CannotWrite"
    assert "error: cannot write to file/proof" in ran.err


def test_a_verdict_survives_a_full_disk(provenn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    ran = provenn(*ROBUST, "--eps", "0.25", "--out", "proof")
    assert ran.code == 1
    assert "verified" in ran.out
    assert "No space left on device" in ran.err
    assert list(Path("proof").iterdir()) == []


def test_tables_for_people(provenn: Command) -> None:
    one = provenn(*ROBUST, "--eps", "0.25")
    assert "verified" in one.out
    assert "--out" in one.out
    falsified = provenn(*ROBUST, "--eps", "0.75")
    assert "falsified" in falsified.out
    batch = provenn("certify", "plain.onnx", "--input", "xs.npy", "--label", "ys.npy", "--eps", "0.1", "--eps", "0.4")
    lines = [line.split() for line in batch.out.splitlines()]
    assert ["0.1", "3", "0", "0", "0", "100.0"] in lines
    assert ["0.4", "2", "1", "0", "0", "66.7"] in lines
