"""What every answer says besides its body: what browsers may do with it, and which request it belongs to."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import Front, member, sqlite
from pydantic import ValidationError
from service_kit import SMALL, Server, small_request

from provenn.api.app import create_app
from provenn.api.headers import ALWAYS
from provenn.api.requests import request_id
from provenn.api.settings import Settings

EXPECTED = {name.decode(): value.decode() for name, value in ALWAYS.items()}


def ask(server: Server, method: str, path: str, headers: dict[str, str], **settings: Any) -> httpx.Response:
    """The answer of an application with these settings, over the parts of a server."""
    app = create_app(Settings(authentication="keys", **settings))
    app.state.service = server.service

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers=headers)

    return asyncio.run(send())


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    found = Front(sqlite(tmp_path), authentication="none", behind_tls=True)
    yield found
    found.close()


def test_every_kind_of_answer_is_secured(keyed: Server) -> None:
    owner = member(keyed, "headers")
    with owner.client as client:
        model = owner.model(SMALL)
        job = owner.submit(small_request(model))
        owner.ended(job)
        answers = [
            client.get("/v1/models"),
            client.get(f"/v1/models/{model}/file"),
            client.get(f"/v1/jobs/{job}/events"),
            client.get("/v1/jobs/unknown"),
            client.post("/v1/jobs", json={}),
            client.put("/v1/jobs"),
            client.get("/openapi.json"),
            httpx.get(keyed.url + "/healthz"),
            httpx.get(keyed.url + "/v1/jobs"),
        ]
    assert {answer.status_code for answer in answers} == {200, 401, 404, 405, 422}
    for answer in answers:
        found = {name: answer.headers.get(name) for name in EXPECTED}
        streams = answer.headers["content-type"].startswith("text/event-stream")
        assert found == EXPECTED | ({"cache-control": "no-cache"} if streams else {})
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers
        assert "access-control-allow-origin" not in answer.headers
    assert len({answer.headers["x-request-id"] for answer in answers}) == len(answers)


def test_https_alone_behind_tls(front: Front) -> None:
    assert front.ask("/").headers["strict-transport-security"] == "max-age=31536000"


@pytest.mark.parametrize("given", ["a-request-1", "A.b_c-0123", "x" * 64])
def test_a_request_may_bring_its_id(front: Front, given: str) -> None:
    assert front.ask("/", headers={"X-Request-Id": given}).headers["x-request-id"] == given
    assert request_id.get() is None


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with blank", "new\tline-", "{json: 12345}", "ümlaut-12345"])
def test_other_ids_are_replaced(front: Front, given: str) -> None:
    found = front.ask("/", headers={"X-Request-Id": given.encode()}).headers["x-request-id"]  # type: ignore[dict-item]
    assert re.fullmatch("[0-9a-f]{32}", found)


PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


@pytest.mark.parametrize("origin", ["https://app.example", "https://app.example.evil", "null"])
def test_origins(server: Server, origin: str) -> None:
    allowed = "https://app.example, http://127.0.0.1:3000"
    answer = ask(server, "OPTIONS", "/v1/jobs", {"Origin": origin, **PREFLIGHT}, cors_origins=allowed)
    found = answer.status_code, answer.headers.get("access-control-allow-origin")
    assert found == ((200, origin) if origin == "https://app.example" else (400, None))
    assert "access-control-allow-credentials" not in answer.headers
    off = server.client.options("/v1/jobs", headers={"Origin": origin, **PREFLIGHT})
    assert not [name for name in off.headers if name.startswith("access-control")]


@pytest.mark.parametrize("origins", ["*", "app.example", "https://app.example/", "https://*.example", "ftp://a"])
def test_origins_are_whole(origins: str) -> None:
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(cors_origins=origins)


def test_the_page_to_try_the_api_is_off(server: Server) -> None:
    for path in ("/docs", "/redoc", "/docs/oauth2-redirect"):
        assert server.client.get(path).status_code == 404


def test_the_page_loads_nothing_that_its_policy_does_not_name(server: Server) -> None:
    answer = ask(server, "GET", "/docs", {}, docs_page=True)
    assert answer.status_code == 200
    policy = answer.headers["content-security-policy"]
    for url in re.findall(r"(?:src|href)=\"(http[^\"]+)\"", answer.text):
        assert url.startswith("https://cdn.jsdelivr.net/")
    scripts = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    assert len(scripts) == 1
    assert base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode() in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
