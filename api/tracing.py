"""OpenTelemetry, where it is installed and asked for: a span a request, and one an attempt at a job.

Spans have what the logs have: method, route, status, ids. Paths, queries and headers stay here: there may be secrets in
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenn.api.requests import request_id
from provenn.verifier.errors import ProvennError

if TYPE_CHECKING:
    from fastapi import FastAPI
    from opentelemetry.sdk.trace import TracerProvider

UNTRACED = frozenset({"/healthz", "/readyz", "/metrics"})
PATIENCE = 3.0
"""Seconds for one batch of spans, tries included: as long does the end of a process wait for a dead collector."""
_provider: TracerProvider | None = None


class TracingUnavailable(ProvennError):
    """Traces are asked for, but what sends them is not installed."""


def start(endpoint: str | None) -> None:
    """Sends spans to an OTLP endpoint from now on; None: none are made.   Raises: TracingUnavailable."""
    global _provider
    if endpoint is None:
        return
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise TracingUnavailable(
            'PROVENN_TRACE_ENDPOINT needs OpenTelemetry: pip install "provenn[tracing]"'
        ) from error
    provider = TracerProvider(resource=Resource.create({"service.name": "provenn"}))
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=PATIENCE)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _provider = provider


def flush() -> None:
    """Sends what has not been sent; a process that ends by a signal has no other chance."""
    if _provider is not None:
        _provider.force_flush()


def watch(app: FastAPI) -> None:
    """A span of every request but those of probes, where spans are made."""
    if _provider is not None:
        app.add_middleware(Traced, provider=_provider)


class Traced:
    """A span of every request, within the trace that its `traceparent` names."""

    def __init__(self, app: ASGIApp, provider: TracerProvider) -> None:
        self._app, self._tracer = app, provider.get_tracer("provenn")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http" or scope["path"] in UNTRACED:
            await self._app(scope, receive, send)
            return
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        status = 500

        async def relay(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        given = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        with self._tracer.start_as_current_span(
            scope["method"], extract(given), SpanKind.SERVER, record_exception=False, set_status_on_exception=False
        ) as span:
            try:
                await self._app(scope, receive, relay)
            finally:
                route = getattr(scope.get("route"), "path", None)
                span.update_name(f"{scope['method']} {route or 'none'}")
                span.set_attributes({"http.request.method": scope["method"], "http.response.status_code": status})
                span.set_attributes({"http.route": route or "none", "provenn.request": request_id.get() or ""})
                if status >= 500:
                    span.set_status(StatusCode.ERROR)


@contextmanager
def span(name: str, **attributes: str | int | float) -> Iterator[None]:
    """While it lasts a span of that name is open, where spans are made; its attributes are `provenn.NAME`."""
    if _provider is None:
        yield
        return
    ours = {f"provenn.{key}": value for key, value in attributes.items()}
    with _provider.get_tracer("provenn").start_as_current_span(name, attributes=ours):
        yield
