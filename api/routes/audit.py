"""The audit log of the caller's own project."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from pydantic import AwareDatetime, Field

from provenn.api import wire
from provenn.api.auth import Admin
from provenn.api.routes.paging import Cursor, Limit, unknown_cursor
from provenn.api.service import Parts

router = APIRouter(prefix="/v1/audit", tags=["access"])


class AuditEntry(wire.Response):
    """One request that may have changed something, or was refused for who asked."""

    id: str
    at: AwareDatetime
    key: str | None = Field(description="id of the API key; null: there was none")
    action: str = Field(description="method and route")
    object: str | None = Field(description="id of what it was about, or of what it made")
    status: int = Field(description="HTTP status of the answer")
    address: str | None
    request: str | None = Field(description="X-Request-Id")


class Audit(wire.Response):
    """A page of the audit log."""

    items: list[AuditEntry]
    next: str | None = Field(description="cursor of the next page; null: this is the last")


@router.get("", summary="Read the audit log")
def audit(who: Admin, parts: Parts, limit: Limit = 20, cursor: Cursor = None) -> Audit:
    """The newest entries first. Requests without a key of the project are in `provenn keys audit` alone."""
    if cursor is not None and not parts.audit.has(cursor, who.project):
        raise unknown_cursor(cursor)
    rows = parts.audit.page(limit, who.project, cursor)
    items = [
        AuditEntry(
            id=row.id,
            at=datetime.fromtimestamp(row.at, UTC),
            key=row.key_id,
            action=row.action,
            object=row.object,
            status=row.status,
            address=row.address,
            request=row.request_id,
        )
        for row in rows
    ]
    return Audit(items=items, next=rows[-1].id if len(rows) == limit else None)
