"""Changes of one job row, within a transaction of the caller's: a legal move, its time, its reason, its record."""

from __future__ import annotations

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from provenn.api.jobs.deliveries import announce
from provenn.api.jobs.model import Event, State, transition
from provenn.api.tables import JobRow, TransitionRow
from provenn.solvers.base import Verdict


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
    if part.verdict == Verdict.FALSIFIED and part.kind == "specification":
        return "another part has found a counterexample"
    return None
