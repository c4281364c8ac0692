"""A job as a stream of events: every state it has been in, progress now and then, the end."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from provenn.api.jobs.model import State
from provenn.api.routes.jobs import Existing
from provenn.api.routes.shown import status, transition
from provenn.api.routes.waiting import reread_seconds
from provenn.api.service import Parts
from provenn.api.tables import JobRow, TransitionRow

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
PROGRESS_SECONDS = 0.25
"""Between two events of progress, at least."""
LastSeen = Annotated[
    str | None, Header(alias="Last-Event-ID", description="id of the last event seen: only later states are sent")
]


@dataclass
class Feed:
    """What one listener has been told. seen: the largest id so far; told: the change of its last progress.

    due: when it may be told of progress again (a time.monotonic value).
    """

    seen: int
    told: int = 0
    due: float = -math.inf

    def events(self, job: JobRow, states: Sequence[TransitionRow], now: float) -> Iterator[ServerSentEvent]:
        """The states since `seen`, then how far the job is. Ids increase; what would repeat one has none."""
        for state in states:
            self.seen = state.change
            yield ServerSentEvent(data=transition(state), event="state", id=str(state.change))
        if State(job.state).final:
            yield ServerSentEvent(data=status(job), event="end")
        elif self.told != job.change and now >= self.due:
            number = str(job.change) if job.change > self.seen else None
            self.seen = self.told = job.change
            self.due = now + PROGRESS_SECONDS
            yield ServerSentEvent(data=status(job), event="progress", id=number)

    def patience(self, job: JobRow, now: float, longest: float) -> float:
        """Seconds until it is worth looking again, where nothing wakes it before."""
        return longest if self.told == job.change else min(longest, max(0.0, self.due - now))


def seen(last: str | None) -> int:
    """The change that a Last-Event-ID names; 0 where it is none of ours."""
    return int(last) if last is not None and last.isascii() and last.isdigit() and len(last) < 10 else 0


@router.get("/{job}/events", response_class=EventSourceResponse, summary="Stream a job's progress")
async def events(row: Existing, parts: Parts, last_event_id: LastSeen = None) -> AsyncIterable[ServerSentEvent]:
    """A `state` event a state, `progress` between them (the job without its result), one `end`.

    A stream that closes without `end` means that the server stopped: ask again with the last id as `Last-Event-ID`.
    """
    feed = Feed(seen(last_event_id))
    with parts.watch.listen(row.id) as change:
        while not parts.watch.closed:
            change.clear()
            news = await run_in_threadpool(parts.jobs.news, row.id, feed.seen)
            if news is None:
                return
            job, states = news
            for event in feed.events(job, states, time.monotonic()):
                yield event
            if State(job.state).final:
                return
            with suppress(TimeoutError):
                patience = feed.patience(job, time.monotonic(), reread_seconds(parts))
                await asyncio.wait_for(change.wait(), patience)
