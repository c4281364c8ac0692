"""The audit log: who changed what, and who was refused; a row and a log line each, once the answer is known."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence

from fastapi.concurrency import run_in_threadpool
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from provenn.api.database import Database
from provenn.api.requests import address, request_id
from provenn.api.tables import AuditRow

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
REFUSED = frozenset({401, 403})
TOO_MANY = 429
LONGEST = 200
log = logging.getLogger("provenn.audit")


class AuditLog:
    """All that is ever done to audit rows: they are added and read."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: AuditRow) -> None:
        """Keeps a row.   Raises: SQLAlchemyError."""
        with self._database.writing() as session:
            session.add(row)

    def has(self, identifier: str, project: str) -> bool:
        """Whether the project has this row."""
        query = select(AuditRow.sequence).where(AuditRow.id == identifier, AuditRow.project_id == project)
        with self._database.reading() as session:
            return session.scalar(query) is not None

    def page(self, limit: int, project: str | None = None, before: str | None = None) -> Sequence[AuditRow]:
        """The newest rows, at most `limit`: of one project, or of all and of nobody's."""
        query = select(AuditRow)
        if project is not None:
            query = query.where(AuditRow.project_id == project)
        if before is not None:
            last = query.where(AuditRow.id == before).with_only_columns(AuditRow.sequence)
            query = query.where(AuditRow.sequence < last.scalar_subquery())
        with self._database.reading() as session:
            return session.scalars(query.order_by(AuditRow.sequence.desc()).limit(limit)).all()


class Audited:
    """Writes down every request that may change something, and every one that is refused for who asks.

    What a rate limit refuses leaves no row: nobody can fill the database faster than the limits allow. The client
    does not wait for the row; if it cannot be written, the log line is there.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes everything on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, made = 500, ""

        async def relay(message: Message) -> None:
            nonlocal status, made
            if message["type"] == "http.response.start":
                status = message["status"]
                made = next((v.decode("latin-1") for name, v in message["headers"] if name == b"location"), "")
            await send(message)

        try:
            await self._app(scope, receive, relay)
        finally:
            limited = status == TOO_MANY and scope["state"].get("caller") is None  # by rate: a quota knows who asks
            if status in REFUSED or (scope["method"] in CHANGING and not limited):
                await _write(scope, _row(scope, status, made))


async def _write(scope: Scope, row: AuditRow) -> None:
    log.log(logging.WARNING if row.status in REFUSED else logging.INFO, "%s", json.dumps(described(row)))
    try:
        await run_in_threadpool(scope["app"].state.service.audit.add, row)
    except SQLAlchemyError as error:
        log.error("the audit row of request %s could not be written (%s)", row.request_id, type(error).__name__)


def described(row: AuditRow) -> dict[str, str | int | float | None]:
    """The row as JSON says it."""
    return {
        "at": row.at,
        "project": row.project_id,
        "key": row.key_id,
        "action": row.action,
        "object": row.object,
        "status": row.status,
        "address": row.address,
        "request": row.request_id,
    }


def _row(scope: Scope, status: int, made: str) -> AuditRow:
    """action: method and route; object: the id that the path names, or the one that was made."""
    state = scope.get("state", {})
    caller, accused = state.get("caller"), state.get("accused")
    route = getattr(scope.get("route"), "path", None)
    named = [*scope.get("path_params", {}).values(), *made.split("/")[-1:]]
    return AuditRow(
        at=time.time(),
        project_id=caller.project if caller else accused.project if accused else None,
        key_id=caller.key if caller else accused.id if accused else None,
        action=f"{scope['method']} {_plain(route or scope['path'])}",
        object=_plain(str(named[0])) or None,
        status=status,
        address=address(scope),
        request_id=request_id.get(),
    )


def _plain(text: str) -> str:
    """A stranger's text, short, and without what controls terminals and databases."""
    return "".join(c if c.isprintable() else "?" for c in text[:LONGEST])
