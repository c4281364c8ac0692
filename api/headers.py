"""What every answer says to browsers: take nothing of it for something else, embed it nowhere, keep it nowhere."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
BEHIND_TLS = {b"strict-transport-security": b"max-age=31536000"}
ASKED = ["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-Id"]
SHOWN = ["Location", "Retry-After", "X-Request-Id"]


class SecureHeaders:
    """Adds the headers that an answer does not have already."""

    def __init__(self, app: ASGIApp, behind_tls: bool) -> None:
        self._app = app
        self._headers = ALWAYS | (BEHIND_TLS if behind_tls else {})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""

        async def relay(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name for name, _ in message["headers"]}
                missing = [pair for pair in self._headers.items() if pair[0] not in present]
                message["headers"] = [*message["headers"], *missing]
            await send(message)

        await self._app(scope, receive, relay)


def allow_origins(app: FastAPI, origins: Sequence[str]) -> None:
    """Lets pages of these origins use the service (CORS); without any, browsers let none."""
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=ASKED,
            expose_headers=SHOWN,
        )
