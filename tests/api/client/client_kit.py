"""A real HTTP server between client and service that fails and lies as it is told; an AsyncClient that waits."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
from cli_kit import two_layers

from provenn.api.client import AsyncClient

HOP = {"connection", "transfer-encoding", "content-length", "host", "keep-alive"}


@dataclass(frozen=True)
class Request:
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Reply:
    """What it is answered; lost: nothing, and the connection is reset; cut: this many bytes of the body alone."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    lost: bool = False
    cut: int | None = None

    @property
    def json(self) -> Any:
        """The body."""
        return json.loads(self.body)

    def telling(self, content: Any) -> Reply:
        """The same with another body."""
        return replace(self, body=json.dumps(content).encode())


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

BUSY = Reply(503, b'{"detail": "not now"}', {"Retry-After": "0"})
Lie = Callable[[Request, Reply], Reply]


class Between:
    """Passes requests on to the service at `target`.

    faults: answered instead, in turn, to requests whose method and path begin so; lies: change answers, all of them.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.seen: list[Request] = []
        self.faults: list[tuple[str, str, Reply]] = []
        self.lies: list[Lie] = []
        self.url = ""
        self._http = httpx.Client(base_url=target, timeout=60)

    def forget(self) -> None:
        """Tells the truth again, and knows nothing of what it has seen."""
        for each in (self.seen, self.faults, self.lies):
            each.clear()

    def close(self) -> None:
        """Ends the connections to the service."""
        self._http.close()

    def fail(self, method: str, path: str, *replies: Reply) -> None:
        """Answers the next requests of this kind so. A lost answer is one to a request that was passed on."""
        self.faults += [(method, path, reply) for reply in replies]

    def lie(self, path: str, change: Callable[[Any], Any]) -> None:
        """Changes what JSON answers say under this path."""

        def told(request: Request, reply: Reply) -> Reply:
            if not request.path.startswith(path) or reply.status >= 300 or not reply.body.startswith(b"{"):
                return reply
            return reply.telling(change(reply.json))

        self.lies.append(told)

    def count(self, method: str, path: str) -> int:
        """How many requests of this kind came."""
        return sum(r.method == method and r.path.startswith(path) for r in self.seen)

    def answered(self, request: Request) -> Reply:
        """What the client gets."""
        self.seen.append(request)
        for fault in self.faults:
            method, path, reply = fault
            if request.method == method and request.path.startswith(path):
                self.faults.remove(fault)
                if reply.lost or reply.cut is not None:
                    return replace(self._passed_on(request), lost=reply.lost, cut=reply.cut)
                return reply
        reply = self._passed_on(request)
        for lie in self.lies:
            reply = lie(request, reply)
        return reply

    def _passed_on(self, request: Request) -> Reply:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        answer = self._http.request(request.method, request.path, headers=headers, content=request.body)
        kept = {name: value for name, value in answer.headers.items() if name not in HOP | {"content-encoding"}}
        return Reply(answer.status_code, answer.content, kept)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 20  # one packet an answer
    between: ClassVar[Between]

    def answer(self) -> None:
        """Reads, has it answered, writes."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        reply = self.between.answered(Request(self.command, self.path, dict(self.headers), body))
        if reply.lost:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in (reply.headers | {"Content-Length": str(len(reply.body))}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(reply.body[: reply.cut])
        self.wfile.flush()
        self.close_connection = reply.cut is not None

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the base class names them

    def finish(self) -> None:
        """As always, but where the connection was reset."""
        if not self.wfile.closed and self.connection.fileno() >= 0:
            super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextmanager
def standing_between(target: str) -> Iterator[Between]:
    """A server on a free port, until the block ends."""
    found = Between(target)
    handler = type("Handler", (Handler,), {"between": found})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()
            found.close()


class Awaited:
    """An AsyncClient whose verbs are waited for: the same tests do for both clients."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = self._runner.run(self._made(*args, **settings))

    async def _made(self, *args: Any, **settings: Any) -> AsyncClient:
        return AsyncClient(*args, **settings)

    def __getattr__(self, name: str) -> Any:
        verb = getattr(self._client, name)

        async def call(*args: Any, **keywords: Any) -> Any:
            return await verb(*args, **keywords)

        return lambda *args, **keywords: self._runner.run(call(*args, **keywords))

    def every(self, verb: str, *args: Any, **keywords: Any) -> list[Any]:
        """All that an iterator yields."""

        async def collected() -> list[Any]:
            return [each async for each in getattr(self._client, verb)(*args, **keywords)]

        return self._runner.run(collected())

    def __enter__(self) -> Awaited:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.close())
        self._runner.close()
