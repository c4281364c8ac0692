"""Waiting for a job to be over, without asking again and again."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from fastapi.concurrency import run_in_threadpool

from provenn.api.jobs.model import State
from provenn.api.service import Service

LONGEST = 30.0
"""Seconds: what stands between client and service often closes a connection that is silent for a minute."""
REREAD_SECONDS = 5.0
"""How long a listener trusts that nobody changed the row without saying so, where one process does all changes."""


def reread_seconds(parts: Service) -> float:
    """Between two looks at a row that nobody has said anything about."""
    return parts.settings.poll_seconds if parts.database.shared else REREAD_SECONDS


async def over(parts: Service, job: str, seconds: float) -> None:
    """Returns once the job is over, or the service is about to stop, or after so many seconds."""
    end = time.monotonic() + seconds
    with parts.watch.listen(job) as change:
        while not parts.watch.closed and (left := end - time.monotonic()) > 0:
            change.clear()
            row = await run_in_threadpool(parts.jobs.get, job)
            if row is None or State(row.state).final:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), min(left, reread_seconds(parts)))
