"""Every bounding backend says which certificates prove its verdicts, and they do."""

from __future__ import annotations

import numpy as np
import pytest

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
