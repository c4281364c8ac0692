"""API keys: what each scope may do, what ends one, what a key leaves behind, and what it never leaves."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from access_kit import (
    ADMIN,
    NOBODYS,
    READ,
    RULES,
    SUBMIT,
    Front,
    Route,
    bearer,
    member,
    new_key,
    possessions,
    routes,
    sqlite,
)
from service_kit import SMALL, Server, small_request, wait_for
from sqlalchemy import select, update

from provenn.api import keys as api_keys
from provenn.api import tickets
from provenn.api.client import Client, RequestRefused, ServiceError
from provenn.api.exposure import PublicWithoutAuthentication, require_authentication
from provenn.api.keys import LETTERS, SHAPE, Grant, Keys, Scope, allows, digest, mint, shows_key
from provenn.api.problems import PREFIX
from provenn.api.settings import Settings
from provenn.api.tables import AuditRow, KeyRow

NEEDING = sorted(route for route, rule in RULES.items() if rule.scope is not None)
OPEN = sorted(route for route, rule in RULES.items() if rule.scope is None)
WRONG = [
    {},
    {"Authorization": ""},
    {"Authorization": "Bearer"},
    {"Authorization": "Bearer "},
    {"Authorization": "Bearer pvn_0000000000000000_" + "A" * 43},
    {"Authorization": "Bearer pvn_0000000000000000_" + "A" * 42},
    {"Authorization": "Bearer " + "x" * 5000},
    {"Authorization": "Basic cHZuOng="},
    {"X-Api-Key": "anything"},
]


def filled(path: str, names: dict[str, str] = NOBODYS) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: (names | {"row": "0", "schema": "box"}).get(found[1], "rows.jsonl"), path)


def refused(response: httpx.Response, status: int, name: str) -> dict[str, Any]:
    assert response.headers["content-type"] == "application/problem+json"
    found = dict(response.json())
    assert (response.status_code, found["type"]) == (status, PREFIX + name), found
    return found


def ids(routes: list[Route]) -> list[str]:
    return [" ".join(route) for route in routes]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    found = Front(sqlite(tmp_path))
    yield found
    found.close()


def test_keys_are_random_and_recognisable() -> None:
    made = {mint() for _ in range(200)}
    assert len({key for _, key in made}) == len({identifier for identifier, _ in made}) == 200
    for identifier, key in made:
        assert re.fullmatch(rf"pvn_{identifier}_[0-9A-Za-z]{{43}}", key)
        shape = SHAPE.fullmatch(key)
        assert shape is not None
        assert shape[1] == identifier
    assert len(LETTERS) ** 43 > 2**256


def test_scopes_include_what_comes_before_them() -> None:
    granted = {scope: {needed for needed in Scope if allows(frozenset({scope}), needed)} for scope in Scope}
    assert granted == {READ: {READ}, SUBMIT: {READ, SUBMIT}, ADMIN: {READ, SUBMIT, ADMIN}}
    assert not allows(frozenset(), READ)


def test_the_database_has_no_key(front: Front, tmp_path: Path) -> None:
    key = new_key(front.keys, "vision", READ)
    assert front.ask("/", key).status_code == 200
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert digest(key).encode() in stored
    assert key.encode() not in stored
    assert key.rpartition("_")[2].encode() not in stored


@pytest.mark.parametrize(("method", "path"), NEEDING, ids=ids(NEEDING))
def test_nothing_without_a_key(keyed: Server, method: str, path: str) -> None:
    for headers in (WRONG[0], WRONG[4], WRONG[8]):
        response = keyed.client.request(method, filled(path), headers=headers)
        assert response.headers["www-authenticate"].startswith("Bearer")
        assert "key" in refused(response, 401, "unauthorized")["detail"]


@pytest.mark.parametrize(("method", "path"), OPEN, ids=ids(OPEN))
def test_some_of_it_needs_none(keyed: Server, method: str, path: str) -> None:
    assert keyed.client.request(method, path).status_code == 200


def test_what_is_not_there_needs_a_key_too(keyed: Server) -> None:
    for path in ("/web", "/docs/", "/v1", "/healthz/", "//healthz", "/healthz%2F", "/HEALTHZ"):
        assert httpx.get(keyed.url + path).status_code == 401, path
    assert keyed.client.get("/docs").status_code == 404


@pytest.mark.parametrize("headers", WRONG, ids=range(len(WRONG)))
def test_wrong_credentials(front: Front, headers: dict[str, str]) -> None:
    refused(front.ask("/v1/models", headers=headers), 401, "unauthorized")
    assert front.seen == []


@pytest.mark.parametrize("scope", [READ, SUBMIT, ADMIN])
def test_scopes_of_every_route(keyed: Server, scope: Scope) -> None:
    """A key without the scope is told which it needs; with it, it gets as far as the route."""
    owner = member(keyed, f"scopes of {scope}")
    with owner.client, member(keyed, f"scopes of {scope}", scope).client as client:
        names = possessions(owner)
        for (method, path), rule in RULES.items():
            response = client.request(method, filled(path, names))
            if rule.scope is None or (allows(frozenset({scope}), rule.scope) and not rule.operators):
                assert response.status_code in (200, 201, 202, 204, 409, 422), (method, path, response.text)
            else:
                assert refused(response, 403, "forbidden")["scope"] == rule.scope


def test_operators_are_admins_of_the_project_default(keyed: Server) -> None:
    for project, status in (("default", 200), ("any other", 403)):
        with member(keyed, project).client as client:
            assert {client.get(path).status_code for (_, path), rule in RULES.items() if rule.operators} == {status}


def test_an_upload_without_a_key_is_not_read(front: Front) -> None:
    def body() -> Iterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    async def call() -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            next(body())

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/models", "query_string": b"", "headers": []}
        await front._call(scope, receive, send)
        return sent

    assert asyncio.run(call())[0]["status"] == 401


@pytest.mark.parametrize(
    ("change", "why"), [({"expires_at": 1.0}, "expired"), ({"revoked_at": 1.0}, "revoked")], ids=["expired", "revoked"]
)
def test_keys_end(front: Front, change: dict[str, float], why: str) -> None:
    key = new_key(front.keys, "vision", READ)
    with front.database.writing() as session:
        session.execute(update(KeyRow).values(**change))
    assert why in refused(front.ask("/", key), 401, "unauthorized")["detail"]
    row = front.audit.page(1)[0]
    assert (row.key_id, row.status) == (key.split("_")[1], 401)
    other = key[:-1] + ("A" if key[-1] != "A" else "B")
    assert why not in front.ask("/", other).json()["detail"]


def test_a_key_expires_while_it_is_used(front: Front) -> None:
    key = new_key(front.keys, "vision", READ, expires_at=time.time() + 1.0)
    assert front.ask("/", key).status_code == 200
    wait_for(lambda: front.ask("/", key).status_code == 401)


def test_a_revocation_is_effective_here_at_once_and_elsewhere_soon(
    front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_keys, "TRUST_SECONDS", 0.2)
    one, two = (new_key(front.keys, "vision", READ) for _ in range(2))
    for key in (one, two):
        assert front.ask("/", key).status_code == 200
    front.keys.revoke(one.split("_")[1])
    assert front.ask("/", one).status_code == 401
    Keys(front.database).revoke(two.split("_")[1])  # another process
    wait_for(lambda: front.ask("/", two).status_code == 401)


def test_the_use_of_a_key_is_noted_once_a_minute(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_keys, "TRUST_SECONDS", 0.0)
    key = new_key(front.keys, "vision", READ)

    def used() -> float | None:
        row = front.keys.get(key.split("_")[1])
        assert row is not None
        return row.used_at

    assert used() is None
    front.ask("/", key)
    first = used()
    assert first is not None
    front.ask("/", key)
    assert used() == first
    with front.database.writing() as session:
        session.execute(update(KeyRow).values(used_at=first - 61))
    front.ask("/", key)
    assert used() is not None
    assert used() >= first  # type: ignore[operator]


def test_without_a_database_nobody_is_let_in(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    key = new_key(front.keys, "vision", READ)
    with front.database.writing() as session:
        session.connection().exec_driver_sql("ALTER TABLE keys RENAME TO lost")
    refused(front.ask("/", key), 503, "unavailable")
    assert front.seen == []


@pytest.mark.parametrize("url", [pytest.param("postgresql", marks=pytest.mark.xdist_group("postgresql"))])
def test_keys_and_audit_on_postgresql(request: pytest.FixtureRequest, url: str) -> None:
    make: Callable[[], str] = request.getfixturevalue(url)
    front = Front(make())
    try:
        key = new_key(front.keys, "vision", SUBMIT, max_bytes=2**40)
        assert front.ask("/v1/models", key, method="POST").status_code == 200
        assert front.ask("/v1/models/%00", key).status_code == 422
        assert front.ask("/v1/models/%0a%1b[31m").status_code == 401
        front.keys.revoke(key.split("_")[1])
        assert front.ask("/", key).status_code == 401
        rows = front.audit.page(10)
        assert [(row.status, row.key_id) for row in rows[::2]] == [(401, key.split("_")[1]), (200, key.split("_")[1])]
        assert rows[1].action == "GET /v1/models/??[31m"
        assert [row.max_bytes for row in front.keys.page(10)] == [2**40]
    finally:
        front.close()


# Without authentication


def test_without_authentication_everybody_is_the_project_default(tmp_path: Path) -> None:
    front = Front(sqlite(tmp_path), authentication="none")
    assert front.ask("/").json()["scopes"] == ["admin", "read", "submit"]
    front.close()


@pytest.mark.parametrize(
    ("host", "headers", "status"),
    [
        ("localhost:8000", {}, 200),
        ("127.0.0.1:8000", {}, 200),
        ("[::1]:8000", {}, 200),
        ("rebound.example:8000", {}, 403),
        ("localhost.example", {}, 403),
        ("127.0.0.1:8000", {"Origin": "http://127.0.0.1:8000"}, 200),
        ("127.0.0.1:8000", {"Origin": "https://app.example"}, 200),
        ("127.0.0.1:8000", {"Origin": "https://other.example"}, 403),
        ("127.0.0.1:8000", {"Origin": "http://127.0.0.1:9000"}, 403),
        ("127.0.0.1:8000", {"Origin": "null"}, 403),
    ],
)
def test_pages_of_other_sites_cannot_use_it(tmp_path: Path, host: str, headers: dict[str, str], status: int) -> None:
    front = Front(sqlite(tmp_path), authentication="none", cors_origins="https://app.example")
    assert front.ask("/v1/jobs", method="POST", host=host, headers=headers).status_code == status
    front.close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "provenn.example", ""])
def test_a_public_address_needs_authentication(host: str) -> None:
    with pytest.raises(PublicWithoutAuthentication, match="provenn keys create"):
        require_authentication(Settings(host=host))
    require_authentication(Settings(host=host, authentication="keys"))
    require_authentication(Settings(host=host, public_without_authentication=True))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_machine_s_own_needs_none(host: str) -> None:
    require_authentication(Settings(host=host))


# Keys over REST


def test_admins_make_list_and_revoke_keys(keyed: Server) -> None:
    with member(keyed, "rest").client as client:
        asked = {"name": "ci", "scopes": ["submit"], "expires_days": 30, "max_queued": 5}
        answer = client.post("/v1/api-keys", json=asked)
        made = answer.json()
        assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/api-keys/{made['id']}")
        assert (made["scopes"], made["max_queued"], made["revoked_at"]) == (["submit"], 5, None)
        own = {"headers": bearer(made["key"])}
        assert httpx.get(keyed.url + "/v1/models", **own).status_code == 200
        first = client.get("/v1/api-keys", params={"limit": 1}).json()
        assert first["items"][0]["id"] == made["id"]
        assert "key" not in first["items"][0]
        second = client.get("/v1/api-keys", params={"limit": 5, "cursor": first["next"]}).json()
        assert [key["name"] for key in second["items"]] == ["test"]
        ended = client.delete(f"/v1/api-keys/{made['id']}")
        assert ended.json()["revoked_at"] is not None
        assert client.delete(f"/v1/api-keys/{made['id']}").json() == ended.json()
        assert httpx.get(keyed.url + "/v1/models", **own).status_code == 401


@pytest.mark.parametrize(
    ("asked", "pointer"),
    [
        ({"expires_days": 3}, "#/expires_days"),
        ({"max_queued": 11}, "#/max_queued"),
        ({"max_seconds": 10.5}, "#/max_seconds"),
        ({"name": ""}, "#/name"),
        ({"name": "a\u0000b"}, "#/name"),
        ({"scopes": []}, "#/scopes"),
        ({"scopes": ["root"]}, "#/scopes/0"),
        ({"project_id": "default"}, "#/project_id"),
    ],
)
def test_a_key_makes_none_that_may_more(keyed: Server, asked: dict[str, Any], pointer: str) -> None:
    limits = {"max_queued": 10, "max_seconds": 10.0, "expires_at": time.time() + 2 * 86_400}
    with member(keyed, "limited", **limits).client as client:
        body = {"name": "more", "scopes": ["admin"], **asked}
        found = refused(client.post("/v1/api-keys", json=body), 422, "invalid-request")
        assert found["errors"][0]["pointer"] == pointer
        made = client.post("/v1/api-keys", json={"name": "same", "scopes": ["admin"]}).json()
        assert (made["max_queued"], made["max_seconds"], made["max_bytes"]) == (10, 10.0, None)
        assert made["expires_at"] is not None


def test_who_needs_no_key_makes_none(server: Server) -> None:
    asked = {"name": "for later", "scopes": ["admin"]}
    refused(server.client.post("/v1/api-keys", json=asked), 403, "forbidden")
    refused(server.client.delete("/v1/api-keys/0000000000000000"), 403, "forbidden")


# Tickets


def test_a_ticket_opens_the_events_of_one_job(keyed: Server) -> None:
    owner = member(keyed, "streams", SUBMIT)
    with owner.client as client:
        job, other = (owner.submit(small_request(owner.model(SMALL))) for _ in range(2))
        made = client.post(f"/v1/jobs/{job}/ticket")
        assert made.status_code == 201
        url = made.json()["url"]
        assert url.startswith(f"/v1/jobs/{job}/events?ticket=")
        stream = httpx.get(keyed.url + url, timeout=60)
        assert (stream.status_code, "event: end" in stream.text) == (200, True)
        ticket = url.partition("?")[2]
        for path in (f"/v1/jobs/{other}/events", f"/v1/jobs/{job}", "/v1/jobs"):
            assert httpx.get(f"{keyed.url}{path}?{ticket}").status_code == 401
        assert httpx.delete(f"{keyed.url}/v1/jobs/{job}?{ticket}").status_code == 401
        assert httpx.delete(f"{keyed.url}/v1/jobs/{job}/events?{ticket}").status_code == 401
        for bad in (url[:-1], url + "0", url.replace(".", ".1", 1), url[: url.index("=") + 1]):
            assert httpx.get(keyed.url + bad).status_code == 401
        owner.ended(other)


def test_tickets_end_with_time_and_with_their_key(front: Front) -> None:
    key = new_key(front.keys, "vision", ADMIN)
    identifier, stored = key.split("_")[1], digest(key)
    job = "0" * 32

    def status(now: float) -> int:
        return front.ask(f"/v1/jobs/{job}/events?ticket={tickets.issue(identifier, stored, job, now)}").status_code

    assert status(time.time()) == 200
    assert front.seen[-1]["state"]["caller"].scopes == {READ}
    assert status(time.time() - tickets.SECONDS - 1) == 401
    assert front.ask(f"/v1/jobs/{job}/events?ticket={identifier}.99999999999.{'0' * 64}").status_code == 401
    front.keys.revoke(identifier)
    assert status(time.time()) == 401


def test_without_authentication_a_ticket_is_the_address(server: Server) -> None:
    job = server.submit(small_request(server.model(SMALL)))
    made = server.client.post(f"/v1/jobs/{job}/ticket").json()
    assert made == {"url": f"/v1/jobs/{job}/events", "expires_at": None}
    server.ended(job)


# The audit log


def test_changes_and_refusals_are_written_down(keyed: Server) -> None:
    owner = member(keyed, "audited")
    with owner.client as client:
        model = owner.model(SMALL)
        headers = {"X-Request-Id": "my-request-1"}
        job = client.post("/v1/jobs", json=small_request(model), headers=headers).json()["id"]
        client.get(f"/v1/jobs/{job}")
        owner.ended(job)
        client.delete(f"/v1/jobs/{job}")
        client.post("/v1/jobs", json={})
        with member(keyed, "audited", READ).client as reader:
            reader.post("/v1/models", files={"file": ("a", SMALL)})

        def rows() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = client.get("/v1/audit", params={"limit": 100}).json()["items"]
            return found if len(found) >= 5 else []

        found = wait_for(rows)
    assert {row["action"].split()[0] for row in found} == {"POST", "DELETE"}
    by_status = {(row["action"], row["status"]): row for row in found}
    assert by_status["POST /v1/models", 201]["object"] == model
    assert by_status["POST /v1/jobs", 202]["object"] == job
    assert by_status["POST /v1/jobs", 202]["request"] == "my-request-1"
    assert by_status["DELETE /v1/jobs/{job}", 409]["object"] == job
    assert by_status["POST /v1/jobs", 422]["object"] is None
    refusal = by_status["POST /v1/models", 403]
    assert refusal["key"] not in (None, by_status["POST /v1/jobs", 422]["key"])
    assert {row["address"] for row in found} == {"127.0.0.1"}


def test_requests_without_a_key_are_written_down_for_the_operator(front: Front) -> None:
    front.ask("/v1/models", headers={"Authorization": "Bearer wrong"})
    front.ask("/healthz")
    (row,) = front.audit.page(10)
    assert (row.action, row.status, row.project_id, row.address) == ("GET /v1/models", 401, None, "203.0.113.7")


def test_what_a_quota_refuses_is_written_down(keyed: Server) -> None:
    admin = member(keyed, "quota")
    with admin.client, member(keyed, "quota", SUBMIT, max_queued=0).client as client:
        assert client.post("/v1/jobs", json=small_request(admin.model(SMALL))).status_code == 429
        wait_for(lambda: 429 in [row["status"] for row in admin.client.get("/v1/audit").json()["items"]])


def test_an_audit_row_is_a_log_line_too(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    front.ask("/v1/models", new_key(front.keys, "vision", SUBMIT), method="POST")
    (line,) = [record for record in caplog.records if record.name == "provenn.audit"]
    row = front.audit.page(1)[0]
    assert json.loads(line.message)["key"] == row.key_id
    assert json.loads(line.message)["request"] == row.request_id


# No key leaks


@pytest.mark.parametrize(
    "place", ["right", "query", "encoded", "path", "bare", "basic", "header", "cookie", "id", "body"]
)
def test_a_key_is_in_no_log_and_in_no_answer(keyed: Server, caplog: pytest.LogCaptureFixture, place: str) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error"):
        caplog.set_level(logging.DEBUG, logger=name)
    key = new_key(keyed.service.keys, "secret", ADMIN)
    secret = key.rpartition("_")[2]
    right = bearer(new_key(keyed.service.keys, "secret", ADMIN))
    asked: dict[str, dict[str, Any]] = {
        "right": {"url": "/v1/models", "headers": bearer(key)},
        "query": {"url": f"/v1/models?key={key}", "headers": right},
        "encoded": {"url": f"/v1/models?key={key.replace('_', '%5F')}"},
        "path": {"url": f"/v1/models/{key}", "headers": right},
        "bare": {"url": "/v1/models", "headers": {"Authorization": key}},
        "basic": {"url": "/v1/models", "headers": {"Authorization": f"Basic {key}"}},
        "header": {"url": "/v1/models", "headers": {"X-Api-Key": key}},
        "cookie": {"url": "/v1/models", "headers": {"Cookie": f"key={key}"}},
        "id": {"url": "/v1/models", "headers": {**right, "X-Request-Id": key}},
        "body": {"url": "/v1/jobs", "method": "POST", "json": {"model": key}, "headers": right},
    }
    request = {"method": "GET", **asked[place]}
    with httpx.Client(base_url=keyed.url) as client:
        response = client.request(**request)
    assert response.status_code == {"right": 200, "id": 200, "body": 422}.get(place, 401)
    assert secret not in response.text
    assert secret not in str(response.headers)
    ours = [record for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))]
    assert secret not in "\n".join(record.getMessage() for record in ours)
    with keyed.service.database.reading() as session:
        assert secret not in str([vars(row) for row in session.scalars(select(AuditRow))])


def test_a_key_in_an_internal_error(
    keyed: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(keyed.service.catalogue), "model", lambda *_: 1 / 0)
    with member(keyed, "mistakes").client as client:
        secret = client.headers["Authorization"].rpartition("_")[2]
        response = client.get("/v1/models/x")
    assert response.status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert secret not in caplog.text + response.text


@pytest.mark.parametrize("ticket", [True, False])
def test_a_ticket_is_in_no_log(front: Front, caplog: pytest.LogCaptureFixture, ticket: bool) -> None:
    caplog.set_level(logging.DEBUG)
    key = new_key(front.keys, "vision", READ)
    text = tickets.issue(key.split("_")[1], digest(key), "0" * 32, time.time()) if ticket else "wrong-ticket"
    front.ask(f"/v1/jobs/{'0' * 32}/events?after=3&ticket={text}")
    if ticket:
        assert front.seen[-1]["query_string"] == b"after=3&ticket=redacted"
    assert text not in "\n".join(r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore")))


def test_a_key_is_found_in_any_disguise() -> None:
    key = mint()[1].encode()
    for text in (key, b"x" + key, key.replace(b"_", b"%5f"), b"%70vn" + key[3:], key[:30]):
        assert shows_key(text)
    assert not shows_key(b"pvn_something_else")


# The client


def test_the_client_sends_its_key(keyed: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROVENN_API_KEY", raising=False)
    key = new_key(keyed.service.keys, "client", SUBMIT)
    with Client(keyed.url, key=key) as client:
        assert client.upload(SMALL).input_shape == [4]
        assert key not in repr(client)
    with Client(keyed.url) as client, pytest.raises(RequestRefused, match=r"API key.*HTTP 401"):
        client.upload(SMALL)
    monkeypatch.setenv("PROVENN_API_KEY", f" {key}\n")
    with Client(keyed.url) as client:
        assert client.upload(SMALL).input_shape == [4]
    with Client(keyed.url, key="pvn_wrong") as client, pytest.raises(RequestRefused, match="HTTP 401"):
        client.upload(SMALL)


@pytest.mark.parametrize("bad", ["two\nlines", "a b", "schlüssel", "\x00"])
def test_a_key_that_cannot_be_sent_is_not_shown_either(bad: str) -> None:
    with pytest.raises(ServiceError, match="PROVENN_API_KEY") as error:
        Client("http://127.0.0.1", key=bad)
    assert bad not in str(error.value)


def test_the_rules_are_of_every_route() -> None:
    assert routes() == set(RULES)


def test_grants_are_kept(front: Front) -> None:
    grant = Grant("all", frozenset(Scope), 2e9, 1, 2, 3.5)
    row, _ = front.keys.create(front.keys.project("vision").id, grant)
    found = front.keys.get(row.id)
    assert found is not None
    kept = (found.name, found.scopes, found.expires_at, found.max_queued, found.max_bytes, found.max_seconds)
    assert kept == ("all", "read submit admin", 2e9, 1, 2, 3.5)
