"""What the page asks for beyond the rest: a certificate checked again, what a job was asked, the demonstration."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from service_kit import SMALL, Server, mlp, small_request

from provenn.api import demo
from provenn.api.tables import CertificateRow
from provenn.verifier.version import provenn_version

REGION = {"input": [0.1, 0.2, 0.3, 0.4], "epsilon": 0.01}
QUESTIONS: dict[str, dict[str, Any]] = {
    "inputs": small_request("", epsilons=[0.0001]),
    "lipschitz": {"lipschitz": {"rows": "pairs"}},
    "a local constant": {"lipschitz": {"region": REGION, "norm": "inf"}, "method": "crown"},
    "jacobian": {"jacobian": {"rows": "0", "region": REGION}, "method": "crown"},
}
KINDS = {
    "inputs": "class 1 wins",
    "lipschitz": "change by at most",
    "a local constant": "at most",
    "jacobian": "changes",
}


def item(server: Server, body: dict[str, Any]) -> dict[str, Any]:
    """The first of a job that has been verified."""
    model = server.model(SMALL)
    job = server.ended(server.submit({**body, "model": model, "budget": {"seconds": 10}}))
    found = dict(job["result"]["items"][0])
    assert found["verdict"] == "verified", job
    return found


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_certificate_is_checked_again(server: Server, question: str) -> None:
    found = item(server, QUESTIONS[question])
    said = server.client.post(f"/v1/certificates/{found['certificate']}/check").json()
    assert (said["accepted"], said["assurance"], said["reason"]) == (True, "checked", None)
    assert KINDS[question] in said["proves"]
    assert said["claims"] >= 1
    assert said["versions"]["provenn"] == provenn_version()
    assert said["versions"].keys() >= {"numpy", "scipy", "onnx", "python"}
    assert (said["margin"] is not None) == (question == "inputs")
    if found["lipschitz"] is not None:
        assert said["uppers"] == [found["lipschitz"]["upper"]] or said["uppers"] == found["lipschitz"]["upper"]


def test_a_certificate_about_another_network_is_rejected(server: Server) -> None:
    found = item(server, QUESTIONS["inputs"])
    other = server.model(mlp([4, 7, 3], seed=9))
    with server.service.database.writing() as session:
        row = session.get(CertificateRow, ("default", found["certificate"]))
        assert row is not None
        mine, row.model_id = row.model_id, other
    said = server.client.post(f"/v1/certificates/{found['certificate']}/check").json()
    assert (said["accepted"], said["claim"], said["proves"]) == (False, "model", None)
    assert "about another model" in said["reason"]
    with server.service.database.writing() as session:
        row = session.get(CertificateRow, ("default", found["certificate"]))
        assert row is not None
        row.model_id = mine


def test_a_request_can_be_read_and_sent_again(server: Server) -> None:
    model, other = server.model(SMALL), server.model(mlp([4, 7, 3], seed=9))
    job = server.submit(small_request(model) | {"method": "ibp"})
    request = server.client.get(f"/v1/jobs/{job}/request").json()
    assert (request["model"], request["method"], request["inputs"]["clip"]) == (model, "ibp", [0, 1])
    again = server.submit(request | {"model": other})
    assert server.ended(again)["model"] == other


def test_the_demonstration_is_made_once(server: Server) -> None:
    pytest.importorskip("sklearn")
    first = server.client.get("/v1/demo").json()
    assert sorted(digit["label"] for digit in first["digits"]) == sorted(2 * list(range(10)))
    assert {len(digit["pixels"]) for digit in first["digits"]} == {64}
    model = server.client.get(f"/v1/models/{server.model(base64.b64decode(first['networks']['digits-mlp-robust']))}")
    assert model.json()["input_shape"] == first["shape"] == [1, 8, 8]
    assert server.client.get("/v1/demo").json() == first


def test_no_demonstration_without_what_it_is_made_of(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "NEEDED", ("sklearn", "surely_not_installed"))
    answer = server.client.get("/v1/demo")
    assert answer.status_code == 404
    assert "pip install" in json.loads(answer.text)["detail"]
    assert not demo.available()
