"""The server keeps the word of its OpenAPI document: whatever is asked, and in whatever characters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import member
from openapi_kit import DOCUMENT
from schemathesis.engine.run import PhaseName
from service_kit import SMALL, Server, serving, small_request

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from document_fuzz import Extent, possessions, report, tried

from provenn.api.problems import PREFIX

WITH_KEY = (PhaseName.FUZZING, PhaseName.STATEFUL_TESTING)
"""The others ask what does not depend on keys."""


def test_answers_are_as_the_document_says(server: Server) -> None:
    found = tried(server.url, None, possessions(server.client), Extent(examples=3, seed=1))
    assert not found.failures, "\n".join(report(found))
    assert {200, 201, 404, 405, 422} <= set(found.answers)


def test_answers_to_who_has_a_key_are_as_the_document_says(keyed: Server) -> None:
    owner = member(keyed, "openapi")
    with owner.client as client:
        key = client.headers["authorization"].removeprefix("Bearer ")
        found = tried(owner.url, key, possessions(client), Extent(WITH_KEY, examples=2, seed=2))
        for webhook in client.get("/v1/webhooks").json()["items"]:
            client.delete(f"/v1/webhooks/{webhook['id']}")
    assert not found.failures, "\n".join(report(found))
    assert {200, 201, 401, 422} <= set(found.answers)


def test_what_needs_a_key_says_so() -> None:
    unsaid = {path for path, ways in DOCUMENT["paths"].items() if any("security" not in w for w in ways.values())}
    assert unsaid == {"/healthz", "/readyz"}


def test_links_lead_to_what_there_is() -> None:
    operations = [operation for ways in DOCUMENT["paths"].values() for operation in ways.values()]
    known = {operation["operationId"] for operation in operations}
    links = [link for o in operations for r in o["responses"].values() for link in r.get("links", {}).values()]
    assert links
    assert {link["operationId"] for link in links} <= known


def test_a_path_says_all_its_methods(server: Server) -> None:
    for path, ways in DOCUMENT["paths"].items():
        answer = server.client.request("PROPFIND", path)
        assert answer.status_code == 405
        assert {m.lower() for m in answer.headers["allow"].split(", ")} == set(ways)


def test_a_time_is_no_number(server: Server) -> None:
    """It would be read as seconds since 1970."""
    for name in ("created_after", "created_before"):
        assert server.client.get("/v1/jobs", params={name: "1700000000"}).status_code == 422
        assert server.client.get("/v1/jobs", params={name: "2026-03-01T12:00:00Z"}).status_code == 200


# --- strange characters -------------------------------------------------------------------------------------------

STRANGE = ["\0", "a\0b", "\ud800", "\U0010ffff", "\u202egnp.exe", "é" * 300, "\x7f\x1b[2J", "%00", "' OR 1=1 --"]
NUMBERS = ["9" * 5000, "1e999", "-9223372036854775809", "18446744073709551616", "NaN", "-0"]


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    """A server over a database of either kind."""
    if request.param == "sqlite":
        yield request.getfixturevalue("server")
        return
    made: Callable[[], str] = request.getfixturevalue("postgresql")
    with serving(tmp_path / "data", database=made()) as running:
        yield running


def sound(answer: httpx.Response) -> None:
    """A success, or a refusal of the documented form."""
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["type"].startswith(PREFIX)


def quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))


def test_strange_names_are_answered(either: Server) -> None:
    for text in [*STRANGE, *NUMBERS]:
        for path in ("/v1/models/{}", "/v1/jobs/{}", "/v1/jobs/{}/events", "/v1/certificates/{}/bundle"):
            sound(either.client.get(path.format(quoted(text))))
        for name in ("limit", "cursor", "state", "model", "kind", "method", "verdict", "parked", "parent"):
            sound(either.client.get(f"/v1/jobs?{name}={quoted(text)}"))
        sound(either.client.get(f"/v1/jobs?created_after={quoted(text)}&{quoted(text)}=1"))
        sound(either.client.delete(f"/v1/webhooks/{quoted(text)}"))


def test_strange_file_names_are_kept_or_refused(either: Server) -> None:
    for text in STRANGE:
        name = text.encode("utf-8", "surrogatepass").replace(b'"', b"")
        head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + name + b'"\r\n\r\n'
        headers = {"content-type": "multipart/form-data; boundary=b"}
        answer = either.client.post("/v1/models", content=head + SMALL + b"\r\n--b--\r\n", headers=headers)
        sound(answer)
    sound(either.client.get("/v1/models"))


def test_strange_texts_and_numbers_in_a_job_are_answered(either: Server) -> None:
    model = either.model(SMALL)
    headers = {"content-type": "application/json"}

    def submit(body: dict[str, Any] | str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        sound(either.client.post("/v1/jobs", content=text, headers=headers))

    for text in STRANGE:
        submit(small_request(model) | {"method": text})
        submit({"model": model, "specification": text})
        submit({"model": model, "specification": {"format": text, text: text}})
        submit({"model": model, "lipschitz": {"rows": text}})
        submit({"model": model, "monotonicity": {"features": [text], "domain": text}})
        submit({"model": model, text: text})
        region = {"input": [0, 0, 0, 0], "epsilon": 0}
        submit({"model": model, "jacobian": {"rows": text, "region": region, "fixed": {text: text}}})
        pattern = {"model": model, "class": 0, "layers": [{"relu": text, "neurons": 8, "active": [], "inactive": []}]}
        submit({"model": model, "radius": {"input": [0, 0, 0, 0], "pattern": pattern}})
    for depth in (100, 500, *range(900, 1000, 10)):
        for question in ('"specification": {"a": %s}', '"monotonicity": {"features": ["all"], "domain": {"a": %s}}'):
            submit(f'{{"model": "{model}", {question % ("[" * depth + "]" * depth)}}}')
    domain = {"features": [{"name": "\ud800", "range": [0, 1]}, *({"name": f"{i}", "range": [0, 1]} for i in range(3))]}
    submit({"model": model, "monotonicity": {"features": [0], "domain": domain}})
    for number in NUMBERS:
        for field in ("seed", "priority", "budget"):
            value = f'{{"seconds": {number}}}' if field == "budget" else number
            submit(f'{{"model": "{model}", "lipschitz": {{}}, "{field}": {value}}}')
        submit(f'{{"model": "{model}", "lipschitz": {{"rows": "{number}-{number}", "scale": [{number}]}}}}')
        submit(f'{{"model": "{model}", "inputs": {{"inputs": [[{number}]], "labels": [{number}], "epsilons": [1]}}}}')
        submit(f'{{"model": "{model}", "radius": {{"input": [{number}], "label": {number}, "largest": {number}}}}}')


def test_strange_headers_are_answered(either: Server) -> None:
    body = small_request(either.model(SMALL))
    for value in (b"\xff", b"a\x7fb", b"x" * 300, b"\xc3\xa9", b"' --", b"9" * 255):
        sound(either.client.post("/v1/jobs", json=body, headers={"Idempotency-Key": value}))
        sound(either.client.get("/v1/jobs/x/events", headers={"Last-Event-ID": value}))
        sound(either.client.get("/v1/models", headers={"X-Request-Id": value, "Authorization": value}))
