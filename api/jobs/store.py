"""The job table is the queue: every change is one transaction, a legal move, a time and a reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from provenn.api.database import CertificateRow, Database, JobRow
from provenn.api.jobs.model import MAX_DEATHS, Event, State, after_death, transition


@dataclass(frozen=True)
class Ticket:
    """The right to report on one attempt at a job; void once the row has moved on."""

    job: str
    attempt: int


class JobStore:
    """All that is ever done to a job row. `changed(id)` is called after every commit."""

    def __init__(self, database: Database, changed: Callable[[str], None] = lambda job: None) -> None:
        self._database = database
        self._changed = changed

    def add(self, job: JobRow) -> JobRow:
        """Queues a new job."""
        job.state = State.QUEUED
        with self._database.writing() as session:
            session.add(job)
        self._changed(job.id)
        return job

    def get(self, job: str) -> JobRow | None:
        """The row, if there is one."""
        with self._database.reading() as session:
            return session.scalar(_named(job))

    def page(self, limit: int, before: int | None = None, state: State | None = None) -> Sequence[JobRow]:
        """The newest jobs, at most `limit`, older than `before` and in `state` where given."""
        query = select(JobRow).order_by(JobRow.sequence.desc()).limit(limit)
        if before is not None:
            query = query.where(JobRow.sequence < before)
        if state is not None:
            query = query.where(JobRow.state == state)
        with self._database.reading() as session:
            return session.scalars(query).all()

    def claim(self, owner: str, lease: float) -> JobRow | None:
        """Takes the oldest queued job, if any, as a new attempt leased for `lease` seconds."""
        with self._database.writing() as session:
            query = select(JobRow).where(JobRow.state == State.QUEUED).order_by(JobRow.sequence).limit(1)
            job = session.scalar(query)
            if job is None:
                return None
            _move(job, Event.CLAIM, job.reason if job.deaths else None)
            job.attempt, job.owner, job.lease_until = job.attempt + 1, owner, time.time() + lease
            job.started_at = time.time()
            job.done, job.total, job.phase = 0, job.items, "starting"
        self._changed(job.id)
        return job

    def renew(self, tickets: Iterable[Ticket], lease: float) -> None:
        """Extends the leases of attempts that are still running."""
        with self._database.writing() as session:
            for ticket in tickets:
                session.execute(_attempt(ticket).values(lease_until=time.time() + lease))

    def progress(self, ticket: Ticket, done: int, total: int, phase: str) -> bool:
        """Notes progress; False if the attempt is no longer the running one."""
        with self._database.writing() as session:
            change = _attempt(ticket).values(done=done, total=total, phase=phase, changed_at=time.time())
            alive = session.execute(change.returning(JobRow.id)).first() is not None
        if alive:
            self._changed(ticket.job)
        return alive

    def finish(self, ticket: Ticket, result: str, certificates: Sequence[str]) -> None:
        """The job succeeded: its result blob and its certificates become visible together."""

        def record(session: Session, job: JobRow) -> None:
            job.result, job.done, job.phase = result, job.total, "done"
            if certificates:
                rows = [{"id": c, "job_id": job.id, "model_id": job.model_id} for c in certificates]
                session.execute(insert(CertificateRow).on_conflict_do_nothing(), rows)

        self._report(ticket, Event.FINISH, None, record)

    def fail(self, ticket: Ticket, reason: str, error: dict[str, Any] | None = None) -> None:
        """The job cannot succeed."""

        def record(_: Session, job: JobRow) -> None:
            job.error = error

        self._report(ticket, Event.FAIL, reason, record)

    def time_out(self, ticket: Ticket, reason: str) -> None:
        """The wall-clock limit was reached."""
        self._report(ticket, Event.TIME_OUT, reason)

    def release(self, ticket: Ticket, reason: str) -> None:
        """Back into the queue through no fault of the job's."""
        self._report(ticket, Event.REQUEUE, reason)

    def died(self, ticket: Ticket, reason: str) -> None:
        """The worker died: the job is queued again, or failed if too many have."""
        with self._database.writing() as session:
            job = _running(session, ticket)
            if job is not None:
                _bury(job, reason)
        self._changed(ticket.job)

    def cancel(self, job: str) -> JobRow | None:
        """Cancels a queued or running job.   Raises: IllegalTransition if it is over."""
        with self._database.writing() as session:
            row = session.scalar(_named(job))
            if row is not None:
                _move(row, Event.CANCEL, "cancelled on request")
        self._changed(job)
        return row

    def requeue_abandoned(self, owner: str) -> None:
        """Queues again what other supervisors left running; the caller holds the data directory, so they are dead."""
        self._bury_all(select(JobRow).where(JobRow.state == State.RUNNING, JobRow.owner != owner), "the server stopped")

    def requeue_expired(self) -> bool:
        """Queues again whatever nobody has renewed in time; says whether there was any."""
        late = select(JobRow).where(JobRow.state == State.RUNNING, JobRow.lease_until < time.time())
        return self._bury_all(late, "the lease expired")

    def _bury_all(self, query: Select[JobRow], reason: str) -> bool:
        with self._database.writing() as session:
            jobs = session.scalars(query).all()
            for job in jobs:
                _bury(job, reason)
        for job in jobs:
            self._changed(job.id)
        return bool(jobs)

    def _report(
        self,
        ticket: Ticket,
        event: Event,
        reason: str | None,
        record: Callable[[Session, JobRow], None] = lambda session, job: None,
    ) -> None:
        """Moves the row if the ticket is still good; a void ticket changes nothing."""
        with self._database.writing() as session:
            job = _running(session, ticket)
            if job is not None:
                _move(job, event, reason)
                record(session, job)
        self._changed(ticket.job)


def _named(job: str) -> Select[JobRow]:
    return select(JobRow).where(JobRow.id == job)


def _attempt(ticket: Ticket) -> Any:
    return update(JobRow).where(
        JobRow.id == ticket.job, JobRow.attempt == ticket.attempt, JobRow.state == State.RUNNING
    )


def _running(session: Session, ticket: Ticket) -> JobRow | None:
    return session.scalar(_named(ticket.job).where(JobRow.attempt == ticket.attempt, JobRow.state == State.RUNNING))


def _move(job: JobRow, event: Event, reason: str | None) -> None:
    state = transition(State(job.state), event)
    job.state, job.reason, job.changed_at = state, reason, time.time()
    if state is not State.RUNNING:
        job.owner = job.lease_until = None
    if state.final:
        job.finished_at = job.changed_at


def _bury(job: JobRow, reason: str) -> None:
    job.deaths += 1
    _move(job, after_death(job.deaths), f"{reason}: attempt {job.deaths} of {MAX_DEATHS}")
