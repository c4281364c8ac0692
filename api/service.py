"""The parts a route needs, put together once by `app.create_app`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from provenn.api.audit import AuditLog
from provenn.api.backends import Backends
from provenn.api.blobs import Blobs
from provenn.api.catalogue import Catalogue
from provenn.api.database import Database
from provenn.api.jobs.deliveries import Deliveries
from provenn.api.jobs.engine import Engine
from provenn.api.jobs.nodes import Nodes
from provenn.api.jobs.store import JobStore
from provenn.api.jobs.submissions import Submissions
from provenn.api.jobs.watch import Watch
from provenn.api.keys import Keys
from provenn.api.limiting import Limits
from provenn.api.metrics import Metrics
from provenn.api.settings import Settings
from provenn.api.signing_keys import Keyring
from provenn.api.webhook_sending import Sender


@dataclass(frozen=True)
class Service:
    """Everything behind the routes."""

    settings: Settings
    database: Database
    blobs: Blobs
    catalogue: Catalogue
    jobs: JobStore
    watch: Watch
    engine: Engine
    keyring: Keyring
    submissions: Submissions
    webhooks: Deliveries
    sender: Sender
    keys: Keys
    audit: AuditLog
    limits: Limits
    nodes: Nodes
    metrics: Metrics
    backends: Backends


async def _service(connection: HTTPConnection) -> Service:
    service: Service = connection.app.state.service
    return service


Parts = Annotated[Service, Depends(_service)]
