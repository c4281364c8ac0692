"""Who may do what: what every route is, keys of a running service, and what stands before its routes by itself."""

from __future__ import annotations

import asyncio
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from fastapi.routing import iter_route_contexts
from service_kit import SMALL, Server, small_request
from starlette.types import ASGIApp, Receive, Scope, Send

from provenn.api import web
from provenn.api.app import create_app
from provenn.api.audit import Audited, AuditLog
from provenn.api.auth import Gate
from provenn.api.database import Database
from provenn.api.headers import SecureHeaders
from provenn.api.keys import Grant, Keys
from provenn.api.keys import Scope as Right
from provenn.api.limiting import Limits
from provenn.api.requests import RequestIds
from provenn.api.settings import Settings

READ, SUBMIT, ADMIN = Right
Route = tuple[str, str]


@dataclass(frozen=True)
class Rule:
    """What a route is for a stranger. scope: the least that it needs, None: no key at all.

    hides: its path names an object of a project; lists: `items` are of the project alone; operators: for admins of the
    project `default` alone.
    """

    scope: Right | None
    hides: bool = False
    lists: bool = False
    operators: bool = False


RULES: dict[Route, Rule] = {
    ("GET", "/openapi.json"): Rule(None),
    ("GET", "/healthz"): Rule(None),
    ("GET", "/readyz"): Rule(None),
    **{("GET", path): Rule(None) for path in sorted(web.paths())},
    ("GET", "/v1/backends"): Rule(READ),
    ("GET", "/v1/demo"): Rule(READ),
    ("GET", "/v1/schemas"): Rule(READ),
    ("GET", "/v1/schemas/{schema}"): Rule(READ),
    ("GET", "/v1/keys"): Rule(READ),
    ("POST", "/v1/models"): Rule(SUBMIT),
    ("GET", "/v1/models"): Rule(READ, lists=True),
    ("GET", "/v1/models/{model}"): Rule(READ, hides=True),
    ("GET", "/v1/models/{model}/file"): Rule(READ, hides=True),
    ("POST", "/v1/datasets"): Rule(SUBMIT),
    ("GET", "/v1/datasets"): Rule(READ, lists=True),
    ("GET", "/v1/datasets/{dataset}"): Rule(READ, hides=True),
    ("POST", "/v1/batches"): Rule(SUBMIT),
    ("GET", "/v1/batches/{batch}/files/{name}"): Rule(READ, hides=True),
    ("GET", "/v1/batches/{batch}/rows/{row}"): Rule(READ, hides=True),
    ("POST", "/v1/jobs"): Rule(SUBMIT),
    ("GET", "/v1/jobs"): Rule(READ, lists=True),
    ("GET", "/v1/jobs/{job}"): Rule(READ, hides=True),
    ("GET", "/v1/jobs/{job}/request"): Rule(READ, hides=True),
    ("DELETE", "/v1/jobs/{job}"): Rule(SUBMIT, hides=True),
    ("POST", "/v1/jobs/{job}/retry"): Rule(SUBMIT, hides=True),
    ("GET", "/v1/jobs/{job}/events"): Rule(READ, hides=True),
    ("POST", "/v1/jobs/{job}/ticket"): Rule(READ, hides=True),
    ("GET", "/v1/certificates/{certificate}"): Rule(READ, hides=True),
    ("GET", "/v1/certificates/{certificate}/bundle"): Rule(READ, hides=True),
    ("GET", "/v1/certificates/{certificate}/attestation"): Rule(READ, hides=True),
    ("POST", "/v1/certificates/{certificate}/check"): Rule(READ, hides=True),
    ("POST", "/v1/webhooks"): Rule(ADMIN),
    ("GET", "/v1/webhooks"): Rule(ADMIN, lists=True),
    ("DELETE", "/v1/webhooks/{webhook}"): Rule(ADMIN, hides=True),
    ("POST", "/v1/api-keys"): Rule(ADMIN),
    ("GET", "/v1/api-keys"): Rule(ADMIN, lists=True),
    ("DELETE", "/v1/api-keys/{key}"): Rule(ADMIN, hides=True),
    ("GET", "/v1/audit"): Rule(ADMIN, lists=True),
    ("GET", "/v1/nodes"): Rule(ADMIN, operators=True),
    ("GET", "/metrics"): Rule(ADMIN, operators=True),
}
"""Every route of the service: one that is not here has not been thought about."""
NOBODYS = {
    "model": "0" * 64,
    "dataset": "0" * 64,
    "job": "0" * 32,
    "batch": "0" * 32,
    "certificate": "0" * 64,
    "webhook": "0" * 32,
    "key": "0" * 16,
}
"""Names that nothing has, by what they would name."""


def routes() -> set[Route]:
    """What the application answers to."""
    found = iter_route_contexts(create_app(Settings()).routes)
    return {(method, str(r.path)) for r in found for method in (r.methods or {"?"}) if method != "HEAD"}


def new_key(keys: Keys, project: str, scope: Right, **grant: Any) -> str:
    """The text of a new key."""
    return keys.create(keys.project(project).id, Grant("test", frozenset({scope}), **grant))[1]


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def member(server: Server, project: str, scope: Right = ADMIN, **grant: Any) -> Server:
    """The same server, seen with a new key of a project; close its client."""
    found = Server(server.url, server.service)
    found.client.headers.update(bearer(new_key(server.service.keys, project, scope, **grant)))
    return found


def possessions(owner: Server) -> dict[str, str]:
    """The owner makes one of everything, and what it is called."""
    model = owner.model(SMALL)
    job = owner.submit(small_request(model, epsilons=[0.0001]) | {"cache": False})
    items = owner.ended(job)["result"]["items"]
    dataset = owner.dataset([[0.1, 0.2, 0.3, 0.4]], [1])
    asked = {"model": model, "dataset": dataset, "epsilons": [0.0001]}
    batch = owner.client.post("/v1/batches", json=asked).json()["id"]
    owner.ended(batch)
    webhook = owner.client.post("/v1/webhooks", json={"url": "http://127.0.0.1:9/hook"})
    key = owner.client.post("/v1/api-keys", json={"name": "another", "scopes": ["read"]})
    return {
        "model": model,
        "dataset": dataset,
        "job": job,
        "batch": batch,
        "certificate": items[0]["certificate"],
        "webhook": webhook.json()["id"],
        "key": key.json()["id"],
    }


class Front:
    """All that stands before the routes, over a database, and an echo of the caller behind it."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.settings = Settings(**({"authentication": "keys"} | settings))
        self.database = Database(url)
        self.keys, self.audit = Keys(self.database), AuditLog(self.database)
        self.service = SimpleNamespace(keys=self.keys, audit=self.audit, limits=Limits(self.settings))
        self._app = SimpleNamespace(state=SimpleNamespace(service=self.service))
        gate = Gate(self._echo, self.settings)
        self._stack: ASGIApp = RequestIds(SecureHeaders(Audited(gate), self.settings.behind_tls))
        self.seen: list[Scope] = []

    def close(self) -> None:
        self.database.close()

    def ask(self, path: str, key: str | None = None, address: str = "203.0.113.7", **request: Any) -> httpx.Response:
        """The answer to a request from an address."""
        headers = {**(bearer(key) if key else {}), **request.pop("headers", {})}
        method = request.pop("method", "GET")
        host = request.pop("host", "127.0.0.1")

        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self._call, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
                return await client.request(method, path, headers=headers, **request)

        return asyncio.run(send())

    async def _call(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._stack({**scope, "app": self._app}, receive, send)

    async def _echo(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.seen.append(scope)
        caller = scope["state"]["caller"]
        body = None if caller is None else {"project": caller.project, "scopes": sorted(caller.scopes)}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def sqlite(folder: Path) -> str:
    """The URL of a new database in a folder."""
    return f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}"
