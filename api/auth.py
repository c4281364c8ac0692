"""Who asks: the project and the rights that a request has, settled before its body is read."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends, Security
from fastapi.security import HTTPBearer
from fastapi_problem.error import Problem
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Connection

from provenn.api import tickets, web
from provenn.api.exposure import is_address
from provenn.api.keys import Known, Scope, allows, shows_key
from provenn.api.problems import INVALID_REQUEST, UNAVAILABLE, Kind, problem
from provenn.api.requests import address, header, refuse
from provenn.api.service import Service
from provenn.api.settings import Settings
from provenn.api.tables import DEFAULT_PROJECT

UNAUTHORIZED = Kind("unauthorized", 401, "Who asks is not known")
FORBIDDEN = Kind("forbidden", 403, "Who asks may not do this")
OPEN = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs"}) | web.paths()
"""What needs no key: what probes ask for, and what is the same in every installation, such as the web page."""
EVENTS = re.compile(r"/v1/jobs/([0-9a-f]+)/events", re.ASCII)
TICKET = re.compile(rb"(^|&)ticket=[^&]*")
SAFE = ("GET", "HEAD", "OPTIONS")
BEARER = HTTPBearer(auto_error=False, description="An API key, as `provenn keys create` prints it.")


@dataclass(frozen=True)
class Caller:
    """project: whose objects can be seen; key: the API key, None without authentication."""

    project: str
    key: str | None
    scopes: frozenset[Scope]


def _needs(needed: Scope) -> Callable[..., Coroutine[Any, Any, Caller]]:
    async def caller(connection: HTTPConnection, _: Annotated[object, Security(BEARER)]) -> Caller:
        found = connection.scope["state"]["caller"]
        if found is None:
            raise unauthorized("this needs an API key")
        if not allows(found.scopes, needed):
            granted = ", ".join(sorted(found.scopes))
            raise problem(FORBIDDEN, f"this needs a key with the scope {needed}; this one has: {granted}", scope=needed)
        return Caller(found.project, found.key, found.scopes)

    return caller


Reader = Annotated[Caller, Depends(_needs(Scope.READ))]
Submitter = Annotated[Caller, Depends(_needs(Scope.SUBMIT))]
Admin = Annotated[Caller, Depends(_needs(Scope.ADMIN))]


async def _operates(who: Admin) -> Caller:
    if who.project != DEFAULT_PROJECT:
        detail = f"this is about every project: it needs a key of the project {DEFAULT_PROJECT}"
        raise problem(FORBIDDEN, detail, scope=Scope.ADMIN)
    return who


Operator = Annotated[Caller, Depends(_operates)]
"""An admin of the project `default`: may see what is about the machine, and so about every project."""


def unauthorized(detail: str) -> Problem:
    """401, with what to send instead."""
    return problem(UNAUTHORIZED, detail, headers={"WWW-Authenticate": 'Bearer realm="provenn"'})


class Gate:
    """Lets nobody past who may not ask at all, or who asks too often; the rest have a `caller` in their state.

    A refused request's body is never read. What needs which scope the routes say.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Connection, receive: Receive, send: Send) -> None:
        """Passes on what is not HTTP: there the routes find no caller."""
        if scope["type"] == "http":
            state = scope.setdefault("state", {})
            try:
                state["caller"] = await self._admit(scope, scope["app"].state.service)
            except Problem as refusal:
                await refuse(refusal, scope, receive, send)
                return
            except SQLAlchemyError as error:
                detail = f"the database does not answer ({type(error).__name__})"
                await refuse(problem(UNAVAILABLE, detail), scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Connection, service: Service) -> Caller | None:
        """Who asks; None for anybody, where that suffices.   Raises: a problem; SQLAlchemyError."""
        where = address(scope)
        if "\0" in scope["path"]:
            raise problem(INVALID_REQUEST, "the path has a character that no name has")
        if _clear_keys(scope):
            await service.limits.count_failure(where)
            raise unauthorized("an API key was sent in the URL, which logs keep: revoke it, and send keys as header")
        if self._settings.authentication == "none":
            self._refuse_other_sites(scope)
            await service.limits.count_address(where)
            return Caller(DEFAULT_PROJECT, None, frozenset(Scope))
        presented = header(scope, b"authorization")
        if presented is None and scope["path"] in OPEN:
            await service.limits.count_address(where)
            return None
        known, granted = await _holder(scope, service, presented)
        ended = None if known is None else known.ended(time.time())
        if known is not None and ended is None:
            await service.limits.count_key(known.id)
            return Caller(known.project, known.id, granted)
        scope["state"]["accused"] = known
        await service.limits.count_failure(where)
        raise unauthorized(ended or "this needs an API key (Authorization: Bearer KEY)")

    def _refuse_other_sites(self, scope: Connection) -> None:
        """Without keys, a page of another site must not use the service of whoever looks at it.

        A name that is not this machine's may be the other site's own, made to lead here (DNS rebinding).
        """
        if self._settings.public_without_authentication:
            return
        host = (header(scope, b"host") or b"").decode("latin-1")
        if host and not _is_ours(host, self._settings.host):
            raise problem(FORBIDDEN, f"without authentication the service answers to its address, not to '{host}'")
        origin = (header(scope, b"origin") or b"").decode("latin-1")
        allowed = {f"{scope.get('scheme', 'http')}://{host}", *self._settings.origins}
        if origin and scope["method"] not in SAFE and origin not in allowed:
            raise problem(FORBIDDEN, "a page of another site asks: PROVENN_CORS_ORIGINS does not allow it")


async def _holder(
    scope: Connection, service: Service, presented: bytes | None
) -> tuple[Known | None, frozenset[Scope]]:
    """The key behind a request, valid or not, and what it grants: less by a ticket than by itself."""
    ticket = _take_ticket(scope)
    if presented is not None:
        scheme, _, key = presented.decode("latin-1").partition(" ")
        known = await service.keys.verify(key.strip()) if scheme.lower() == "bearer" else None
        return known, frozenset() if known is None else known.scopes
    events = EVENTS.fullmatch(scope["path"])
    if ticket is None or events is None or scope["method"] != "GET":
        return None, frozenset()
    known = await service.keys.find(tickets.key_of(ticket) or "")
    good = known is not None and tickets.valid(ticket, known.digest, events[1], time.time())
    return known if good else None, frozenset({Scope.READ})


def _take_ticket(scope: Connection) -> str | None:
    """The ticket of the query, which no log sees."""
    query = scope["query_string"]
    if b"ticket=" not in query:
        return None
    scope["query_string"] = TICKET.sub(rb"\1ticket=redacted", query)
    tickets_given = [value for name, value in parse_qsl(query.decode("latin-1")) if name == "ticket"]
    return tickets_given[0] if tickets_given else None


def _clear_keys(scope: Connection) -> bool:
    """Whether the URL has an API key in it; then it is blank from now on, for every log."""
    if not shows_key(scope["path"].encode("utf-8", "replace")) and not shows_key(scope["query_string"]):
        return False
    scope.update(path="/redacted", raw_path=b"/redacted", query_string=b"")
    return True


def _is_ours(host: str, ours: str) -> bool:
    """Whether a Host header names an address, this machine, or what the service listens on."""
    name = host[: host.index("]") + 1].strip("[]") if host.startswith("[") else host.partition(":")[0]
    return name.lower() in ("localhost", ours.lower()) or is_address(name)
