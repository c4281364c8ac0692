"""The examples of docs/client.md, run as they stand, one after the other, against a real service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from client_kit import DOMAIN, TABLE
from documented import ROOT
from onnx import TensorProto, helper, numpy_helper
from service_kit import Server

import provenn
from provenn.api.client.clients import AsyncClient, Client

PAGE = (ROOT / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def digits() -> bytes:
    """8 x 8 pixels, 10 classes; the fourth wins for bright inputs."""
    generator = np.random.default_rng(0)
    first, second = generator.standard_normal((64, 12)) / 8, generator.standard_normal((12, 10))
    bias = np.eye(10)[3] * 20
    weights = {"a": first, "b": second, "c": bias}
    constants = [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()]
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "a"], ["z"], "first"),
        helper.make_node("Relu", ["z"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "b", "c"], ["y"], "second"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 10])
    graph = helper.make_graph(nodes, "digits", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def test_the_examples_do_what_they_say(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits.onnx").write_bytes(digits())
    Path("table.onnx").write_bytes(TABLE)
    Path("domain.json").write_text(json.dumps(DOMAIN))
    np.save("digit.npy", np.random.default_rng(1).random((1, 8, 8)).astype(np.float32))
    said: list[str] = []
    known: dict[str, Any] = {"__name__": "page"}
    assert len(EXAMPLES) == 7
    for number, example in enumerate(EXAMPLES):
        code = compile(
            example.replace("http://127.0.0.1:8000", server.url), f"docs/client.md, example {number}", "exec"
        )
        exec(code, known)
        said.append(capsys.readouterr().out)
    verified, again, questions, many, gathered, jobs, wrong = said
    assert verified.startswith("verified ")
    assert verified.endswith(" checked\n")
    assert again == ""
    assert "at most;" in questions
    assert "(0, 0, 'increasing')" in questions
    assert re.fullmatch(r"2 half verified [0-9a-f]{64}\n", many)
    assert gathered == "['verified', 'verified']\n"
    assert jobs.splitlines()[-2] == "end"
    assert "succeeded" in jobs
    assert '"label" is 12: it must be a whole number from 0 to 9' in wrong
    assert isinstance(known["result"], provenn.api.schemas.JobResult)


def test_the_readme_is_right_too(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.onnx").write_bytes(digits())
    section = (ROOT / "README.md").read_text().split("\n## From Python")[1].split("\n## ")[0]
    (example,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    known: dict[str, Any] = {"x": np.full((1, 8, 8), 0.5, np.float32)}
    exec(compile(example.replace("http://127.0.0.1:8000", server.url), "README.md", "exec"), known)
    assert capsys.readouterr().out.startswith("verified ")
    assert (known["result"].verdict, known["result"].assurance) == ("verified", "checked")


def test_every_verb_is_on_the_page() -> None:
    verbs = {name for name in vars(Client) if not name.startswith("_")} - {"drive", "close"}
    missing = {name for name in verbs if not re.search(rf"\b{name}\(", PAGE)}
    assert missing == set()


def test_both_clients_have_the_same_verbs() -> None:
    ours, theirs = ({name for name in vars(kind) if not name.startswith("_")} for kind in (Client, AsyncClient))
    assert ours == theirs
    for name in ours - {"drive", "close", "jobs", "events"}:
        one, other = getattr(Client, name), getattr(AsyncClient, name)
        assert (one.__doc__, one.__signature__) == (other.__doc__, other.__signature__)
        assert "Flow" not in str(one.__signature__)


def test_a_client_needs_no_torch() -> None:
    code = "import sys, provenn; provenn.Client; sys.exit(bool({'torch', 'onnxruntime'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
