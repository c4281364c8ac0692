"""The conformance suite of VNN-LIB 2.0, `vnnlib-satisfactory`, run on the command."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from warm_command import warm_command

TESTS, PASSED = 178, 165
SECONDS = 60
"""A test's time limit, on cores that other tests are using."""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("vnntest") is None, reason="vnnlib-satisfactory is not installed")
def test_the_conformance_suite_finds_no_wrong_verdict(tmp_path: Path) -> None:
    test = [Path(sys.executable).parent / "vnntest", "run", "--timeout", str(SECONDS), "--solver"]
    with warm_command(tmp_path) as command:
        done = subprocess.run([*test, command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / ".vnnlib-satisfactory" / "report.json").read_text())
    summary = report["summary"]
    open_ = [
        (r["test_id"], r["expected"], r["actual"], r["stderr"]) for r in report["results"] if r["outcome"] != "pass"
    ]
    assert (summary["total"], summary["failed"], summary["skipped"]) == (TESTS, 0, 0), open_
    assert summary["passed"] >= PASSED, open_
    assert {actual for _, _, actual, _ in open_} <= {"unknown"}


@pytest.mark.skipif(find_spec("vnntest") is None, reason="vnnlib-satisfactory is not installed")
@pytest.mark.parametrize("check", ["opset", "vnnlib", "serialise-assignments"])
def test_the_interface_complies(check: str) -> None:
    folder = Path(sys.executable).parent
    command = [folder / "vnntest", "compliance", check, "--solver", folder / "provenn-vnnlib", "--timeout", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, "PASS" in done.stdout) == (0, True), done.stdout
