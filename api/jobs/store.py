"""The job table is the queue: every change is one transaction, a legal move, a time and a reason."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from provenn.api.database import Database
from provenn.api.jobs.model import MAX_ATTEMPTS, MAX_DEATHS, Event, State, delay
from provenn.api.jobs.rows import appear, move, record, touch
from provenn.api.tables import CertificateRow, FileRow, JobRow, NodeRow, TransitionRow


@dataclass(frozen=True)
class Ticket:
    """The right to report on one attempt at a job; void once the row has moved on."""

    job: str
    attempt: int


@dataclass(frozen=True)
class Step:
    """How far an attempt is. bound: the best so far; domains: subdomains visited; None: does not apply.

    share: how much of the item after those done is decided; bounds: of the outputs, as `said.Enclosure` has them.
    """

    done: int
    total: int
    phase: str
    bound: float | None = None
    domains: int | None = None
    share: float = 0.0
    bounds: list[dict[str, Any]] | None = None


@dataclass(frozen=True)
class Answer:
    """What a job found: the blobs of its result and certificates. reusable: every item's certificate is checked."""

    result: str
    certificates: Sequence[str]
    verdict: str
    reusable: bool
    version: str
    start: str | None = None
    """Of a part of a search: the searches as far as they got."""
    files: Sequence[dict[str, Any]] = ()
    """Others, as `said.Left` has them."""


@dataclass(frozen=True)
class Spent:
    """Parts of a job; those of them that are not over; the seconds of workers that all have used."""

    parts: int
    waiting: int
    seconds: float


@dataclass(frozen=True)
class Which:
    """Of whose jobs a page is made. states: any of these; since, until: when they were made, in seconds.

    before: the last job of the page before; parent: parts of this job alone.
    """

    project: str
    states: tuple[State, ...] = ()
    model: str | None = None
    kind: str | None = None
    method: str | None = None
    verdict: str | None = None
    parked: bool | None = None
    since: float | None = None
    until: float | None = None
    parent: str | None = None
    before: str | None = None

    def conditions(self) -> Iterator[ColumnElement[bool]]:
        """What a row has to be, but for its place."""
        yield JobRow.project_id == self.project
        yield JobRow.parent_id == self.parent
        if self.states:
            yield JobRow.state.in_(self.states)
        if self.since is not None:
            yield JobRow.created_at >= self.since
        if self.until is not None:
            yield JobRow.created_at < self.until
        named = (
            (JobRow.model_id, self.model),
            (JobRow.kind, self.kind),
            (JobRow.method, self.method),
            (JobRow.verdict, self.verdict),
            (JobRow.parked, self.parked),
        )
        yield from (column == value for column, value in named if value is not None)


def nothing(session: Session) -> None:
    """What a transaction does besides."""


class JobStore:
    """All that is ever done to a job row. `changed(id)` is called after every commit."""

    def __init__(self, database: Database, changed: Callable[[str], None] = lambda job: None) -> None:
        self._database = database
        self._changed = changed

    def add(
        self,
        job: JobRow,
        unless: Callable[[Session], JobRow | None] = nothing,
        then: Callable[[Session], None] = nothing,
    ) -> JobRow:
        """Adds a new job, queued if it has no state yet, and does `then`, all in one transaction.

        Unless `unless` names a job to take instead, or raises: then nothing is written.
        """
        with self._database.writing() as session:
            instead = unless(session)
            if instead is not None:
                return instead
            if job.state is None:
                job.state = State.QUEUED
            session.add(job)
            session.flush()
            appear(session, job)
            then(session)
        self._changed(job.id)
        return job

    def get(self, job: str, project: str | None = None) -> JobRow | None:
        """The row, if there is one (in that project, if one is given)."""
        query = _named(job) if project is None else _named(job).where(JobRow.project_id == project)
        with self._database.reading() as session:
            return session.scalar(query)

    def page(self, limit: int, which: Which) -> Sequence[JobRow]:
        """The newest jobs, at most `limit`."""
        query = select(JobRow).where(*which.conditions())
        if which.before is not None:
            last = select(JobRow.sequence).where(JobRow.id == which.before, JobRow.project_id == which.project)
            query = query.where(JobRow.sequence < last.scalar_subquery())
        with self._database.reading() as session:
            return session.scalars(query.order_by(JobRow.sequence.desc()).limit(limit)).all()

    def transitions(self, job: str, after: int = 0) -> Sequence[TransitionRow]:
        """The states a job has been in since its change `after`, oldest first."""
        query = select(TransitionRow).where(TransitionRow.job_id == job, TransitionRow.change > after)
        with self._database.reading() as session:
            return session.scalars(query.order_by(TransitionRow.change)).all()

    def news(self, job: str, change: int) -> tuple[JobRow, Sequence[TransitionRow]] | None:
        """The row, and the states it has been in since a change of its, as one look sees both; None: no such job.

        A change that the row has not seen yet counts as none.
        """
        with self._database.reading() as session:
            row = session.scalar(_named(job))
            if row is None:
                return None
            after = TransitionRow.change > (change if change <= row.change else 0)
            query = select(TransitionRow).where(TransitionRow.job_id == job, after, TransitionRow.change <= row.change)
            return row, session.scalars(query.order_by(TransitionRow.change)).all()

    def tally(self, job: str) -> dict[State, int]:
        """How many of a job's parts are in each state."""
        query = select(JobRow.state, func.count()).where(JobRow.parent_id == job).group_by(JobRow.state)
        with self._database.reading() as session:
            return {State(state): count for state, count in session.execute(query)}

    def claim(self, owner: str, lease: float) -> JobRow | None:
        """Takes the most urgent queued job, the oldest of these, if any, as a new attempt leased for some seconds."""
        now = time.time()
        with self._database.writing() as session:
            waiting = select(JobRow).where(JobRow.state == State.QUEUED, JobRow.not_before <= now)
            first = waiting.order_by(JobRow.priority.desc(), JobRow.sequence).limit(1)
            job = session.scalar(first.with_for_update(skip_locked=True))
            if job is None:
                return None
            job.attempt, job.started_at = job.attempt + 1, now
            move(session, job, Event.CLAIM, job.reason)
            job.owner, job.lease_until = owner, now + lease
            if not job.parts:
                job.done, job.total, job.phase, job.share = 0, job.items, "starting", 0.0
        self._changed(job.id)
        return job

    def next_at(self) -> float | None:
        """When the first job that has to wait may be claimed; None if none waits."""
        query = select(JobRow.not_before).where(JobRow.state == State.QUEUED).order_by(JobRow.not_before).limit(1)
        with self._database.reading() as session:
            return session.scalar(query)

    def renew(self, tickets: Iterable[Ticket], lease: float) -> list[Ticket]:
        """Extends the leases of attempts that are still running, and returns the void ones."""
        with self._database.writing() as session:
            until = time.time() + lease
            return [t for t in tickets if not session.scalar(_attempt(t, lease_until=until).returning(JobRow.sequence))]

    def void(self, tickets: Sequence[Ticket]) -> list[Ticket]:
        """Those whose rows have moved on."""
        query = select(JobRow.id, JobRow.attempt).where(
            JobRow.id.in_([t.job for t in tickets]), JobRow.state == State.RUNNING
        )
        with self._database.reading() as session:
            running = {Ticket(*row) for row in session.execute(query)}
        return [ticket for ticket in tickets if ticket not in running]

    def progress(self, ticket: Ticket, step: Step) -> bool:
        """Notes progress; False if the attempt is no longer the running one."""
        values = {"change": JobRow.change + 1, "changed_at": time.time(), **vars(step)}
        with self._database.writing() as session:
            alive = session.scalar(_attempt(ticket, **values).returning(JobRow.sequence)) is not None
        if alive:
            self._changed(ticket.job)
        return alive

    def finish(self, ticket: Ticket, answer: Answer) -> None:
        """The job succeeded: its result blob and its certificates become visible together."""

        def record(session: Session, job: JobRow) -> None:
            job.result, job.done, job.phase, job.share = answer.result, job.total, "done", 0.0
            job.verdict, job.reusable, job.version = answer.verdict, answer.reusable, answer.version
            job.start = answer.start or job.start
            keep_certificates(session, job, answer.certificates)
            for file in answer.files:
                session.add(FileRow(job_id=job.id, name=file["name"], id=file["sha256"], bytes=file["bytes"]))

        self._report(ticket, Event.FINISH, None, record)

    def split(self, ticket: Ticket, parts: Sequence[JobRow], start: str | None = None) -> None:
        """The attempt ends by handing out its parts; the job goes on once all of them are over.

        start: blob of the searches that were dealt out.
        """
        with self._database.writing() as session:
            job = _running(session, ticket)
            if job is None or job.owner is None:  # it has been done already
                return
            job.compute_seconds += time.time() - (job.started_at or time.time())
            job.owner = job.lease_until = None
            job.parts = job.waiting = len(parts)
            job.done, job.total, job.phase, job.start = 0, job.items, f"{len(parts)} parts", start
            touch(job)
            for part in parts:
                part.state = State.QUEUED
                session.add(part)
            session.flush()
            for part in parts:
                record(session, part)
        self._changed(ticket.job)

    def parts(self, job: str) -> Sequence[JobRow]:
        """The parts of a job, in order."""
        with self._database.reading() as session:
            return session.scalars(select(JobRow).where(JobRow.parent_id == job).order_by(JobRow.part)).all()

    def spent(self, job: str) -> Spent:
        """What the parts of a job have used so far."""
        over = func.count().filter(JobRow.state.in_([state for state in State if state.final]))
        query = select(func.count(), over, func.sum(JobRow.compute_seconds)).where(JobRow.parent_id == job)
        with self._database.reading() as session:
            count, done, seconds = session.execute(query).one()
        return Spent(count, count - done, seconds or 0.0)

    def files(self, job: str) -> Sequence[FileRow]:
        """What a job has left, by name."""
        with self._database.reading() as session:
            return session.scalars(select(FileRow).where(FileRow.job_id == job).order_by(FileRow.name)).all()

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
        """The worker died: the job is queued again, later and later, or parked if too many have."""
        with self._database.writing() as session:
            job = _running(session, ticket)
            if job is not None:
                job.deaths += 1
                session.execute(update(NodeRow).where(NodeRow.id == job.owner).values(deaths=NodeRow.deaths + 1))
                _bury(session, job, f"{reason}: attempt {job.deaths} of {MAX_DEATHS}")
        self._changed(ticket.job)

    def cancel(self, job: str) -> JobRow | None:
        """Cancels a queued or running job with all of its parts.   Raises: IllegalTransition if it is over."""
        unfinished = JobRow.state.in_((State.QUEUED, State.RUNNING))
        parts = select(JobRow).where(JobRow.parent_id == job, unfinished).order_by(JobRow.part).with_for_update()
        with self._database.writing() as session:
            session.scalars(parts).all()  # parts are locked before their parent, here as where one of them ends
            row = session.scalar(_named(job).with_for_update())
            cancelled = session.scalars(parts.execution_options(populate_existing=True)).all()  # it may just have split
            if row is not None:
                move(session, row, Event.CANCEL, "cancelled on request")
                for part in cancelled:
                    move(session, part, Event.CANCEL, "the whole job was cancelled")
        for each in (job, *(part.id for part in cancelled)):
            self._changed(each)
        return row

    def requeue_abandoned(self, owner: str) -> None:
        """Queues again what other supervisors left running; the caller holds the data directory, so they are dead."""
        self._bury_all(
            select(JobRow).where(JobRow.state == State.RUNNING, JobRow.owner.is_not(None), JobRow.owner != owner),
            "the server stopped",
        )

    def requeue_expired(self) -> bool:
        """Queues again whatever nobody has renewed in time; says whether there was any."""
        held = (JobRow.state == State.RUNNING, JobRow.owner.is_not(None))
        late = select(JobRow).where(*held, JobRow.lease_until < time.time())
        return self._bury_all(late, "the lease expired")

    def _bury_all(self, query: Select[JobRow], reason: str) -> bool:
        with self._database.writing() as session:
            jobs = session.scalars(query.with_for_update(skip_locked=True)).all()
            for job in jobs:
                _bury(session, job, reason)
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
        parent = None
        with self._database.writing() as session:
            job = _running(session, ticket)
            if job is not None:
                record(session, job)
                move(session, job, event, reason)
                parent = job.parent_id
        for each in (ticket.job, parent):
            if each is not None:
                self._changed(each)


def keep_certificates(session: Session, job: JobRow, certificates: Sequence[str]) -> None:
    """The certificates are the project's from now on; those it had already stay as they were."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    mine = {"project_id": job.project_id, "job_id": job.id, "model_id": job.model_id}
    rows = [{"id": certificate, **mine} for certificate in certificates]
    if rows:
        session.execute(insert(CertificateRow).on_conflict_do_nothing(), rows)


def _named(job: str) -> Select[JobRow]:
    return select(JobRow).where(JobRow.id == job)


def _attempt(ticket: Ticket, **values: Any) -> Any:
    """A change of the row while this attempt holds it: one that has split is held by nobody."""
    mine = (JobRow.id == ticket.job, JobRow.attempt == ticket.attempt, JobRow.state == State.RUNNING)
    return update(JobRow).where(*mine, JobRow.owner.is_not(None)).values(**values)


def _running(session: Session, ticket: Ticket) -> JobRow | None:
    mine = _named(ticket.job).where(JobRow.attempt == ticket.attempt, JobRow.state == State.RUNNING)
    return session.scalar(mine.with_for_update())


def _bury(session: Session, job: JobRow, reason: str) -> None:
    """Tried again after a while, or parked."""
    job.parked = job.deaths >= MAX_DEATHS or job.attempt >= MAX_ATTEMPTS
    job.not_before = time.time() + delay(job.attempt)
    move(session, job, Event.FAIL if job.parked else Event.REQUEUE, reason)
