"""How much one API key may have: jobs that wait, bytes that are kept, seconds of workers in a rolling day.

Asked in the transaction that adds what is counted, with the project's row held: two requests cannot share what is left.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from provenn.api.jobs.model import State
from provenn.api.jobs.refusals import QuotaExceeded
from provenn.api.settings import Settings
from provenn.api.tables import DatasetRow, JobRow, KeyRow, ModelRow, ProjectRow

DAY = 86400.0
QUEUED, BYTES, SECONDS = "queued jobs", "stored bytes", "seconds of compute a day"


@dataclass(frozen=True)
class Limits:
    """None: no limit."""

    queued: int | None
    bytes: int | None
    seconds: float | None


def limits(session: Session, key: str | None, settings: Settings) -> Limits:
    """A key's own limits, and the settings' where it has none."""
    row = None if key is None else session.get(KeyRow, key)
    common = Limits(settings.max_queued, settings.max_bytes, settings.max_compute_seconds)
    if row is None:
        return common
    return Limits(
        common.queued if row.max_queued is None else row.max_queued,
        common.bytes if row.max_bytes is None else row.max_bytes,
        common.seconds if row.max_seconds is None else row.max_seconds,
    )


def hold(session: Session, project: str) -> None:
    """Until the transaction ends nobody else adds to the project. (SQLite's writers take turns anyway.)"""
    session.execute(select(ProjectRow.id).where(ProjectRow.id == project).with_for_update(key_share=True))


def require_work(session: Session, job: JobRow, settings: Settings) -> None:
    """A job may be queued, and computed.   Raises: QuotaExceeded."""
    allowed = limits(session, job.key_id, settings)
    if allowed.queued is not None:
        _within(QUEUED, allowed.queued, _queued(session, job.key_id), 1)
    if allowed.seconds is not None:
        used, wait = _computed(session, job.key_id)
        if used >= allowed.seconds:
            raise QuotaExceeded(SECONDS, allowed.seconds, round(used, 3), wait)


def require_bytes(session: Session, row: JobRow | ModelRow | DatasetRow, settings: Settings) -> None:
    """The row's bytes may be kept.   Raises: QuotaExceeded."""
    allowed = limits(session, row.key_id, settings)
    if allowed.bytes is not None:
        hold(session, row.project_id)
        _within(BYTES, allowed.bytes, _stored(session, row.key_id), row.bytes)


def _within(kind: str, limit: int, used: int, more: int) -> None:
    if used + more > limit:
        raise QuotaExceeded(kind, limit, used)


def _queued(session: Session, key: str | None) -> int:
    mine = (JobRow.state == State.QUEUED, JobRow.key_id == key, JobRow.parent_id.is_(None))
    return session.scalar(select(func.count()).select_from(JobRow).where(*mine)) or 0


def _stored(session: Session, key: str | None) -> int:
    """Networks, datasets and requests."""
    tables = (ModelRow, DatasetRow, JobRow)
    return sum(int(session.scalar(select(func.sum(t.bytes)).where(t.key_id == key)) or 0) for t in tables)


def _computed(session: Session, key: str | None) -> tuple[float, int]:
    """Seconds of jobs last started within a day, running ones too; and in how many seconds the first of them goes."""
    now = time.time()
    mine = (JobRow.key_id == key, JobRow.started_at > now - DAY)
    done, first = session.execute(
        select(func.sum(JobRow.compute_seconds), func.min(JobRow.started_at)).where(*mine)
    ).one()
    working = (JobRow.state == State.RUNNING, JobRow.owner.is_not(None))
    count, starts = session.execute(select(func.count(), func.sum(JobRow.started_at)).where(*mine, *working)).one()
    return (done or 0.0) + count * now - (starts or 0.0), max(1, math.ceil((first or now) + DAY - now))
