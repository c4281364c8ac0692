"""Jobs about derivatives, through the service and its client: what is proved, what is shown, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnxruntime
import pytest
from cli_kit import two_layers
from lipschitz_models import POSED, pointwise
from service_kit import Server, mlp

import provenn
from provenn.api.client import Client, RequestRefused
from provenn.api.jacobian import JacobianResult
from provenn.api.jobs.derivatives import ENTRIES
from provenn.api.report import jacobian_report
from provenn.api.schemas import Change, JacobianRequest, JobResult, MonotonicityRequest, RegionRequest
from provenn.solvers.ranges import Ranges

TABLE = two_layers(
    [[1, 0, 0, 0], [0, 1, 0, 0], [0, -1, 0, 0], [1, 0, 2, -1]], [0, 0, 0, 0], [[1, 0, 0, 1], [0, 1, 1, 0]]
)
"""y0 = relu(age) + relu(age + 2 red - blue), y1 = |debt|."""

DOMAIN: dict[str, Any] = {
    "features": [
        {"name": "age", "range": [-1, 2]},
        {"name": "debt", "range": [-1, 1]},
        {"name": "colour", "one_hot": 2},
    ]
}
AROUND = {"input": [0.5, 0.5, 1.0, 0.0], "epsilon": 0.25}
WIDE = mlp([64, 2, 100])


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def asked(**members: Any) -> MonotonicityRequest:
    return MonotonicityRequest.model_validate({"features": ["age"], "domain": DOMAIN, **members})


def replayed(pair: Change | None, column: int, row: int) -> float:
    """By what the row changes, as onnxruntime has it; the inputs differ in one coordinate."""
    assert pair is not None
    inputs = np.array([pair.first, pair.second], np.float32)
    away = inputs[1] - inputs[0]
    assert away[column] > 0
    assert not np.delete(away, column).any()
    (outputs,) = onnxruntime.InferenceSession(TABLE, providers=["CPUExecutionProvider"]).run(None, {"x": inputs})
    change = float(outputs[1, row]) - float(outputs[0, row])
    assert change == pytest.approx(pair.change, rel=1e-5)
    return change


def test_monotonicity_over_a_domain(client: Client) -> None:
    job = client.certify(client.upload(TABLE).id, asked(features=["age", 1]), seconds=20.0)
    result = client.wait(job.id)
    (item,) = result.items
    assert (result.verdict, item.verdict, item.method, item.assurance) == ("falsified", "falsified", "bab", "checked")
    found = item.monotonicity
    assert found is not None
    assert [(each.row, each.column, each.feature) for each in found] == [
        (0, 0, "age"),
        (0, 1, "debt"),
        (1, 0, "age"),
        (1, 1, "debt"),
    ]
    assert [each.trend for each in found] == ["increasing", "constant", "constant", "neither"]
    assert all(each.lower is not None and each.upper is not None for each in found)
    assert found[0].fall is None
    assert replayed(found[0].rise, 0, 0) > 0
    assert replayed(found[3].fall, 1, 1) < 0 < replayed(found[3].rise, 1, 1)
    assert item.certificate is not None
    proved = provenn.check(client.certificate(item.certificate), TABLE).entries
    assert {entry[:2] for entry in proved} == {(0, 0), (0, 1), (1, 0)}
    assert all(low == 0.0 or high == 0.0 for _, _, low, high in proved)
    assert result.stats["regions"] == 2


def test_categories_that_are_held_and_a_domain_as_text(client: Client) -> None:
    question = asked(domain=json.dumps(DOMAIN), features=["all"], fixed={"colour": 1, "debt": "0.25"}, rows="0")
    result = client.wait(client.certify(client.upload(TABLE).id, question, 20.0, "crown").id)
    assert (result.verdict, result.items[0].method, result.stats["regions"]) == ("verified", "crown", 1)
    assert [each.feature for each in result.items[0].monotonicity or ()] == ["age"]


@pytest.mark.parametrize("method", ["crown", "alpha-crown", "recurjac", "ibp", "bab"])
def test_a_jacobian_around_an_input(client: Client, method: str) -> None:
    question = JacobianRequest(region=RegionRequest.model_validate(AROUND))
    result = client.wait(client.certify(client.upload(TABLE).id, question, 20.0, method).id)
    (item,) = result.items
    assert (result.verdict, item.assurance, item.method) == ("verified", "checked", method)
    found = item.jacobian
    assert found is not None
    assert found.lower is not None
    assert found.upper is not None
    exact = [[2.0, 0.0, 2.0, -1.0], [0.0, 1.0, 0.0, 0.0]]
    assert (np.array(found.lower) <= exact).all()
    assert (np.array(found.upper) >= exact).all()
    assert found.lower == pytest.approx(np.array(exact), abs=1e-5)
    assert np.array(found.seen_lower, float) == pytest.approx(np.array(exact), abs=1e-6)
    assert item.certificate is not None
    for row, column, low, high in provenn.check(client.certificate(item.certificate), TABLE).entries:
        assert low in (None, found.lower[row][column])
        assert high in (None, found.upper[row][column])


def test_a_jacobian_over_a_domain_without_its_certificate(server: Server) -> None:
    body = {
        "model": server.model(TABLE),
        "jacobian": {"rows": "1", "domain": DOMAIN, "fixed": {"colour": "0"}},
        "certificates": False,
        "budget": {"seconds": 10},
    }
    (item,) = server.ended(server.submit(body))["result"]["items"]
    assert (item["verdict"], item["assurance"], item["certificate"]) == ("verified", "checked", None)
    (low,), (high,) = item["jacobian"]["lower"], item["jacobian"]["upper"]
    assert low[1] <= -1 <= 1 <= high[1]


def test_what_is_not_known_is_null(client: Client) -> None:
    """The kernel has no slopes of Floor."""
    region = RegionRequest(input=[0.0, 0.0], epsilon=0.75)
    model = client.upload(pointwise("Floor")).id
    asked = MonotonicityRequest(features=[0, "1"], region=region, rows="0")
    item = client.wait(client.certify(model, asked, seconds=5.0).id).items[0]
    assert (item.verdict, item.assurance, item.certificate) == ("unknown", None, None)
    assert item.reason is not None
    assert item.monotonicity is not None
    assert [(each.feature, each.trend, each.lower) for each in item.monotonicity] == [
        ("0", "unknown", None),
        ("1", "unknown", None),
    ]


def test_json_has_no_infinity() -> None:
    seen = Ranges(np.array([[np.inf, np.nan, 1.0]]), np.array([[-np.inf, np.nan, 2.0]]))
    told = jacobian_report(JacobianResult("unknown", "bab", 1.0, seen), "all", None, {})
    read = JobResult.model_validate_json(told.model_dump_json())
    assert read == told
    assert read.items[0].jacobian is not None
    assert (read.items[0].jacobian.seen_lower, read.items[0].jacobian.lower) == ([[None, None, 1.0]], None)


def test_an_implicit_network_is_refused_a_proof(client: Client) -> None:
    question = JacobianRequest(region=RegionRequest(input=[0.0, 0.0], epsilon=0.1))
    item = client.wait(client.certify(client.upload(POSED).id, question, seconds=5.0).id).items[0]
    assert (item.verdict, item.assurance) == ("unknown", None)


def test_pairs_speak_where_nothing_is_proved(client: Client) -> None:
    question = asked(features=["debt"], rows="1")
    item = client.wait(client.certify(client.upload(TABLE).id, question, seconds=10.0).id).items[0]
    assert (item.verdict, item.assurance, item.certificate) == ("falsified", "replayed", None)


def job(**members: Any) -> dict[str, Any]:
    return {"monotonicity": {"features": ["age"], "domain": DOMAIN, **members}}


def derived(**members: Any) -> dict[str, Any]:
    return {"jacobian": members}


MANY = {"features": [DOMAIN["features"][0], *({"values": list(range(11))} for _ in range(3))]}


@pytest.mark.parametrize(
    ("change", "status", "detail"),
    [
        (job(features=["size"]), 422, "there is no feature 'size'; there are age, debt, colour"),
        (job(features=["debt"], fixed={"debt": 1}), 422, "feature 'debt' has one value alone"),
        (job(features=["colour"]), 422, "feature 'colour' is one-hot"),
        (job(features=[0, "age"]), 422, "input 0 is asked about twice"),
        (job(features=[]), 422, "#/monotonicity/features: List should have at least 1 item"),
        (job(features=["7"], domain=None, region=AROUND), 422, "there is no input '7': give numbers from 0 to 3"),
        (job(features=["age"], domain=None, region=AROUND), 422, "there is no input 'age'"),
        (job(domain=None), 422, "give either region or domain"),
        (job(region=AROUND), 422, "give either region or domain"),
        (job(domain=None, region=AROUND, fixed={"age": 1}), 422, "fixed holds features of a domain"),
        (job(domain=None, features=[0], region=AROUND | {"input": [1.0]}), 422, "the centre has 1 numbers"),
        (job(domain={"features": DOMAIN["features"][:2]}), 422, "domain: the features take 2 inputs, but the network"),
        (job(domain='{"features": [{"name": "age", "rank": [0, 1]}]}'), 422, "domain: feature 0, 'age': expected one"),
        (job(domain="{"), 422, "domain: not JSON"),
        (job(domain=MANY), 413, "combinations of categories (1331)"),
        (job(fixed={"colour": 2}), 422, "feature 'colour' does not have the value 2"),
        (job(fixed={"size": 2}), 422, "there is no feature 'size'"),
        (job(rows="5"), 422, "row 5 is not an output of this network"),
        (job() | {"method": "lipsdp-neuron"}, 422, "no such method; there are crown, alpha-crown"),
        (job() | {"semantics": "float32"}, 422, "derivatives are about real arithmetic"),
        (job() | {"budget": {"seconds": 1e9}}, 422, "#/budget/seconds"),
        (job() | {"lipschitz": {}}, 422, "or inputs or batch or lipschitz or monotonicity or jacobian"),
        (job() | derived(region=AROUND), 422, "give either specification or inputs or batch"),
        (derived(domain=DOMAIN), 422, "the domain has 2 combinations of categories: hold all but one with fixed"),
        (derived(region=AROUND | {"input": [1.0]}), 422, "the centre has 1 numbers for 4 inputs"),
        (derived(region=AROUND | {"clip": [5, 6]}), 422, "empty region"),
        (derived(region=AROUND, features=["age"]), 422, "#/jacobian/features: Extra inputs are not permitted"),
        (derived(), 422, "give either region or domain"),
    ],
)
def test_refused_at_the_door(server: Server, change: dict[str, Any], status: int, detail: str) -> None:
    newest = server.client.get("/v1/jobs?limit=1").json()["items"]
    response = server.client.post("/v1/jobs", json={"model": server.model(TABLE), **change})
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, response.json()["status"]) == (status, status)
    told = response.json()
    assert detail in told["detail"] + " ".join(e["pointer"] + ": " + e["detail"] for e in told.get("errors", []))
    assert server.client.get("/v1/jobs?limit=1").json()["items"] == newest


def test_answers_are_bounded(client: Client) -> None:
    model = client.upload(WIDE).id
    region = RegionRequest(input=[0.0] * 64, epsilon=0.1)
    with pytest.raises(RequestRefused, match=rf"rows times inputs \(4950 x 64\) exceeds the limit of {ENTRIES}") as no:
        client.certify(model, JacobianRequest(rows="pairs", region=region))
    assert (no.value.status, no.value.problem["limit"]) == (413, str(ENTRIES))
    with pytest.raises(RequestRefused, match=r"rows times features times inputs \(100 x 64 x 64\)"):
        client.certify(model, MonotonicityRequest(features=list(range(64)), region=region))
