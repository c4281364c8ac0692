"""Tickets for event streams, where no header can be sent."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, Field

from provenn.api import tickets, wire
from provenn.api.auth import Reader
from provenn.api.problems import not_found
from provenn.api.service import Parts

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


class Ticket(wire.Response):
    """Where a job can be followed without a header."""

    url: str = Field(description="path and query of the event stream: secret until it expires")
    expires_at: AwareDatetime | None = Field(description="when it can be opened last; null: at any time")


@router.post("/{job}/ticket", status_code=201, summary="Make a ticket for a job's events")
async def ticket(job: str, who: Reader, parts: Parts) -> Ticket:
    """An address that an EventSource can open within a minute, with no key; it stays open as long as any."""
    if await run_in_threadpool(parts.jobs.get, job, who.project) is None:
        raise not_found("job", job)
    url, now = f"/v1/jobs/{job}/events", time.time()
    known = None if who.key is None else await parts.keys.find(who.key)
    if known is None:
        return Ticket(url=url, expires_at=None)
    issued = tickets.issue(known.id, known.digest, job, now)
    return Ticket(url=f"{url}?ticket={issued}", expires_at=datetime.fromtimestamp(int(now) + tickets.SECONDS, UTC))
