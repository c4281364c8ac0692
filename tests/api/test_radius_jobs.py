"""The largest radius by a service, with an activation pattern and without: certificates, refusals, the client."""

from __future__ import annotations

import json
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, two_layers
from service_kit import Server

import provenn
from provenn.api.activation_patterns import Mining, Samples, Search, mine, no_files, radii
from provenn.api.certification import Options
from provenn.api.client import Client, RequestRefused, UnexpectedAnswer
from provenn.api.client.evidence import Answer
from provenn.api.client.radii import Judge, RadiusAsked
from provenn.api.pattern_schemas import RadiusRequest
from provenn.api.radius_question import document, specification
from provenn.api.results import ItemResult, Origin
from provenn.api.schemas import Item
from provenn.models.executor import OnnxExecutor
from provenn.models.specification.activation_pattern import stated
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.numbers import exact, spoken

MODEL = two_layers([[1, -1], [-1, 1], [0, 0]], [0, 0, 0.125], [[1, 0, 1], [0, 1, 0]])
"""y = (relu(x0 - x1) + 1/8, relu(x1 - x0)): class 0 until x1 is 1/8 above x0, and wherever x1 - x0 is not above 0."""
INPUTS = np.array([[0.9, 0.2], [0.8, 0.1], [0.7, 0.6]], np.float32)
(PATTERN,) = mine(MODEL, Samples(INPUTS, np.zeros(3, np.int64)), Mining())
AT, EDGE = [0.8, 0.6], 0.1625
"""An input, and how far it is from another class."""
AROUND: dict[str, Any] = {"input": AT, "clip": [0, 1]}
FOLLOWED = AROUND | {"pattern": PATTERN.model_dump()}


def ended(server: Server, radius: dict[str, Any], **members: Any) -> dict[str, Any]:
    body = {"model": server.model(MODEL), "radius": radius, "budget": {"seconds": 20}, **members}
    job = server.ended(server.submit(body))
    assert (job["kind"], job["state"]) == ("radius", "succeeded"), job
    return job


def test_a_job_finds_the_largest_radius_of_a_class(server: Server) -> None:
    job = ended(server, AROUND | {"label": 0})
    (item,), found = job["result"]["items"], job["result"]["items"][0]["radius"]
    assert (job["verdict"], item["verdict"], item["assurance"]) == ("verified", "verified", "checked")
    assert EDGE / 1.1 < found["verified"] == item["epsilon"] < EDGE < found["falsified"]
    assert (found["whole"], found["inhabited"], job["model"]) == (False, None, server.model(MODEL))
    assert job["result"]["summary"][0]["verified"] == 1
    output = OnnxExecutor(MODEL).run(np.array([found["counterexample"]], np.float32)).ravel()
    assert output[1] >= output[0]
    files = load_zip(server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content)
    text = specification(RadiusRequest(**AROUND, label=0), spoken(item["epsilon"]), 2).text
    assert provenn.check(files, MODEL, text).verdict == "verified"


def test_with_a_pattern_the_proof_is_about_the_restricted_network(server: Server) -> None:
    job = ended(server, FOLLOWED)
    (item,) = job["result"]["items"]
    found = {"verified": 1.0, "falsified": None, "counterexample": None, "whole": True, "inhabited": True}
    assert (item["verdict"], item["assurance"], item["radius"]) == ("verified", "checked", found)
    composed = server.client.get(f"/v1/models/{job['model']}/file").content
    own = stated(document(RadiusRequest.model_validate(FOLLOWED)), MODEL, no_files)
    assert composed == own.model != MODEL
    certificate = f"/v1/certificates/{item['certificate']}"
    files = load_zip(server.client.get(f"{certificate}/bundle").content)
    assert "attestation.json" in files
    assert provenn.check(files, composed, own.specification.text).verdict == "verified"
    assert server.client.post(f"{certificate}/check").json()["accepted"]


def test_the_request_may_be_sent_again(server: Server) -> None:
    job = ended(server, FOLLOWED, seed=3)
    asked = server.client.get(f"/v1/jobs/{job['id']}/request").json()
    assert (asked["model"], asked["radius"]["pattern"]["class"]) == (server.model(MODEL), 0)
    assert server.job(server.submit(asked))["reused"] == job["id"]
    other = asked | {"radius": asked["radius"] | {"largest": 0.5}}
    again = server.ended(server.submit(other))
    assert (again["reused"], again["result"]["items"][0]["radius"]["verified"]) == (None, 0.5)


def test_where_nothing_is_proved_the_answer_says_so(server: Server) -> None:
    job = ended(server, AROUND | {"label": 1})
    (item,) = job["result"]["items"]
    assert (job["verdict"], item["epsilon"], item["certificate"]) == ("unknown", None, None)
    assert item["radius"]["verified"] == 0 < item["radius"]["falsified"] <= 1 / 64
    assert "nothing was proved" in item["reason"]


def other(**changes: Any) -> dict[str, Any]:
    return FOLLOWED | {"pattern": PATTERN.model_dump() | changes}


LAYER = PATTERN.layers[0].model_dump()
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("/radius/pattern/model", other(model="0" * 64)),
    ("/radius/pattern/class", other(**{"class": 2})),
    ("/radius/label", AROUND | {"label": 2}),
    ("/radius/input", FOLLOWED | {"input": [0.8, 0.6, 0.1]}),
    ("outside of clip", AROUND | {"label": 0, "clip": [0, 0.5]}),
    ("either label or pattern", FOLLOWED | {"label": 0}),
    ("either label or pattern", AROUND),
    ("/radius/largest", FOLLOWED | {"largest": 0}),
    ("/radius/pattern/layers", other(layers=[])),
    ("neuron 3 is listed", other(layers=[LAYER | {"active": [3], "counts": None}])),
    ("'b'", other(layers=[LAYER | {"relu": "b"}])),
    ("neurons", other(layers=[LAYER | {"neurons": 4, "counts": None}])),
]


@pytest.mark.parametrize(("words", "radius"), REFUSED)
def test_what_makes_no_sense_is_refused_at_the_door(server: Server, words: str, radius: dict[str, Any]) -> None:
    answer = server.client.post("/v1/jobs", json={"model": server.model(MODEL), "radius": radius})
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")
    assert words in answer.text


def test_method_and_budget_are_those_of_other_jobs(server: Server) -> None:
    for members, words in (
        ({"method": "none"}, "none"),
        ({"method": "lipschitz"}, "for inputs"),
        ({"budget": {"seconds": 1e9}}, "/budget/seconds"),
    ):
        answer = server.client.post("/v1/jobs", json={"model": server.model(MODEL), "radius": FOLLOWED} | members)
        assert answer.status_code == 422
        assert words in answer.text
    quick = ended(server, FOLLOWED, method="crown", certificates=False)["result"]["items"][0]
    assert (quick["method"], quick["assurance"], quick["certificate"]) == ("crown", "computed", None)


def test_a_client_gets_both_radii_and_checks_them(server: Server) -> None:
    with Client(server.url) as client:
        x = np.array(AT)
        without = client.radius(MODEL, x, label=0, clip=(0, 1), timeout=20)
        within = client.radius(MODEL, x, pattern=PATTERN, clip=(0, 1), timeout=20)
        assert EDGE / 1.1 < without.verified < EDGE < (without.falsified or 0)
        assert (within.verified, within.whole, within.inhabited, within.falsified) == (1.0, True, True, None)
        for found in (without, within):
            assert (found.item.verdict, found.item.assurance) == ("verified", "checked")
            assert found.origin.certificate is not None
        with pytest.raises(provenn.ProvennError, match="mine it again"):
            client.radius(PLAIN, np.array([1.0, 0.0]), pattern=PATTERN)
        with pytest.raises(provenn.ProvennError, match="label or pattern"):
            client.radius(MODEL, x)
        with pytest.raises(provenn.ProvennError, match="shape"):
            client.radius(MODEL, x[None], label=0)
        with pytest.raises(RequestRefused, match="the classes are 0 to 1"):
            client.radius(MODEL, x, label=2)


def judged(judge: Judge, item: dict[str, Any], files: dict[str, bytes] | None) -> Any:
    answer = Answer(Item.model_validate(item), files, MODEL, Origin("", "", "", None, False))
    return judge.judged(answer)


def test_a_client_believes_no_radius_that_nothing_shows(server: Server) -> None:
    lies: list[Callable[[dict[str, Any]], Any]] = [
        lambda radius: radius.update(verified=1.5),
        lambda radius: radius.update(verified=0.0),
        lambda radius: radius.update(verified=0.5),
    ]
    (item,) = ended(server, FOLLOWED)["result"]["items"]
    files = load_zip(server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content)
    judge = Judge.of(RadiusRequest.model_validate(FOLLOWED), MODEL, (2,), "real")
    assert judged(judge, item, files).verified == 1
    assert judged(judge, item, None).verified == 0
    for lie in lies:
        false = json.loads(json.dumps(item))
        lie(false["radius"])
        with pytest.raises((UnexpectedAnswer, provenn.CertificateRejected)):
            judged(judge, false, files)
    with pytest.raises(UnexpectedAnswer):
        judged(judge, item | {"radius": None}, files)
    with pytest.raises(provenn.CertificateRejected):  # without a pattern it is about another network
        judged(Judge.of(RadiusRequest(**AROUND, label=0), MODEL, (2,), "real"), item, files)
    for point in ([0.8, 0.6], [0.0, 1.0], [0.8]):
        told = item["radius"] | {"falsified": 0.25, "counterexample": point}
        assert judged(judge, item | {"radius": told}, files).falsified is None


def test_the_question_of_a_radius_is_that_of_the_document() -> None:
    for radius in ("0.0123456", "1/64", "1"):
        asked = RadiusAsked(pattern=PATTERN, clip=(0, 1), largest=1.0).request(np.array(AT), (2,))
        whole = document(asked) | {"epsilon": radius}
        own = specification(asked, exact(radius), 2)
        assert stated(whole, MODEL, no_files).specification.text == own.text


def test_a_radius_that_is_told_is_none_that_was_not_proved() -> None:
    def yes(radius: Fraction) -> ItemResult:
        return ItemResult("verified", "crown", None, 0.0)

    for largest in (Fraction(1, 600), Fraction(8, 255), Fraction(1, 10), Fraction(1, 3)):
        found = Search(largest=largest).bracket(yes)
        assert found.whole
        assert 0 <= largest - spoken(found.verified) < Fraction(1, 10**15)
    assert Search(largest=Fraction(1, 10)).bracket(yes).verified == 0.1


def test_a_search_ends_when_the_time_is_up() -> None:
    asked: list[Fraction] = []

    def never(radius: Fraction) -> ItemResult:
        asked.append(radius)
        return ItemResult("unknown", "crown", None, 0.0)

    found = Search().bracket(never, more=lambda: len(asked) < 3)
    assert (len(asked), found.verified, found.item) == (3, 0.0, None)


def test_the_library_says_the_same() -> None:
    found = radii(MODEL, PATTERN, np.array(AT, np.float32), (0.0, 1.0), Options(seconds=20), Search())
    assert EDGE / 1.1 < found.without.verified < EDGE
    assert (found.within.verified, found.inhabited) == (1.0, True)


def test_both_radii_of_the_library_are_about_the_very_same_boxes() -> None:
    x = np.array(AT, np.float32)
    found = radii(MODEL, PATTERN, x, None, Options(seconds=20), Search(largest=Fraction(1, 4)))
    asked = RadiusRequest.model_validate({"input": x.astype(float).tolist(), "pattern": PATTERN})
    restricted = stated(document(asked), MODEL, no_files).model
    assert found.within.whole
    assert found.within.item is not None
    assert found.within.item.certificate is not None
    text = specification(asked, Fraction(1, 4), 2).text
    assert provenn.check(found.within.item.certificate, restricted, text).verdict == "verified"


@pytest.mark.parametrize(
    ("words", "radius"),
    [
        ("beyond float64", AROUND | {"label": 0, "largest": 1e308}),
        ("beyond float64", {"input": [1.7e308, 0.0], "label": 0}),
        ("beyond float64", {"input": [1e301, 0.0], "label": 0, "largest": 1e301}),
        ("lies in clip", {"input": [0.1, 0.05], "label": 0, "clip": [0, 0.1], "largest": 1e-30}),
    ],
)
def test_a_box_that_is_empty_or_beyond_float64_is_refused_at_the_door(
    server: Server, words: str, radius: dict[str, Any]
) -> None:
    answer = server.client.post("/v1/jobs", json={"model": server.model(MODEL), "radius": radius})
    assert answer.status_code == 422, answer.text
    assert words in answer.text


def test_an_input_on_the_end_of_clip_is_none_outside(server: Server) -> None:
    edge = {"input": [0.1, 0.05], "label": 0, "clip": [0, 0.1], "largest": 0.1}
    assert ended(server, edge)["result"]["items"][0]["radius"]["whole"]


def test_a_search_among_huge_radii_ends() -> None:
    def so_far(radius: Fraction) -> ItemResult:
        return ItemResult("verified" if radius < 10**200 else "unknown", "crown", None, 0.0)

    found = Search(largest=Fraction(10**300)).bracket(so_far)
    assert 10**200 / 1.1 < found.verified < 10**200


@pytest.mark.parametrize("falsified", [float("inf"), float("nan"), -1.0, 1e308, 2.0])
def test_a_client_believes_no_counterexample_at_a_radius_that_was_not_asked_about(falsified: float) -> None:
    radius = {"verified": 0.0, "falsified": falsified, "counterexample": [0.0, 1.0], "whole": False, "inhabited": None}
    item = dict.fromkeys(Item.model_fields) | {"index": 0, "verdict": "unknown", "method": "auto", "seconds": 0.0}
    judge = Judge.of(RadiusRequest(**AROUND, label=0), MODEL, (2,), "real")
    answer = item | {"semantics": "real", "warnings": [], "radius": radius}
    assert judged(judge, answer, None).falsified is None
    assert judged(judge, answer | {"radius": radius | {"falsified": 1.0}}, None).falsified == 1.0
