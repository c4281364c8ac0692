"""Whatever is wrong with the input ends with exit code 2, the cause on stderr and in the JSON, and no traceback."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, PROPERTY, Command

ROBUST = "--input x.npy --label 0 --eps 0.1"
CASES = {
    "no file": ("certify none.onnx " + ROBUST, "none.onnx: cannot be read: No such file"),
    "a folder": ("certify . " + ROBUST, "cannot be read: Is a directory"),
    "not ONNX": ("certify text.onnx " + ROBUST, "ONNX"),
    "truncated": ("certify cut.onnx " + ROBUST, ""),
    "0 bytes": ("certify empty.onnx " + ROBUST, "empty.onnx: the file is empty (0 bytes)"),
    "broken gzip": ("certify cut.onnx.gz " + ROBUST, "cut.onnx.gz: is not a complete gzip file"),
    "inspect not ONNX": ("inspect text.onnx", "ONNX"),
    "no question": ("certify plain.onnx", "give --spec FILE, or --input"),
    "two questions": ("certify plain.onnx --spec p.vnnlib " + ROBUST, "not both"),
    "an option without its input": ("certify plain.onnx --spec p.vnnlib --eps 0.1", "belong to --input"),
    "no label": ("certify plain.onnx --input x.npy --eps 0.1", "--label: is missing"),
    "no radius": ("certify plain.onnx --input x.npy --label 0", "--eps: is missing"),
    "wrong shape": (
        "certify plain.onnx --input wide.npy --label 0 --eps 0.1",
        "wide.npy: has shape [3], but the network takes [2]",
    ),
    "nan": ("certify plain.onnx --input nan.npy --label 0 --eps 0.1", "nan.npy: has the value nan at index [1]"),
    "inf": ("certify plain.onnx --input inf.npy --label 0 --eps 0.1", "inf.npy: has the value inf at index [0]"),
    "not numbers": ("certify plain.onnx --input words.npy --label 0 --eps 0.1", "numbers are needed"),
    "a pickle": ("certify plain.onnx --input pickle.npy --label 0 --eps 0.1", "is not a .npy array"),
    "not npy": ("certify plain.onnx --input p.vnnlib --label 0 --eps 0.1", "p.vnnlib: is not a .npy array"),
    "negative radius": ("certify plain.onnx --input x.npy --label 0 --eps -0.1", "-0.1 is not a radius"),
    "nan radius": ("certify plain.onnx --input x.npy --label 0 --eps nan", "'nan' is not a number"),
    "huge radius": ("certify plain.onnx --input x.npy --label 0 --eps 1e300", "1e300 is not a radius"),
    "label out of range": (
        "certify plain.onnx --input x.npy --label 2 --eps 0.1",
        "--label: 2 is not a class of this network; the classes are 0 to 1",
    ),
    "negative label": ("certify plain.onnx --input x.npy --label -1 --eps 0.1", "-1 is not a class"),
    "label not a number": ("certify plain.onnx --input x.npy --label cat --eps 0.1", "'cat' is neither a class number"),
    "two labels for one input": ("certify plain.onnx --input x.npy --label 0,1 --eps 0.1", "2 labels for 1 inputs"),
    "labels of floats": ("certify plain.onnx --input x.npy --label x.npy --eps 0.1", "labels are integers"),
    "target out of range": ("certify plain.onnx --target 7 " + ROBUST, "--target: 7 is not a class"),
    "target is the label": ("certify plain.onnx --target 0 " + ROBUST, "both 0"),
    "clip upside down": ("certify plain.onnx --clip 1 0 " + ROBUST, "LO below HI"),
    "clip beside the input": ("certify plain.onnx --clip 5 6 " + ROBUST, "clip"),
    "unknown norm": ("certify plain.onnx --norm 3 " + ROBUST, "--norm"),
    "unknown method": (
        "certify plain.onnx --method magic " + ROBUST,
        "unknown method; known methods: auto, ibp, crown",
    ),
    "unknown device": ("certify plain.onnx --device abacus " + ROBUST, "not available here"),
    "no time": ("certify plain.onnx --timeout 0 " + ROBUST, "--timeout: 0.0 is not a time"),
    "spec missing": ("certify plain.onnx --spec none.vnnlib", "none.vnnlib: cannot be read"),
    "spec malformed": ("certify plain.onnx --spec text.onnx", ""),
    "spec for another network": ("certify plain.onnx --spec other.vnnlib", "3 input variables, the network has 2"),
    "check: no certificate": ("check none.zip --model plain.onnx", "none.zip: cannot be read"),
    "check: no model": ("check p.vnnlib --model none.onnx", "none.onnx: cannot be read"),
    "unknown option": ("certify plain.onnx --speed 3", "No such option"),
    "unknown command": ("prove plain.onnx", "No such command"),
    "serve: bad port": ("serve --port 99999", "--port"),
    "serve: bad folder": ("serve --port 0 --data-dir p.vnnlib", "p.vnnlib cannot be written"),
    "serve: bad host": ("serve --port 0 --host 203.0.113.7 --data-dir data", "whoever reaches 203.0.113.7 could use"),
}


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("cut.onnx").write_bytes(PLAIN[: len(PLAIN) // 2])
    Path("text.onnx").write_text("This is not a network.")
    Path("empty.onnx").write_bytes(b"")
    Path("cut.onnx.gz").write_bytes(b"\x1f\x8b\x08\x00\x00")
    Path("p.vnnlib").write_text(PROPERTY)
    declared = PROPERTY.replace("(declare-const Y_0", "(declare-const X_2 Real)\n(declare-const Y_0")
    Path("other.vnnlib").write_text(declared + "(assert (>= X_2 0))\n(assert (<= X_2 1))\n")
    np.save("x.npy", np.array([1.0, 0.0]))
    np.save("wide.npy", np.zeros(3))
    np.save("nan.npy", np.array([0, np.nan]))
    np.save("inf.npy", np.array([np.inf, 0]))
    np.save("words.npy", np.array(["a", "b"]))
    np.save("pickle.npy", np.array([{}, {}], dtype=object), allow_pickle=True)
    return Command(capsys)


@pytest.mark.parametrize(("line", "cause"), CASES.values(), ids=CASES)
def test_exit_code_2_with_the_cause(provenn: Command, line: str, cause: str) -> None:
    ran = provenn(*line.split())
    assert ran.code == 2
    assert ran.err.startswith("error: ")
    assert cause in ran.err
    assert len(ran.err.strip()) > len("error: ")
    assert "Traceback" not in ran.err
    assert ran.out == ""


@pytest.mark.parametrize("case", ["not ONNX", "label out of range", "unknown method", "unknown option", "nan"])
def test_the_json_error_is_one_object(provenn: Command, case: str) -> None:
    line, cause = CASES[case]
    ran = provenn(*line.split(), "--json")
    assert ran.code == 2
    assert list(ran.json) == ["error"]
    assert cause in ran.json["error"]["message"]
    assert ran.json["error"]["type"].isidentifier()


def test_a_mistake_in_several_values_is_found_before_anything_runs(provenn: Command) -> None:
    ran = provenn(*["certify", "none.onnx", "--input", "none.npy", "--label", "0", "--eps", "0.1", "--eps", "-1"])
    assert "-1 is not a radius" in ran.err
