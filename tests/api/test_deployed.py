"""`semantics: float32`, from the option to the verdict: proved for every execution, or unknown with what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN, PROPERTY, Command, two_layers
from onnx import helper
from service_kit import SMALL, Server, small_request
from test_certification import above, classifier, label_of, network

import provenn
from provenn.api.certification import ItemResult, LoadedModel, Options, certify, load_model
from provenn.api.schemas import JobRequest
from provenn.verifier.check import check
from provenn.verifier.spec_json import from_cases, robustness

DEPLOYED = Options(semantics="float32")


def lifted(height: float) -> bytes:
    """relu(x + height) - height: the identity, in float32 only to about 2^-24 height."""
    made = [("Add", ["x", "b"], "z"), ("Relu", ["z"], "a"), ("Sub", ["a", "b"], "y")]
    nodes = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in made]
    return network(nodes, 1, 1, b=np.array([height]))


def asked(data: bytes, limit: str, options: Options) -> ItemResult:
    """Whether y > limit for x in [1/2, 1]."""
    (item,) = certify(load_model(data), [from_cases([above(limit, "0.5", "1")])], options)
    return item


def test_a_network_with_margin_to_spare_is_certified_for_every_execution() -> None:
    model, x = load_model(classifier()), np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    question = robustness(x, label=label_of(model, x), epsilon=0.001, outputs=3)
    items = {s: certify(model, [question], Options(semantics=s))[0] for s in ("real", "float32")}  # type: ignore[arg-type]
    assert [(i.verdict, i.assurance, i.semantics) for i in items.values()] == [
        ("verified", "checked", "real"),
        ("verified", "deployed", "float32"),
    ]
    lost = (items["real"].margin or 0) - (items["float32"].margin or 0)
    assert 0 < lost < 1e-3
    files = items["float32"].certificate
    assert files is not None
    report = check(files, classifier(), question.text)
    assert (report.semantics, report.assurance, report.margin) == ("float32", "deployed", items["float32"].margin)


@pytest.mark.parametrize("method", ["auto", "crown"])
def test_where_only_real_arithmetic_holds_the_answer_is_unknown_and_says_what_is_missing(method: str) -> None:
    data = lifted(2.0**14)
    real = asked(data, "0.4995", Options(method))
    assert (real.verdict, real.assurance) == ("verified", "checked")
    item = asked(data, "0.4995", Options(method, semantics="float32"))
    assert (item.verdict, item.assurance, item.certificate) == ("unknown", None, None)
    said = item.reason or ""
    assert said.startswith("proved in real arithmetic with margin 0.0005, but not for float32 executions: ")
    assert "rounding may cost clause 0 0.0117, 0.0112 more than it has" in said
    assert said.endswith("semantics real certifies the former")
    assert asked(data, "0.25", Options(method, semantics="float32")).assurance == "deployed"


@pytest.mark.parametrize("options", [Options(), DEPLOYED, Options("crown"), Options("crown", semantics="float32")])
def test_the_network_that_real_arithmetic_certifies_and_float32_breaks_is_never_verified(options: Options) -> None:
    assert asked(lifted(2.0**25), "0.25", options).verdict in ("falsified", "unknown")


def test_auto_goes_on_to_a_stronger_method_where_a_proof_fails() -> None:
    """Intervals rounded to float32 lose more than the margin here, rows do not."""
    item = asked(lifted(2.0**14), "0.4995", Options())
    assert (item.verdict, item.method) == ("verified", "ibp")
    assert "not proved" in (asked(lifted(2.0**14), "0.4995", Options("ibp")).reason or "")


def test_without_a_certificate_nothing_is_said_of_executions() -> None:
    readable = load_model(classifier())
    x = np.array([0.3, -0.2, 0.5, 0.1], np.float32)
    question = robustness(x, label=label_of(readable, x), epsilon=0.001, outputs=3)
    unread = LoadedModel(readable.graph, readable.executor, None, "an operator it does not read")
    for model, options in ((unread, DEPLOYED), (readable, Options(certificates=False, semantics="float32"))):
        (item,) = certify(model, [question], options)
        assert (item.verdict, item.assurance) == ("unknown", None)
        assert "only a certificate proves float32 executions" in (item.reason or "")


def test_smooth_functions_are_named() -> None:
    data = network([helper.make_node("Tanh", ["x"], ["y"])], 1, 1)
    assert asked(data, "0.1", Options()).verdict == "verified"
    item = asked(data, "0.1", DEPLOYED)
    assert item.verdict == "unknown"
    assert "node y (Tanh): how far a runtime's function is from the real one is not known" in (item.reason or "")


def test_the_command_takes_it_and_the_checker_says_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("property.vnnlib").write_text(PROPERTY)
    provenn = Command(capsys)
    ran = provenn(
        "certify", "plain.onnx", "--spec", "property.vnnlib", "--semantics", "float32", "--out", "p", "--json"
    )
    assert (ran.code, ran.json["semantics"], ran.json["assurance"]) == (0, "float32", "deployed")
    shown = provenn("check", "p/certificate.zip", "--model", "plain.onnx")
    assert "float32" in shown.out
    assert "deployed" in shown.out
    assert "in every float32 execution" in shown.out
    table = provenn("certify", "plain.onnx", "--spec", "property.vnnlib", "--semantics", "float32")
    assert "for every float32 execution" in table.out
    assert provenn("certify", "plain.onnx", "--spec", "property.vnnlib", "--semantics", "bf16").code == 2


def test_the_facade_takes_it() -> None:
    result = provenn.verify(PLAIN, np.array([1.0, 0.0]), label=0, eps=0.3, semantics="float32")
    assert (result.verdict, result.assurance) == ("verified", "deployed")
    cancelling = two_layers([[1, 0], [0, 1]], [2.0**14] * 2, [[1, 0], [0, 1]])
    result = provenn.verify(cancelling, np.array([1.0, 0.0]), label=0, eps=0.499, semantics="float32")
    assert result.verdict == "unknown"


def test_the_service_takes_it(server: Server) -> None:
    labels = [0, 1, 2]
    body = small_request(server.model(SMALL), inputs=[[0.1, 0.2, 0.3, 0.4]] * 3, labels=labels, epsilons=[0.0001])
    items = server.ended(server.submit(body | {"semantics": "float32"}))["result"]["items"]
    proved = [(i["assurance"], i["semantics"]) for i in items if i["verdict"] == "verified"]
    assert proved == [("deployed", "float32")]


def test_the_service_refuses_executions_without_certificates() -> None:
    body = small_request("0" * 64) | {"semantics": "float32"}
    assert JobRequest.model_validate(body).semantics == "float32"
    with pytest.raises(ValueError, match="semantics float32 needs certificates"):
        JobRequest.model_validate(body | {"certificates": False})
    with pytest.raises(ValueError, match="'real' or 'float32'"):
        JobRequest.model_validate(body | {"semantics": "bfloat16"})
