"""Top labels through the whole path: both verdicts, certificates that the checker accepts, documents, the command."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cli_kit import Command, two_layers
from service_kit import Server, mlp

import provenn
from provenn.api.client import Client

EASY = two_layers(np.eye(4).tolist(), [0, 0, 0, 0], np.eye(4).tolist())
"""y = relu(x)."""
POINT = [0.875, 0.625, 0.375, 0.125]
"""Of the identity: any two of them change places from radius 1/8 on, their neighbours but one from 1/4 on."""
NETWORK = mlp([16, 24, 24, 8], 3)


def document(**changes: Any) -> dict[str, Any]:
    return {"format": "provenn-specification/1", "kind": "top-k", "input": POINT, "epsilon": "0.05", **changes}


def order(model: bytes, x: np.ndarray) -> list[int]:
    """The labels, largest output first, as onnxruntime has them."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    (outputs,) = session.run(None, {session.get_inputs()[0].name: x.astype(np.float32).reshape(1, -1)})
    return np.argsort(-outputs[0], kind="stable").tolist()


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        ({"k": 3, "epsilon": "0.124"}, "verified"),
        ({"k": 3, "epsilon": "1/8"}, "falsified"),  # a tie
        ({"k": 2, "epsilon": "0.124", "ordered": False}, "verified"),
        ({"k": 2, "epsilon": "0.126", "ordered": False}, "falsified"),
        ({"labels": [0, 1], "target": [1, 2], "epsilon": "0.24"}, "verified"),  # 1/4 at least
        ({"labels": [0, 1], "target": [1, 2], "epsilon": "0.26"}, "falsified"),
        ({"labels": [1, 0], "epsilon": "0.01"}, "falsified"),  # the input itself has them in another order
        ({"k": 4, "epsilon": "0.12"}, "verified"),
        ({"k": 1, "epsilon": "0.2", "clip": [0.1, 0.8]}, "falsified"),
        ({"k": 3, "epsilon": "0.176", "norm": "2"}, "verified"),  # sqrt(2)/8 = 0.17678
        ({"k": 3, "epsilon": "0.177", "norm": "2"}, "falsified"),
        ({"k": 2, "epsilon": "0.249", "norm": "1", "ordered": False}, "verified"),
        ({"k": 2, "epsilon": "0.251", "norm": "1", "ordered": False}, "falsified"),
        ({"labels": [0, 1], "target": [1, 2], "epsilon": "0.353", "norm": "2"}, "verified"),  # sqrt(2)/4 = 0.35355
        ({"labels": [0, 1], "target": [1, 2], "epsilon": "0.36", "norm": "2"}, "falsified"),
    ],
)
def test_of_the_identity_every_verdict_is_known(asked: dict[str, Any], verdict: str) -> None:
    found = provenn.prove(EASY, document(**asked))
    assert isinstance(found, provenn.ItemResult)
    assert found.verdict == verdict
    if verdict == "verified":
        assert found.certificate is not None
        assert provenn.check(found.certificate, EASY).margin > 0
    else:
        assert found.counterexample is not None
        assert found.assurance == "replayed"


@pytest.mark.parametrize("ordered", [True, False])
def test_both_verdicts_on_a_network_of_layers(ordered: bool) -> None:
    """What is falsified has other top labels in onnxruntime; what is verified has a certificate."""
    x = np.random.default_rng(0).uniform(-1, 1, 16)
    top = order(NETWORK, x)[:4]
    for epsilon, verdict in (("0.001", "verified"), ("0.5", "falsified")):
        asked = document(input=x.astype(np.float32).tolist(), epsilon=epsilon, k=4, ordered=ordered)
        found = provenn.prove(NETWORK, asked)
        assert isinstance(found, provenn.ItemResult)
        assert found.verdict == verdict
        if found.counterexample is None:
            assert found.assurance == "checked"
            continue
        now = order(NETWORK, np.array(found.counterexample.input))[:4]
        assert now != top if ordered else set(now) != set(top)


def test_the_attack_by_projection_decides_a_list_that_must_not_occur() -> None:
    """A list of six that the network has inside the cube; the method that finds it is named."""
    x = np.zeros(16)
    there = np.random.default_rng(1).uniform(-1, 1, 16)
    target = order(NETWORK, there)[:6]
    asked = document(input=x.tolist(), epsilon=1, labels=order(NETWORK, x)[:6], target=target)
    found = provenn.prove(NETWORK, asked, method="top-k-attack")
    assert isinstance(found, provenn.ItemResult)
    assert (found.verdict, found.method, found.assurance) == ("falsified", "top-k-attack", "replayed")
    assert found.counterexample is not None
    assert order(NETWORK, np.array(found.counterexample.input))[:6] == target


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, '"k": give "k", or "labels"'),
        ({"k": 5}, '"k" is 5'),
        ({"k": 4, "ordered": False}, "nothing can change"),
        ({"k": 2, "labels": [0]}, '"labels"'),
        ({"labels": [0, 4]}, '"labels" has 4'),
        ({"k": 1, "target": [0]}, "already"),
        ({"k": 1, "input": [0.0]}, '"input" has 1'),
        ({"k": 1, "clip": [5, 6]}, "empty region"),
        ({"k": 1, "epsilon": -1}, '"epsilon"'),
        ({"k": 1, "order": True}, "did you mean ordered"),
    ],
)
def test_documents_that_make_no_sense(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(provenn.ProvennError, match=words):
        provenn.prove(EASY, document(**changes))


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run, model, inputs = Command(capsys), tmp_path / "m.onnx", tmp_path / "x.npy"
    model.write_bytes(EASY)
    np.save(inputs, np.array([POINT], np.float32))
    about = ("certify", model, "--input", inputs, "--top-k", "2", "--eps")
    assert run(*about, "0.12", "--json").json["verdict"] == "verified"
    assert run(*about, "0.13").code == 10
    said = run(*about, "0.12", "--clip", "0", "1", "--norm", "1", "--json").json["property"]
    assert said.endswith("for all inputs at most 0.12 from the input in the norm 1 with values in [0, 1].")
    assert run(*about, "0.12", "--unordered").code == 0
    assert run(*about, "0.13", "--unordered").code == 10
    assert run(*about, "0.176", "--norm", "2").code == 0
    assert run(*about, "0.177", "--norm", "2").code == 10
    (tmp_path / "top.json").write_text(json.dumps(document(k=2)))
    by_file = run("certify", model, "--spec", tmp_path / "top.json", "--out", tmp_path)
    assert by_file.code == 0
    assert run("check", tmp_path / "certificate.zip", "--model", model).code == 0
    for given in (["--label", "0"], ["--target", "1"], ["--method", "lipschitz"]):
        refused = run(*about, "0.1", *given)
        assert refused.code == 2
        assert given[0] in refused.err or "--top-k" in refused.err
    alone = run("certify", model, "--input", inputs, "--label", "0", "--eps", "0.1", "--unordered")
    assert alone.code == 2
    assert "--unordered" in alone.err


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_by_the_service(client: Client) -> None:
    for epsilon, verdict in (("0.09", "verified"), ("0.2", "falsified")):
        found = client.prove(EASY, document(k=3, epsilon=epsilon))
        assert isinstance(found, provenn.ItemResult)
        assert found.verdict == verdict
