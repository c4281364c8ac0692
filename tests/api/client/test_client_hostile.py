"""A service that lies: whatever it sends, the client calls nothing verified that is not proved here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, two_layers
from client_kit import Between, Reply, Request

import provenn
from provenn.api.client import Client, ServiceError, ServiceUnreachable, UnexpectedAnswer
from provenn.api.monotonicity import Trend
from provenn.verifier.certificate.bundle import load_zip, to_zip
from provenn.verifier.check.claims import ATTESTATION, MANIFEST
from provenn.verifier.check.manifest import sealed

AT = np.array([1.0, 0.0])
SAFER = two_layers([[3, 0], [0, 1]], [0, 0], [[1, 0], [0, 1]])
"""Class 0 is safe at (1, 0) for radii below 3/4, and so where PLAIN is not."""
BENT = two_layers([[1, 0], [0, 1], [0, -1]], [0, 0, 0], [[1, 0, 0], [0, 1, 1]])
"""y = (relu(x0), |x1|)."""
ASKED: dict[str, Any] = {"label": 0, "eps": 0.25}


def proof(client: Client, model: bytes = PLAIN, x: np.ndarray = AT, **asked: Any) -> dict[str, bytes]:
    """A certificate that holds, of a question."""
    found = client.verify(model, x, **(ASKED | asked))
    assert found.certificate is not None
    return {name: data for name, data in found.certificate.items() if name != ATTESTATION}


def sends(between: Between, bundle: bytes, **members: Any) -> None:
    """Of every job: that its one item has this certificate, whose id is indeed its digest, and these members."""

    def told(job: dict[str, Any]) -> dict[str, Any]:
        if job.get("result"):
            (item,) = job["result"]["items"]
            item |= {"verdict": "verified", "assurance": "checked", "certificate": digest, "margin": 9.0} | members
            item |= {"counterexample": None}
        return job

    def given(request: Request, reply: Reply) -> Reply:
        return Reply(200, bundle) if request.path.startswith("/v1/certificates") else reply

    digest = hashlib.sha256(bundle).hexdigest()
    between.lie("/v1/jobs", told)
    between.lies.append(given)


def items(change: Callable[[dict[str, Any]], Any]) -> Callable[[Any], Any]:
    """Changes the one item of a job that has a result."""

    def told(job: dict[str, Any]) -> dict[str, Any]:
        if job.get("result"):
            change(job["result"]["items"][0])
        return job

    return told


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"model": SAFER}, "about another model"),
        ({"eps": 0.125}, "about another specification"),
        ({"eps": 0.24999999999999997}, "about another specification"),
        ({"label": 1, "x": np.array([0.0, 1.0])}, "about another specification"),
        ({"x": np.array([1.0, 1e-9])}, "about another specification"),
        ({"norm": "2"}, "about another specification"),
        ({"clip": (0, 2)}, "about another specification"),
        ({"target": 1}, "about another specification"),
        ({"semantics": "float32"}, "about float32 arithmetic, but real was asked for"),
    ],
    ids=["model", "radius", "last digit", "label", "input", "norm", "clip", "target", "semantics"],
)
def test_a_proof_of_something_else(
    honest: Client, between: Between, misled: Client, other: dict[str, Any], why: str
) -> None:
    files = proof(honest, **other)
    sends(between, to_zip(files))
    with pytest.raises(provenn.CertificateRejected, match=why):
        misled.verify(PLAIN, AT, **ASKED)


def test_a_proof_of_what_is_not_true(honest: Client, between: Between, misled: Client) -> None:
    """Of the model, and the question: by a wider claim than what was proved, sealed again."""
    files = proof(honest, SAFER, eps=0.6)
    text = next(data for name, data in files.items() if name.startswith("specification"))
    content = json.loads(files[MANIFEST])
    del content["sha256"]
    content["model"]["sha256_file"] = hashlib.sha256(PLAIN).hexdigest()
    assert hashlib.sha256(text).hexdigest() == content["specification"]["sha256_file"]
    sends(between, to_zip(files | {MANIFEST: sealed(content)}))
    with pytest.raises(provenn.CertificateRejected):
        misled.verify(PLAIN, AT, label=0, eps=0.6)


@pytest.mark.parametrize("bundle", [b"", b"other bytes", b"PK\3\4" + b"\0" * 50, to_zip({"manifest.json": b"{}"})])
def test_bytes_that_are_no_certificate(between: Between, misled: Client, bundle: bytes) -> None:
    sends(between, bundle)
    with pytest.raises(provenn.CertificateRejected):
        misled.verify(PLAIN, AT, **ASKED)
    between.lies.pop(0)
    with pytest.raises(UnexpectedAnswer, match="other bytes than those of certificate"):
        misled.verify(PLAIN, AT, **ASKED)


@pytest.mark.parametrize("assurance", ["checked", "vacuous", "computed", None])
def test_a_verdict_without_a_proof(between: Between, misled: Client, assurance: str | None) -> None:
    without = {"verdict": "verified", "assurance": assurance, "certificate": None, "margin": 9.0}
    between.lie("/v1/jobs", items(lambda item: item.update(without)))
    found = misled.verify(PLAIN, AT, **ASKED)
    assert (found.verdict, found.certificate) == ("unknown", None)
    assert found.assurance == ("computed" if assurance == "computed" else None)
    assert found.reason is not None
    assert "nothing was checked here" in found.reason
    taken = misled.verify(PLAIN, AT, accept_computed=True, **ASKED)
    assert taken.assurance == found.assurance
    assert (taken.verdict == "verified") == (assurance == "computed")
    every = misled.verify(PLAIN, AT, accept_computed=True, semantics="float32", **ASKED)
    assert every.verdict == "unknown"


def test_a_margin_is_the_proof_s(honest: Client, between: Between, misled: Client) -> None:
    files = proof(honest)
    sends(between, to_zip(files), margin=1e9, method="<b>oracle</b>", seconds=1e-9)
    found = misled.verify(PLAIN, AT, **ASKED)
    assert (found.verdict, found.margin) == ("verified", honest.verify(PLAIN, AT, **ASKED).margin)
    assert "<b>oracle" not in found._repr_html_()


@pytest.mark.parametrize(
    "found",
    [None, [1.0, 0.0], [0.5, 0.75], [0.0, 1.0], [1.0], [], [1e300, 0.0], [1.0, 0.0, 0.0]],
    ids=str,
)
def test_counterexamples_that_are_none(between: Between, misled: Client, found: list[float] | None) -> None:
    """Safe points, points that are too far away, and what is no input."""
    shown = None if found is None else {"input": found, "output": [0.0, 1.0]}
    falsified = {"verdict": "falsified", "assurance": "replayed", "certificate": None, "counterexample": shown}
    between.lie("/v1/jobs", items(lambda item: item.update(falsified)))
    told = misled.verify(PLAIN, AT, label=0, eps=0.5)
    assert (told.verdict, told.assurance, told.counterexample) == ("unknown", None, None)
    assert told.reason is not None
    assert "onnxruntime" in told.reason


def test_what_a_counterexample_s_outputs_are_is_seen_here(between: Between, misled: Client) -> None:
    def other(item: dict[str, Any]) -> None:
        item["counterexample"]["output"] = [-1e9, 1e9]

    between.lie("/v1/jobs", items(other))
    told = misled.verify(PLAIN, AT, label=0, eps=0.6)
    assert told.verdict == "falsified"
    assert told.counterexample is not None
    assert np.abs(told.counterexample.output).max() < 2


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda job: job["result"]["items"].append(job["result"]["items"][0]), "2 answers to one question"),
        (lambda job: job["result"]["items"].clear(), "0 answers to one question"),
        (lambda job: job["result"]["items"][0].update(verdict="proved"), "verdict is 'proved'"),
        (lambda job: job["result"]["items"][0].update(verdict=3), "no Job: result.items.0.verdict"),
        (lambda job: job.update(state="done"), "no Job: state"),
        (lambda job: job.update(result=[]), "no Job: result"),
    ],
)
def test_answers_that_are_none(
    between: Between, misled: Client, change: Callable[[dict[str, Any]], Any], why: str
) -> None:
    def told(job: dict[str, Any]) -> dict[str, Any]:
        if job.get("result"):
            change(job)
        return job

    between.lie("/v1/jobs", told)
    with pytest.raises(UnexpectedAnswer, match=why):
        misled.verify(PLAIN, AT, **ASKED)


def test_another_model_than_was_sent(honest: Client, between: Between, misled: Client) -> None:
    other = honest.upload(SAFER).id
    between.lie("/v1/models", lambda model: model | {"id": other})
    with pytest.raises(UnexpectedAnswer, match="not what this version makes of the file"):
        misled.verify(PLAIN, AT, label=0, eps=0.6)
    model = misled.upload(PLAIN)
    between.lies.append(lambda request, reply: Reply(200, PLAIN) if request.path.endswith("/file") else reply)
    with pytest.raises(UnexpectedAnswer, match="other bytes than those of model"):
        misled.verify(model, AT, **ASKED)


def test_shapes_that_are_not_the_network_s(between: Between, misled: Client) -> None:
    between.lie("/v1/models", lambda model: model | {"output_shape": [1, 3]})
    with pytest.raises(ServiceError):
        misled.verify(PLAIN, AT, **ASKED)


def test_streams_that_break_off(between: Between) -> None:
    between.fail("GET", "/v1/certificates", *[Reply(cut=200)] * 50)
    with Client(between.url, retry_seconds=0.3) as client, pytest.raises(ServiceUnreachable):
        client.verify(PLAIN, AT, **ASKED)


def test_a_constant_is_the_proof_s(between: Between, misled: Client) -> None:
    between.lie("/v1/jobs", items(lambda item: item["lipschitz"].update(upper=1e-9, norm="1", rows="0")))
    found = misled.lipschitz(PLAIN, norm="inf", timeout=4)
    assert (found.verdict, found.norm, found.rows) == ("verified", "inf", "all")
    assert found.upper == pytest.approx(2**0.5, rel=1e-3)


@pytest.mark.parametrize(
    "other",
    [
        {"model": SAFER, "rows": "0"},
        {"rows": "1"},
        {"rows": "0", "norm": "inf"},
        {"rows": "0", "to": "inf"},
        {"rows": "0", "scale": np.array([2.0, 1.0])},
        {"rows": "0", "at": AT, "eps": 0.1},
    ],
    ids=["model", "rows", "norm", "output norm", "scale", "region"],
)
def test_a_constant_of_something_else(honest: Client, between: Between, misled: Client, other: dict[str, Any]) -> None:
    asked = {"model": PLAIN, "method": "auto", "timeout": 2.0} | other
    found = honest.lipschitz(**asked)
    assert found.certificate is not None
    sends(between, to_zip({name: data for name, data in found.certificate.items() if name != ATTESTATION}))
    with pytest.raises(provenn.CertificateRejected, match=r"about another (model|question)"):
        misled.lipschitz(PLAIN, rows="0", timeout=2)


def test_constants_without_a_proof(honest: Client, between: Between, misled: Client) -> None:
    files = proof(honest)
    between.lie("/v1/jobs", items(lambda item: item.update(certificate=None)))
    found = misled.lipschitz(PLAIN, rows="0", timeout=2)
    assert (found.verdict, found.upper, found.assurance) == ("unknown", None, None)
    between.lies.clear()
    sends(between, to_zip(files))
    with pytest.raises(provenn.CertificateRejected):
        misled.lipschitz(PLAIN, rows="0", timeout=2)
    with pytest.raises(provenn.CertificateRejected):
        misled.monotonicity(PLAIN, "0", at=AT, eps=0.25, timeout=2)
    with pytest.raises(provenn.CertificateRejected):
        misled.jacobian(PLAIN, at=AT, eps=0.25, method="crown", timeout=2)


BALL: dict[str, Any] = {"at": AT, "eps": 0.5, "timeout": 2.0}


def test_trends_that_nothing_shows(between: Between, misled: Client) -> None:
    def rising(item: dict[str, Any]) -> None:
        item["verdict"] = "verified"
        for each in item["monotonicity"]:
            each |= {"trend": "increasing", "lower": 5.0, "upper": 6.0, "fall": None, "rise": None}

    between.lie("/v1/jobs", items(rising))
    found = misled.monotonicity(BENT, "0-1", **BALL)
    trends = {(each.row, each.column): each.trend for each in found.dependences}
    assert trends[0, 0] == Trend.INCREASING
    assert trends[1, 1] == Trend.UNKNOWN
    assert found.verdict == "unknown"
    assert found.reason is not None
    assert "says more" in found.reason
    assert all(abs(each.lower) in (0, np.inf) for each in found.dependences)


def test_pairs_that_show_nothing(between: Between, misled: Client) -> None:
    """Of one output's fall: an equal pair, one of two coordinates, one outside, one that rises, what is no input."""
    pairs = [
        ([1.0, 0.1], [1.0, 0.1]),
        ([0.9, -0.4], [1.0, -0.1]),
        ([1.0, -9.0], [1.0, -0.1]),
        ([1.0, 0.1], [1.0, 0.4]),
        ([1.0], [1.0, 0.4]),
        ([1.0, -0.1], [1.0, -0.4]),
    ]
    for first, second in pairs:
        between.lies.clear()
        fall = {"first": first, "second": second, "change": -1.0}
        between.lie("/v1/jobs", items(lambda item, fall=fall: item["monotonicity"][0].update(fall=fall)))
        found = misled.monotonicity(BENT, "1", rows="1", **BALL)
        assert (found.dependences[0].fall, found.dependences[0].trend) == (None, Trend.UNKNOWN)
    between.lies.clear()
    assert misled.monotonicity(BENT, "1", rows="1", **BALL).verdict == "falsified"


def test_trends_of_something_else(honest: Client, between: Between, misled: Client) -> None:
    for other in (BALL | {"eps": 0.25}, BALL | {"rows": "0"}, BALL | {"at": AT + 0.125}):
        found = honest.monotonicity(PLAIN, "0", **other)
        assert found.certificate is not None
        between.lies.clear()
        sends(between, to_zip({name: data for name, data in found.certificate.items() if name != ATTESTATION}))
        with pytest.raises(provenn.CertificateRejected, match="about another question"):
            misled.monotonicity(PLAIN, "0", **BALL)
    between.lies.clear()
    between.lie("/v1/jobs", items(lambda item: item["monotonicity"].pop()))
    with pytest.raises(UnexpectedAnswer, match="not about the rows and features"):
        misled.monotonicity(PLAIN, "0", **BALL)


def test_derivatives_are_the_proof_s(honest: Client, between: Between, misled: Client) -> None:
    def narrower(item: dict[str, Any]) -> None:
        item["jacobian"] |= {"lower": [[7.0, 7.0]] * 2, "upper": [[7.0, 7.0]] * 2}

    between.lie("/v1/jobs", items(narrower))
    found = misled.jacobian(PLAIN, method="crown", **BALL)
    assert found.verdict == "verified"
    assert found.upper is not None
    assert found.upper.max() == pytest.approx(1, rel=1e-5)
    between.lies.clear()
    part = honest.jacobian(PLAIN, method="crown", rows="0", **BALL)
    assert part.certificate is not None
    sends(between, to_zip({name: data for name, data in part.certificate.items() if name != ATTESTATION}))
    with pytest.raises(provenn.CertificateRejected, match="about another question"):
        misled.jacobian(PLAIN, method="crown", **BALL)
    signs = honest.monotonicity(PLAIN, "0", **BALL)
    assert signs.certificate is not None
    between.lies.clear()
    sends(between, to_zip({name: data for name, data in signs.certificate.items() if name != ATTESTATION}))
    with pytest.raises(provenn.CertificateRejected, match="does not bound every derivative"):
        misled.jacobian(PLAIN, method="crown", **BALL)
    between.lies.clear()
    between.lie("/v1/jobs", items(lambda item: item.update(certificate=None)))
    bare = misled.jacobian(PLAIN, method="crown", **BALL)
    assert (bare.verdict, bare.upper) == ("unknown", None)
    between.lie("/v1/jobs", items(lambda item: item["jacobian"].update(seen_lower=[[1.0]])))
    with pytest.raises(UnexpectedAnswer, match="nothing of the derivatives"):
        misled.jacobian(PLAIN, method="crown", **BALL)


def test_the_bundle_of_an_honest_service_is_what_is_kept(honest: Client) -> None:
    found = honest.verify(PLAIN, AT, **ASKED)
    assert found.origin is not None
    assert found.origin.certificate is not None
    assert load_zip(honest.bundle(found.origin.certificate)) == found.certificate
