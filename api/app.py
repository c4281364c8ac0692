"""The composition root: settings in, application out; nothing else knows all the parts."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI

from provenn.api import problems
from provenn.api.blobs import Blobs
from provenn.api.catalogue import Catalogue
from provenn.api.database import Database, exclusive
from provenn.api.jobs.engine import Engine
from provenn.api.jobs.store import JobStore
from provenn.api.jobs.watch import Watch
from provenn.api.routes import certificates, jobs, models, system
from provenn.api.service import Service
from provenn.api.settings import Settings

DESCRIPTION = """A model and a specification go in; a verdict and a certificate come out.

Upload an ONNX file, queue a job, follow it, fetch the certificates and check them yourself with `provenn check`.
Every error is an RFC 9457 problem."""

SHUTDOWN_SECONDS = 5


def create_app(settings: Settings) -> FastAPI:
    """The service. Its lifespan holds the data directory and runs the engine.

    Raises (at start-up): DataDirectoryInUse.
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
        version=version("provenn"),
        lifespan=lifespan,
    )
    app.include_router(models.router, max_body_size=settings.upload_limit)
    for router in (jobs.router, certificates.router, system.router):
        app.include_router(router, max_body_size=settings.request_limit)
    problems.install(app)
    return app


class Server(uvicorn.Server):
    """Ends the event streams before it waits for connections to close."""

    def __init__(self, settings: Settings, log_level: str = "info") -> None:
        self.app = create_app(settings)
        super().__init__(
            uvicorn.Config(
                self.app,
                host=settings.host,
                port=settings.port,
                log_level=log_level,
                timeout_graceful_shutdown=SHUTDOWN_SECONDS,
                server_header=False,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets every request in flight finish, for SHUTDOWN_SECONDS at most."""
        self.app.state.service.watch.close()
        await super().shutdown(sockets)


def serve(settings: Settings) -> None:
    """Runs the service until it is interrupted."""
    Server(settings).run()


def _open(settings: Settings, stack: ExitStack) -> Service:
    """Opens every part; the stack closes them in reverse."""
    folder = settings.data_dir.resolve()
    stack.enter_context(exclusive(folder))
    database = Database(folder / "provenn.db")
    stack.callback(database.close)
    watch = Watch()
    store = JobStore(database, watch.changed)
    engine = Engine(store, folder / "blobs", settings)
    engine.start()
    stack.callback(engine.stop)
    return Service(settings, database, Blobs(folder / "blobs"), Catalogue(database), store, watch, engine)
