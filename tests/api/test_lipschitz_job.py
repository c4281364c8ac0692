"""Lipschitz jobs: through the service and its client, with certificates; and what is refused at the door."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cli_kit import PLAIN
from lipschitz_models import ILL_POSED, POSED
from service_kit import SMALL, Server, small_request

import provenn
from provenn.api.client import Client, RequestRefused
from provenn.api.schemas import LipschitzRequest


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


def test_a_job_and_its_certificate(client: Client) -> None:
    asked = LipschitzRequest.model_validate({"norm": "inf", "rows": "pairs", "scale": [2.0, 2.0]})
    job = client.certify(client.upload(PLAIN).id, asked, seconds=30.0, method="lipsdp-neuron")
    result = client.wait(job.id)
    (item,) = result.items
    assert (result.verdict, item.assurance, job.method) == ("verified", "checked", "lipsdp-neuron")
    found = item.lipschitz
    assert found is not None
    assert (found.norm, found.output_norm, found.rows, found.well_posed) == ("inf", "each", "pairs", None)
    assert found.upper == pytest.approx([1.0], rel=1e-6)
    assert isinstance(found.upper, list)
    assert isinstance(found.lower, list)
    assert found.lower[0] <= found.upper[0]
    assert item.certificate is not None
    assert list(provenn.check(client.certificate(item.certificate), PLAIN).uppers) == found.upper
    assert result.stats["coordinates"] == 4


def test_a_region_and_no_certificate(server: Server) -> None:
    region = {"input": [-1.0, 1.0], "epsilon": 0.5, "clip": [-1, 1]}
    body = {
        "model": server.model(PLAIN),
        "lipschitz": {"rows": "1", "region": region},
        "certificates": False,
        "budget": {"seconds": 4},
    }
    (item,) = server.ended(server.submit(body))["result"]["items"]
    assert (item["verdict"], item["certificate"]) == ("verified", None)
    assert item["lipschitz"]["upper"] == pytest.approx(1.0, rel=1e-6)


def test_inputs_measured_in_l1(client: Client) -> None:
    asked = LipschitzRequest(norm="1", output_norm="1")
    item = client.wait(client.certify(client.upload(PLAIN).id, asked, seconds=20.0).id).items[0]
    assert item.lipschitz is not None
    assert (item.verdict, item.lipschitz.norm) == ("verified", "1")
    assert item.lipschitz.upper == pytest.approx(1.0, rel=1e-5)


def test_implicit_networks_are_admitted(client: Client) -> None:
    model = client.upload(POSED)
    assert (model.opset, model.producer, model.input_shape) == (0, "provenn-network/1", [2])
    item = client.wait(client.certify(model.id, LipschitzRequest(), seconds=30.0).id).items[0]
    assert item.lipschitz is not None
    assert (item.verdict, item.lipschitz.well_posed) == ("verified", True)
    ill = client.wait(client.certify(client.upload(ILL_POSED).id, LipschitzRequest(), seconds=30.0).id).items[0]
    assert ill.lipschitz is not None
    assert (ill.verdict, ill.lipschitz.upper, ill.lipschitz.well_posed) == ("unknown", None, False)


def test_robustness_from_constants_is_a_method(server: Server) -> None:
    body = small_request(server.model(SMALL), inputs=[[0.1, 0.2, 0.3, 0.4]] * 3, labels=[0, 1, 2], norm="2")
    result = server.ended(server.submit(body | {"method": "lipschitz", "budget": {"seconds": 4}}))["result"]
    assert sorted(item["verdict"] for item in result["items"]) == ["unknown", "unknown", "verified"]
    sure = next(item for item in result["items"] if item["verdict"] == "verified")
    assert (sure["method"], sure["assurance"]) == ("lipschitz", "checked")
    assert sure["margin"] > 0
    assert server.client.get(f"/v1/certificates/{sure['certificate']}").status_code == 200


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"lipschitz": {"rows": "7"}}, "row 7 is not an output of this network"),
        ({"lipschitz": {"scale": [1.0]}}, "the scale has 1 numbers for 2 inputs"),
        ({"lipschitz": {"scale": [1.0, -1.0]}}, "greater than 0"),
        ({"lipschitz": {"norm": "3"}}, "'2', 'inf' or '1'"),
        ({"lipschitz": {"norm": "1"}, "method": "lipsdp-neuron"}, "it has no bound from l1 to l2: take auto or crown"),
        ({"lipschitz": {"region": {"input": [1.0], "epsilon": 0.1}}}, "the centre has 1 numbers"),
        ({"lipschitz": {"region": {"input": [1.0, 0.0]}}}, "Field required"),
        ({"lipschitz": {}, "method": "forward"}, "no such method; there are auto"),
        ({"lipschitz": {"solver": "scs"}}, "takes no solver"),
        ({"lipschitz": {}, "semantics": "float32"}, "real arithmetic"),
        ({"lipschitz": {}, "specification": "x"}, "give either specification or inputs or batch or lipschitz"),
        ({"lipschitz": {}, "budget": {"seconds": 1e9}}, "above the limit"),
        ({"method": "lipschitz", "specification": "x"}, "method lipschitz is for inputs"),
    ],
)
def test_refused_at_the_door(server: Server, change: dict[str, Any], detail: str) -> None:
    response = server.client.post("/v1/jobs", json={"model": server.model(PLAIN), **change})
    assert response.status_code == 422, response.text
    assert detail in response.text


def test_the_client_carries_the_refusal(client: Client) -> None:
    with pytest.raises(RequestRefused, match="row 7 is not an output"):
        client.certify(client.upload(PLAIN).id, LipschitzRequest.model_validate({"rows": "7"}))
