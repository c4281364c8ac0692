"""`provenn certify --save`: what ends the command leaves a search that the same command goes on with."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, PROPERTY, Command, two_layers

ENDED = """
import os, signal, sys
from provenn.api.cli import main
from provenn.solvers.branch_and_bound.descent import Descent

step, steps = Descent._step, []

def counted(descent):
    steps.append(descent)
    found = step(descent)
    if len(steps) == 2:
        os.kill(os.getpid(), int(sys.argv[1]))
    return found

Descent._step = counted
signal.signal(signal.SIGINT, signal.default_int_handler)  # some parents have their children ignore it
sys.exit(main(sys.argv[2:]))
"""
"""The command, which gets a signal after the second step of its search."""

CERTIFY = ("certify", "net.onnx", "--spec", "p.vnnlib", "--method", "branch-and-bound", "--save", "search.state")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a network of twelve inputs, and a property that holds, which takes some thousand parts to prove."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    first, shift, second = random.normal(size=(120, 12)), random.normal(size=120), random.normal(size=(1, 120))
    Path("net.onnx").write_bytes(two_layers(first.tolist(), shift.tolist(), second.tolist()))
    corners = np.float32(np.meshgrid(*[[-1, 1]] * 12)).reshape(12, -1).T
    highest = float((np.maximum(corners @ first.T + shift, 0) @ second.T).max())
    names = [f"X_{i}" for i in range(12)]
    lines = [f"(declare-const {name} Real)" for name in [*names, "Y_0"]]
    lines += [f"(assert (>= {name} -1.0))\n(assert (<= {name} 1.0))" for name in names]
    Path("p.vnnlib").write_text("\n".join([*lines, f"(assert (>= Y_0 {highest + 62:.3f}))\n"]))
    return tmp_path


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_signal_leaves_a_search_that_ends_in_a_certificate(
    number: int, code: int, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", ENDED, str(int(number)), *CERTIFY]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (code, "")
    assert ended.stderr == "the search is kept in search.state: the same command goes on from there\n"
    assert [path.name for path in folder.glob("search*")] == ["search.state"]
    provenn = Command(capsys)
    late = provenn(*CERTIFY, "--timeout", "1e-3", "--json")
    assert late.code == 12
    assert late.json["stats"]["branch-and-bound_domains"] > 0, "it goes on from there"
    rest = provenn(*CERTIFY, "--timeout", "300", "--out", "proof", "--json")
    assert (rest.code, rest.json["assurance"]) == (0, "checked")
    assert rest.json["stats"]["branch-and-bound_domains"] > late.json["stats"]["branch-and-bound_domains"]
    assert provenn("check", "proof/certificate.zip", "--model", "net.onnx", "--spec", "p.vnnlib").code == 0
    assert not list(folder.glob("search*"))


def test_a_folder_that_is_not_there_is_said_at_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("p.vnnlib").write_text(PROPERTY)
    Path("net.onnx").write_bytes(PLAIN)
    ran = Command(capsys)(*CERTIFY[:-1], "none/search.state")
    assert ran.code == 2 and "no folder none" in ran.err
