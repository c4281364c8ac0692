"""Every bounding backend says which certificates prove its verdicts, and they do."""

from __future__ import annotations

import numpy as np
import pytest
from service_kit import SMALL, Server, small_request

from provenn.api.certification import Options, certify, load_model
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.solvers.base import Verdict
from provenn.solvers.portfolio import BACKENDS
from provenn.verifier.certificate.emit import METHODS
from provenn.verifier.check import check
from provenn.verifier.spec_json import robustness


def test_what_a_backend_names_is_a_method_of_certificates() -> None:
    named = {b.certificate for b in BACKENDS.values()} - {None}
    assert named == set(METHODS)
    for backend in BACKENDS.values():
        assert backend.certificate is None or Verdict.VERIFIED in backend.verdicts


@pytest.mark.parametrize("method", ["crown-ibp", "forward", "forward-backward"])
def test_a_verdict_is_proved_by_a_certificate_of_another_name(method: str) -> None:
    data = load("digits-mlp")
    model = load_model(data)
    x = load_digits()[1].images[0].ravel().astype(np.float32)
    label = int(model.executor.run(x.reshape(1, *model.executor.input_shape))[0].argmax())
    asked = robustness(x, label=label, epsilon=0.002, outputs=10)
    (item,) = certify(model, [asked], Options(method))
    assert (item.verdict, item.assurance, item.method) == ("verified", "checked", method)
    assert item.certificate is not None
    assert check(item.certificate, data, asked.text).margin == item.margin


def test_a_sandboxed_child_solves_programmes(server: Server) -> None:
    """What crown leaves open at this radius: the solver has run, and its slopes are better."""
    request = small_request(server.model(SMALL), epsilons=[0.15]) | {"method": "lp"}
    job = server.ended(server.submit(request))
    inputs = request["inputs"]
    asked = robustness(inputs["inputs"][0], label=inputs["labels"][0], epsilon=0.15, outputs=3, clip=(0, 1))
    here, crown = (certify(load_model(SMALL), [asked], Options(method))[0].margin for method in ("lp", "crown"))
    assert job["state"] == "succeeded", job
    (item,) = job["result"]["items"]
    assert (item["verdict"], item["margin"]) == ("unknown", here)
    assert crown is not None
    assert item["margin"] > crown
