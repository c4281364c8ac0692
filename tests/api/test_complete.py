"""Hard queries are decided from file to certificate: self-made ones, and reference instances where they are there."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cli_kit import Command, two_layers
from onnx import TensorProto, helper, numpy_helper

from provenn.api import proofs
from provenn.api.certification import ItemResult, Options, certify, load_model
from provenn.solvers.branch_and_bound import BranchAndBound
from provenn.solvers.portfolio import BACKENDS
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.certificate.trees import Trees
from provenn.verifier.check import check
from provenn.verifier.spec_reader import read_specification

FOLD = two_layers(
    [[1, 0], [-1, 0], [0, 1], [0, -1], [1, 1], [-1, -1]],
    [0, 0, 0, 0, 0, 0],
    [[1, 1, 1, 1, -1, -1]],
)
"""y = |a| + |b| - |a + b|: over [-1, 1]^2 at most 2, at (1, -1)."""


def asked(limit: str) -> bytes:
    """Whether y >= limit somewhere in [-1, 1]^2."""
    declared = "".join(f"(declare-const {name} Real)\n" for name in ("X_0", "X_1", "Y_0"))
    boxes = "".join(f"(assert (>= X_{i} -1))\n(assert (<= X_{i} 1))\n" for i in (0, 1))
    return f"{declared}{boxes}(assert (>= Y_0 {limit}))\n".encode()


def answered(model: bytes, text: bytes, **options: object) -> ItemResult:
    (item,) = certify(load_model(model), [read_specification(text)], replace(Options(), **options))
    return item


@pytest.fixture(params=["input", "neuron"])
def split(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The method of that name splits only so."""

    class Chosen(BranchAndBound):
        def __init__(self) -> None:
            super().__init__(split=request.param)

    monkeypatch.setitem(BACKENDS, BranchAndBound.name, Chosen)
    return str(request.param)


def test_what_branching_proves_is_verified_checked_and_tight(split: str) -> None:
    item = answered(FOLD, asked("2.01"), method="branch-and-bound")
    assert (item.verdict, item.assurance, item.method) == ("verified", "checked", "branch-and-bound"), item.reason
    assert item.certificate is not None and any(name.startswith("tree-") for name in item.certificate)
    assert 0 < check(item.certificate, FOLD, asked("2.01")).margin <= 0.01 + 1e-9


def test_what_is_false_by_little_is_falsified_by_a_replayed_input(split: str) -> None:
    item = answered(FOLD, asked("1.99"), method="branch-and-bound")
    assert (item.verdict, item.assurance) == ("falsified", "replayed")
    assert item.counterexample is not None
    a, b = item.counterexample.input
    assert abs(a) + abs(b) - abs(a + b) >= 1.99 - 1e-6


def test_float32_executions_of_a_branched_proof_are_certified_too(split: str) -> None:
    item = answered(FOLD, asked("2.01"), method="branch-and-bound", semantics="float32")
    assert (item.verdict, item.assurance) == ("verified", "deployed"), item.reason


@pytest.mark.parametrize("function", ["Tanh", "Sigmoid", "LeakyRelu"])
def test_other_functions_are_split_and_proved(function: str, split: str) -> None:
    """y = f(a) - f(a + b) + f(b): odd or not, an interval around each f is far too wide."""
    weights = {"w": [[1, 1, 0], [0, 1, 1]], "v": [[1], [-1], [1]]}
    constants = [numpy_helper.from_array(np.array(values, np.float32), name) for name, values in weights.items()]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node(function, ["z"], ["a"]),
        helper.make_node("MatMul", ["a", "v"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", 2), ("y", 1))]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    corners = np.random.default_rng(0).uniform(-1, 1, (4000, 2)).astype(np.float32)
    largest = float(load_model(network.SerializeToString()).executor.run(corners.reshape(-1, 2)).max())
    item = answered(network.SerializeToString(), asked(f"{largest + 0.05:.4f}"), method="branch-and-bound")
    assert (item.verdict, item.assurance) == ("verified", "checked"), item.reason


def test_a_proof_beyond_its_budget_leaves_a_verdict_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proofs, "Trees", lambda **given: Trees(budget=10, **given))
    item = answered(FOLD, asked("2.01"), method="branch-and-bound")
    assert (item.verdict, item.assurance, item.certificate) == ("verified", "computed", None)
    assert item.reason is not None and "budget for proofs" in item.reason


def test_the_checker_alone_confirms_a_proof_of_trees(tmp_path: Path) -> None:
    (tmp_path / "fold.onnx").write_bytes(FOLD)
    (tmp_path / "fold.vnnlib").write_bytes(asked("2.01"))
    item = answered(FOLD, asked("2.01"), method="branch-and-bound")
    assert item.certificate is not None
    (tmp_path / "proof.zip").write_bytes(to_zip(item.certificate))
    command = [sys.executable, "-m", "provenn.verifier.check", "proof.zip", "--model", "fold.onnx"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0 and ran.stdout.startswith("accepted"), ran.stderr


REFERENCE = [
    ("acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx.gz", "acasxu/vnnlib/prop_1.vnnlib.gz", "verified"),
    ("mnist_fc/onnx/mnist-net_256x4.onnx.gz", "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz", "verified"),
    ("mnist_fc/onnx/mnist-net_256x4.onnx.gz", "mnist_fc/vnnlib/prop_6_0.05.vnnlib.gz", "falsified"),
    ("rl_benchmarks/onnx/cartpole.onnx.gz", "rl_benchmarks/vnnlib/cartpole_case_unsafe_0.vnnlib.gz", "verified"),
    ("rl_benchmarks/onnx/cartpole.onnx.gz", "rl_benchmarks/vnnlib/cartpole_case_unsafe_29.vnnlib.gz", "falsified"),
]


@pytest.mark.shared
@pytest.mark.parametrize(("model", "text", "verdict"), REFERENCE)
def test_reference_instances_are_decided(
    shared: Path, model: str, text: str, verdict: str, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [shared / "vnncomp2022" / name for name in (model, text)]
    ran = Command(capsys)("certify", files[0], "--spec", files[1], "--json")
    expected = "checked" if verdict == "verified" else "replayed"
    assert (ran.json["verdict"], ran.json["assurance"]) == (verdict, expected), ran.out + ran.err
