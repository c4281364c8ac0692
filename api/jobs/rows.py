"""Changes of one job row, within a transaction of the caller's: a legal move, its time, its reason, its record."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from provenn.api.jobs.deliveries import announce
from provenn.api.jobs.model import Event, State, transition
from provenn.api.tables import JobRow, TransitionRow

FALSIFIED = "falsified"
"""The verdict of a row whose counterexample settles a property."""


def move(session: Session, job: JobRow, event: Event, reason: str | None) -> None:
    """Makes the move, and what follows from it.   Raises: IllegalTransition."""
    now = time.time()
    before, state = State(job.state), transition(State(job.state), event)
    job.state, job.reason = state, reason
    if before is State.RUNNING:
        if job.owner is not None:
            job.compute_seconds += now - (job.started_at or now)
        job.owner = job.lease_until = None
    record(session, job)
    if state.final:
        job.finished_at = now
        _settle(session, job)
        announce(session, job)


def appear(session: Session, job: JobRow) -> None:
    """A row that is in the table by now has its first state, which may be its last."""
    record(session, job)
    if State(job.state).final:
        announce(session, job)


def record(session: Session, job: JobRow) -> None:
    """Writes down the state that the row has now."""
    touch(job)
    session.add(
        TransitionRow(
            job_id=job.id, change=job.change, state=job.state, attempt=job.attempt, reason=job.reason, at=job.changed_at
        )
    )


def touch(job: JobRow) -> None:
    """The row changes: its events go on."""
    job.change, job.changed_at = (job.change or 0) + 1, time.time()


def failed(parts: Sequence[Any]) -> str | None:
    """Why the whole job fails, if a part has failed: rows of parts, in order."""
    if any(part.verdict == FALSIFIED and part.kind == "specification" for part in parts):
        return None
    lost = [part for part in parts if part.state not in (State.SUCCEEDED, State.TIMED_OUT)]
    lost.sort(key=lambda part: part.state != State.FAILED)  # the others were cancelled because of it
    return f"part {lost[0].part + 1} of {len(parts)} {lost[0].state}: {lost[0].reason}" if lost else None


def _settle(session: Session, part: JobRow) -> None:
    """A part is over: its parent may be waiting for nothing else, and goes on then."""
    if part.parent_id is None:
        return
    parent = session.scalar(select(JobRow).where(JobRow.id == part.parent_id).with_for_update())
    if parent is None or State(parent.state).final:
        return
    parent.waiting -= 1
    parent.done += part.items
    touch(parent)
    if parent.waiting == 0 and parent.state == State.RUNNING:
        parent.phase = "joining"
        move(session, parent, Event.REQUEUE, "its parts are over")
        return
    why = _decided(part)
    if why is not None:
        others = select(JobRow).where(JobRow.parent_id == parent.id, JobRow.state.in_((State.QUEUED, State.RUNNING)))
        for other in session.scalars(others.with_for_update()).all():
            move(session, other, Event.CANCEL, why)


def _decided(part: JobRow) -> str | None:
    """Why the other parts need not go on, if this one settles what becomes of the whole."""
    if part.state == State.FAILED:
        return "another part has failed"
    if part.verdict == FALSIFIED and part.kind == "specification":
        return "another part has found a counterexample"
    return None
