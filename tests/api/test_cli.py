"""The small commands, help, and the parts of the command that need a process of their own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from cli_kit import PLAIN, PROPERTY, Command
from typer.testing import CliRunner

import provenn as facade
from provenn.api.cli.app import app
from provenn.solvers.portfolio import BACKENDS
from provenn.verifier.ops.table import OPS

COMMANDS = ("inspect", "certify", "check", "serve", "ops", "backends", "version")


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(capsys)


def process(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-m", "provenn", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_examples(command: str) -> None:
    found = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    assert found.exit_code == 0
    assert "Examples:" in found.stdout
    assert f"provenn {command}" in found.stdout
    assert "--json" in found.stdout


def test_without_a_command_there_is_help_and_exit_code_2(provenn: Command) -> None:
    ran = provenn()
    assert (ran.code, ran.err) == (2, "")
    assert all(command in ran.out for command in COMMANDS)


def test_version(provenn: Command) -> None:
    assert provenn("version", "--json").json["provenn"] == facade.__version__
    assert facade.__version__ in provenn("version").out
    assert provenn("--version").out == f"{facade.__version__}\n"


def test_ops_and_backends_list_all_there_are(provenn: Command) -> None:
    ops = provenn("ops", "--json").json["ops"]
    assert [o["op"] for o in ops] == [op.__name__ for op in OPS]
    assert all(o["onnx"] for o in ops)
    backends = provenn("backends", "--json").json["backends"]
    assert [b["name"] for b in backends] == list(BACKENDS)
    assert "crown" in provenn("backends").out
    words = set(re.findall(r"\w+", provenn("ops").out))
    assert {"ReverseSequence"} | {name for o in ops for name in (o["op"], *o["onnx"])} <= words


def test_inspect(provenn: Command, tmp_path: Path) -> None:
    model = tmp_path / "plain.onnx"
    model.write_bytes(PLAIN)
    found = provenn("inspect", model, "--json").json
    assert found["input_shape"] == [2]
    assert found["output_shape"] == [2]
    assert [layer["op"] for layer in found["layers"]] == ["Input", "Linear", "Relu", "Linear"]
    assert found["checkable"] is True
    assert "Relu" in provenn("inspect", model).out


def test_check_and_version_load_no_torch(provenn: Command, tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(PLAIN)
    (tmp_path / "p.vnnlib").write_text(PROPERTY)
    files = (tmp_path / "plain.onnx", "--spec", tmp_path / "p.vnnlib", "--out", tmp_path / "proof")
    certified = provenn("certify", *files, "--json")
    assert (certified.code, certified.err, certified.json["verdict"]) == (0, "", "verified")
    code = (
        "import sys; from provenn.api.cli import main; code = main(sys.argv[1:]);"
        "sys.exit(code or 99 * bool({'torch', 'onnxruntime', 'fastapi', 'sqlalchemy'} & set(sys.modules)))"
    )
    for line in ("check proof/certificate.zip --model plain.onnx --spec p.vnnlib", "version", "--help"):
        ran = subprocess.run(
            [sys.executable, "-c", code, *line.split()], cwd=tmp_path, capture_output=True, check=False
        )
        assert ran.returncode == 0, line


def test_exit_codes_of_processes(tmp_path: Path) -> None:
    (tmp_path / "plain.onnx").write_bytes(PLAIN)
    (tmp_path / "unsafe.vnnlib").write_text(PROPERTY.replace("(<= Y_0 Y_1)", "(>= Y_0 Y_1)"))
    certified = process("certify", "plain.onnx", "--spec", "unsafe.vnnlib", "--json", folder=tmp_path)
    assert (certified.returncode, certified.stderr) == (10, "")
    assert json.loads(certified.stdout)["verdict"] == "falsified"
    assert process("check", "plain.onnx", "--model", "plain.onnx", folder=tmp_path).returncode == 13
    assert process("inspect", "unsafe.vnnlib", folder=tmp_path).returncode == 2


def test_our_own_mistakes_end_with_code_1_and_say_so(tmp_path: Path) -> None:
    code = (
        "import sys; from provenn.api.cli import listings, main;"
        "listings.versions = lambda: 1 / 0; sys.exit(main(['version', '--json']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert ran.returncode == 1
    assert json.loads(ran.stdout)["error"]["type"] == "InternalError"
    assert "Traceback" in ran.stderr
    assert "error: internal error, not yours: ZeroDivisionError" in ran.stderr


def test_serve_says_where_it_is_and_stops_when_told(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "provenn",
        "serve",
        "--port",
        "0",
        "--data-dir",
        "data",
        "--workers",
        "1",
        "--json",
    ]
    environment = {**os.environ, "PROVENN_THREADS": "1"}
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, env=environment) as server:
        assert server.stdout is not None
        try:
            said = json.loads(server.stdout.readline())
            assert said["workers"] == 1
            assert said["data_dir"] == str((tmp_path / "data").resolve())
            transport = httpx.HTTPTransport(retries=8)
            with httpx.Client(transport=transport, timeout=30) as client:
                assert client.get(said["url"] + "/healthz").json()["version"] == facade.__version__
            busy = process("serve", "--port", "0", "--data-dir", "data", folder=tmp_path)
            assert busy.returncode == 2
            assert "in use by another server" in busy.stderr
            port = said["url"].rpartition(":")[2]
            taken = process("serve", "--port", port, "--data-dir", "other", folder=tmp_path)
            assert taken.returncode == 2
            assert f"port {port}" in taken.stderr
        finally:
            server.send_signal(signal.SIGINT)
        server.stdout.read()
        assert server.wait(timeout=60) in (0, -signal.SIGINT, 130)
