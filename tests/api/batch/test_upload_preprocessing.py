"""A network uploaded with its preprocessing: the canonical file holds both, and jobs are about what goes in."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import httpx
import numpy as np
import pytest
from service_kit import SMALL, Server

from provenn.models.executor import OnnxExecutor
from provenn.models.preprocessing import Preprocessing, preprocessed
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import check
from provenn.verifier.spec_json import robustness

HOW: dict[str, Any] = {"divide": 255, "mean": [0.5], "std": [0.5, 0.25, 1, 2]}
PIXELS = [200.0, 31.0, 128.0, 7.0]


def send(server: Server, how: object, **fields: str) -> httpx.Response:
    text = how if isinstance(how, str) else json.dumps(how)
    data = {"preprocessing": text, **fields}
    return server.client.post("/v1/models", files={"file": ("network.onnx", SMALL)}, data=data)


def test_the_canonical_file_is_the_whole(server: Server) -> None:
    response = send(server, HOW)
    assert response.status_code == 201, response.text
    model = response.json()
    file = server.client.get(f"/v1/models/{model['id']}/file").content
    assert file == preprocessed(SMALL, Preprocessing.of(HOW))
    assert model["id"] == hashlib.sha256(file).hexdigest()
    assert (model["source_digest"], model["format"]) == (hashlib.sha256(SMALL).hexdigest(), "onnx")
    assert [layer["op"] for layer in model["layers"]][:1] == ["Input"]
    assert send(server, HOW).status_code == 200
    assert server.model(SMALL) == hashlib.sha256(SMALL).hexdigest()
    assert send(server, HOW).json()["id"] == model["id"]
    assert send(server, {}).json()["id"] == hashlib.sha256(SMALL).hexdigest()


def test_a_job_is_in_the_units_of_what_goes_in(server: Server) -> None:
    model = send(server, HOW).json()["id"]
    whole = preprocessed(SMALL, Preprocessing.of(HOW))
    label = int(OnnxExecutor(whole).run(np.array([PIXELS], np.float32)).argmax())
    inputs = {"inputs": [PIXELS], "labels": [label], "epsilons": [0.5], "clip": [0, 255]}
    (item,) = server.ended(server.submit({"model": model, "inputs": inputs}))["result"]["items"]
    assert (item["verdict"], item["assurance"]) == ("verified", "checked")
    bundle = server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content
    specification = robustness(PIXELS, label=label, epsilon=0.5, outputs=3, clip=(0, 255))
    assert check(load_zip(bundle), whole, specification.text).margin == item["margin"]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("nonsense", "the preprocessing cannot be read as JSON"),
        ([1], "an object is expected"),
        ({"std": [0]}, "'std' must hold finite numbers other than 0"),
        ({"mean": [0.1, 0.2]}, "'mean' holds 2 numbers; the network's inputs have 4 channels"),
        ({"layout": "hwc"}, "layout hwc needs inputs with channels and places"),
        ({"scale": 2}, "no member 'scale'"),
    ],
)
def test_what_does_not_fit_is_refused(server: Server, how: object, message: str) -> None:
    response = send(server, how)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/problem+json")
    assert message in response.json()["detail"]


def test_architecture_and_preprocessing_come_together(server: Server) -> None:
    """Two fields beside the file: the second is not one too many."""
    response = send(server, HOW, architecture='{"zoo": "digits-mlp"}')
    assert response.status_code == 422
    assert "an architecture goes with weights alone" in response.json()["detail"]
