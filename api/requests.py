"""Which request is being answered: the id that its log lines, its audit row and its answer share, and its sender."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar

from fastapi_problem.error import Problem
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenn.api.keys import shows_key
from provenn.api.problems import document

HEADER = b"x-request-id"
WELL_FORMED = re.compile(rb"[A-Za-z0-9._-]{8,64}")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that this code runs for; None outside of any."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The header's value; None if it is missing, or there several times."""
    values = [value for found, value in scope["headers"] if found == name]
    return values[0] if len(values) == 1 else None


def address(scope: Scope) -> str:
    """Who is at the other end, as far as the connection or a trusted proxy says."""
    client = scope.get("client")
    return client[0] if client else "unknown"


async def refuse(found: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers with the problem, before any route has seen the request."""
    headers = None if found.headers is None else dict(found.headers)
    answer = JSONResponse(document(found), found.status, headers=headers, media_type="application/problem+json")
    await answer(scope, receive, send)


class RequestIds:
    """Every request gets an id, the client's own if that is well formed; its answer has it as X-Request-Id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header(scope, HEADER) or b""
        accepted = WELL_FORMED.fullmatch(given) is not None and not shows_key(given)
        identifier = given if accepted else uuid.uuid4().hex.encode()

        async def relay(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (HEADER, identifier)]
            await send(message)

        token = request_id.set(identifier.decode())
        try:
            await self._app(scope, receive, relay)
        finally:
            request_id.reset(token)
