"""The composition root: settings in, application out; nothing else knows all the parts."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import uvicorn
from fastapi import FastAPI

from provenn.api import docs_page, logs, openapi_document, problems, tracing
from provenn.api.audit import Audited, AuditLog
from provenn.api.auth import Gate
from provenn.api.backends import Backends
from provenn.api.catalogue import Catalogue
from provenn.api.exposure import require_authentication
from provenn.api.headers import SecureHeaders, allow_origins
from provenn.api.jobs.deliveries import Deliveries
from provenn.api.jobs.submissions import Submissions
from provenn.api.keys import Keys
from provenn.api.limiting import Limits
from provenn.api.metrics import Metrics, Timed
from provenn.api.requests import RequestIds
from provenn.api.routes import (
    api_keys,
    audit,
    batches,
    certificates,
    datasets,
    demo,
    events,
    jobs,
    keys,
    metrics,
    models,
    nodes,
    page,
    schemas,
    system,
    tickets,
    webhooks,
)
from provenn.api.service import Service
from provenn.api.settings import Settings
from provenn.api.signing_keys import Keyring
from provenn.api.supervisor import supervisor
from provenn.api.webhook_sending import Sender
from provenn.api.webhooks import Deliverer
from provenn.verifier.version import provenn_version

DESCRIPTION = """A model and a specification go in; a verdict and a certificate come out.

Upload an ONNX file, queue a job, follow it, fetch the certificates and check them yourself with `provenn check`.
Every error is an RFC 9457 problem."""

SHUTDOWN_SECONDS = 5
TURN_SECONDS = 0.0005
"""How long a thread may keep the others waiting: each of them hardly computes between two waits for database or disk,
and after every one it waits for its turn, up to 5 ms by the interpreter's own choice."""


def create_app(settings: Settings) -> FastAPI:
    """The service. Its lifespan holds the data directory and runs the engine.

    Raises (at start-up): DataDirectoryInUse, SandboxUnavailable.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as stack:
            app.state.service = _open(settings, stack)
            yield

    app = FastAPI(
        title="Provenn",
        summary="Proves things about neural networks and hands back certificates that need not be trusted",
        description=DESCRIPTION,
        version=provenn_version(),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    for part in (models, datasets):
        app.include_router(part.router, max_body_size=settings.upload_limit)
    about_jobs = (jobs, batches, events, certificates)
    for other in (*about_jobs, tickets, webhooks, keys, api_keys, audit, nodes, metrics, demo, schemas, system):
        app.include_router(other.router, max_body_size=settings.request_limit)
    if settings.web_page:
        page.install(app, settings)
    if settings.docs_page:
        docs_page.install(app)
    problems.install(app)
    openapi_document.install(app)
    _surround(app, settings)
    return app


def _surround(app: FastAPI, settings: Settings) -> None:
    """What every request passes: from the innermost to the outermost."""
    app.add_middleware(Gate, settings=settings)
    app.add_middleware(Audited)
    allow_origins(app, settings.origins)
    app.add_middleware(SecureHeaders, behind_tls=settings.behind_tls)
    app.add_middleware(Timed)
    tracing.watch(app)
    app.add_middleware(RequestIds)


class Server(uvicorn.Server):
    """Ends the event streams before it waits for connections to close."""

    def __init__(self, settings: Settings, log_level: str = "info") -> None:
        """Raises: PublicWithoutAuthentication."""
        require_authentication(settings)
        self.app = create_app(settings)
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.host,
                port=settings.port,
                log_level=log_level,
                log_config=None,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
                forwarded_allow_ips=settings.trusted_proxies,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets every request in flight finish, for SHUTDOWN_SECONDS at most."""
        self.app.state.service.watch.close()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Runs the service until it is interrupted.   Raises: TracingUnavailable, PublicWithoutAuthentication."""
    logs.configure(settings.log_format, settings.log_level)
    tracing.start(settings.trace_endpoint)
    sys.setswitchinterval(TURN_SECONDS)
    Server(settings, settings.log_level).run()


def _open(settings: Settings, stack: ExitStack) -> Service:
    """Opens every part; the stack closes them in reverse."""
    stack.callback(tracing.flush)
    found = stack.enter_context(supervisor(settings))
    database, blobs, keyring = found.database, found.blobs, Keyring.of(settings)
    submissions = Submissions(database, found.jobs, blobs, settings)
    deliveries, sender = Deliveries(database), Sender(settings.webhook_private)
    deliverer = Deliverer(deliveries, sender, settings.poll_seconds)
    deliverer.start()
    stack.callback(deliverer.stop)
    return Service(settings, database, blobs, Catalogue(database), found.jobs, found.watch, found.engine, keyring,
                   submissions, deliveries, sender, Keys(database), AuditLog(database), Limits(settings),
                   found.nodes, Metrics(database, found.nodes), Backends(found.engine.ask))  # fmt: skip
