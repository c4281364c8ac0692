"""The fixture `certify`, as the plugin gives it to these tests themselves."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN

from provenn.pytest_plugin import Certify
from provenn.verifier.errors import InvalidSpecification

X = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.5, 0.45]], np.float32)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """y = relu(x): class 0 is safe at (1, 0) for radii below 1/2, at (0.6, 0.4) below 0.1."""
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    path.write_bytes(PLAIN)
    return path


def test_what_is_certified_passes(certify: Certify, path: Path) -> None:
    (result,) = certify(path.read_bytes(), X[0], 0, eps=0.4)
    assert (result.verdict, result.assurance) == ("verified", "checked")
    assert len(certify(path, X[:2], [0, 1], eps="2/5", clip=(-1, 1))) == 2
    certify(str(path), X[2], 0, eps=0.1, norm="2", seed=1)


def test_a_failure_shows_the_counterexample(certify: Certify, path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        certify(path, X[2], 0, eps=0.3)
    lines = str(failed.value).splitlines()
    assert lines[0] == "the input is class 0, but within 0.3 of it there is an input of class 1:"
    assert lines[1].startswith("  counterexample: ")
    assert "values differ, by at most 0." in lines[1]
    assert "[0]: 0.6 -> 0." in lines[1]
    assert lines[2].startswith("  logits: 0.")
    assert "for 1 (predicted), " in lines[2]
    assert "for 0 (expected); all: [" in lines[2]
    assert lines[3].startswith("  verdict: falsified (")
    assert "; margin: " in lines[3]


def test_a_batch_says_how_many(certify: Certify, path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        certify(path, X, np.array([0, 1, 0, 1]), eps=0.2)
    text = str(failed.value)
    assert text.startswith("2 of 4 inputs are certified within 0.2\ninput 2 is class 0, but")
    assert (
        "input 3 is class 1, but within 0.2 of it there is an input of class 0:\n  counterexample: nothing differs"
        in text
    )


def test_what_is_undecided_fails_and_says_why(certify: Certify, path: Path) -> None:
    with pytest.raises(
        AssertionError, match=r"is not certified as class 0 within 0\.4\n  verdict: \w+ .*\n  because: "
    ):
        certify(path, X[0], 0, eps=0.4, timeout=1e-9)


def test_bad_input_is_no_failure_of_the_network(certify: Certify, path: Path) -> None:
    with pytest.raises(InvalidSpecification, match="2 inputs, but 1 classes"):
        certify(path, X[:2], [0], eps=0.1)
    with pytest.raises(InvalidSpecification, match="without a batch axis"):
        certify(path, X[:2], 0, eps=0.1)
    with pytest.raises(InvalidSpecification, match="there are no inputs"):
        certify(path, X[:0], [], eps=0.1)
    with pytest.raises(InvalidSpecification, match="classes are integers, not float64"):
        certify(path, X[:1], [0.9], eps=0.1)


def test_every_pytest_has_it_and_it_costs_nothing() -> None:
    (plugin,) = entry_points(group="pytest11", name="provenn")
    assert plugin.value == "provenn.pytest_plugin"
    heavy = "{'torch', 'onnx', 'numpy', 'pydantic', 'httpx', 'rich', 'provenn.api'}"
    code = f"import sys, pytest, provenn.pytest_plugin; sys.exit(bool({heavy} & set(sys.modules)))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
