"""Idempotency-Key: a request that is sent again, for want of an answer, makes no second job."""

from __future__ import annotations

import time

from sqlalchemy import select
from sqlalchemy.orm import Session

from provenn.api.jobs.refusals import IdempotencyConflict
from provenn.api.tables import IdempotencyRow, JobRow

HOUR = 3600.0


def remembered(session: Session, job: JobRow, key: str, hours: float) -> JobRow | None:
    """The job that the key has made of the same request, if it has.   Raises: IdempotencyConflict.

    The project's row is held, so that a request with the same key either is in the table or waits.
    """
    row = session.get(IdempotencyRow, (job.project_id, key))
    if row is None:
        return None
    if row.created_at < time.time() - hours * HOUR:
        session.delete(row)
        session.flush()
        return None
    if row.digest != job.request:
        raise IdempotencyConflict(row.job_id)
    return session.scalar(select(JobRow).where(JobRow.id == row.job_id))


def remember(session: Session, job: JobRow, key: str) -> None:
    """From now on the key stands for this job, and for no other request."""
    session.add(IdempotencyRow(project_id=job.project_id, key=key, digest=job.request, job_id=job.id))
