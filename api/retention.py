"""Rows that go when their time is over: jobs with all that belongs to them alone, keys of requests, unused networks.

Each batch is one transaction that looks again before it deletes. On PostgreSQL it first locks the jobs' rows, so that
nobody can give their answer to a new job meanwhile (that reads them FOR SHARE), and the table of certificates against
writers: whoever has found a certificate's row there already, and so has not written one, has committed by then, and
its job can be seen; whoever comes later finds no row and writes one. SQLite has one writer at a time anyway.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from sqlalchemy import Select, delete, exists, func, or_, select, text, update
from sqlalchemy.orm import Session, aliased

from provenn.api.blob_errors import BlobCorrupted, BlobMissing
from provenn.api.blobs import Blobs
from provenn.api.database import Database
from provenn.api.jobs.model import State
from provenn.api.tables import (
    CertificateRow,
    DatasetRow,
    DeliveryRow,
    FileRow,
    IdempotencyRow,
    JobRow,
    ModelRow,
    TransitionRow,
)

BATCH = 200
"""Jobs, not counting parts, that go in one transaction."""
FINAL = [state for state in State if state.final]


@dataclass(frozen=True)
class Batch:
    """Jobs to go, parts included; certificates (project, id) to go, and those that another job names, with that job."""

    jobs: frozenset[str]
    certificates: frozenset[tuple[str, str]]
    inherited: dict[tuple[str, str], str]
    transitions: int
    deliveries: int


class Retention:
    """Jobs that were over before `cutoff`, in seconds since the epoch."""

    def __init__(self, database: Database, blobs: Blobs, cutoff: float) -> None:
        self._database, self._blobs, self._cutoff = database, blobs, cutoff
        self._named: dict[str, frozenset[str]] = {}

    def roots(self) -> list[Sequence[str]]:
        """Jobs that were over before the cutoff, all of whose parts were too: some at a time."""
        with self._database.reading() as session:
            found = session.scalars(self._over()).all()
        return [found[first : first + BATCH] for first in range(0, len(found), BATCH)]

    def planned(self, several: Sequence[Sequence[str]]) -> list[Batch]:
        """What would go with these roots if nobody else wrote anything."""
        with self._database.reading() as session:
            leaving = frozenset(job for roots in several for job in _family(session, roots))
            return [self._examined(session, roots, leaving) for roots in several]

    def delete(self, roots: Sequence[str]) -> Batch:
        """Deletes these roots with what belongs to them, and says what has gone."""
        with self._database.reading() as session:
            self._examined(session, roots, frozenset(roots))  # reads other jobs' results before anything is locked
        with self._database.writing() as session:
            mine = self._over().where(JobRow.id.in_(roots))
            ready = session.scalars(mine.with_for_update(of=JobRow, skip_locked=True)).all()
            if session.get_bind().dialect.name == "postgresql":
                session.execute(text("LOCK TABLE certificates IN SHARE ROW EXCLUSIVE MODE"))
            batch = self._examined(session, ready, _family(session, ready))
            for (project, certificate), job in batch.inherited.items():
                row = (CertificateRow.project_id == project, CertificateRow.id == certificate)
                session.execute(update(CertificateRow).where(*row).values(job_id=job))
            for table in (CertificateRow, DeliveryRow, FileRow, IdempotencyRow, TransitionRow):
                session.execute(delete(table).where(table.job_id.in_(batch.jobs)))
            session.execute(delete(JobRow).where(JobRow.id.in_(batch.jobs)))
        return batch

    def _over(self) -> Select[str]:
        part = aliased(JobRow)
        young = or_(part.state.not_in(FINAL), part.changed_at >= self._cutoff)
        return select(JobRow.id).where(
            JobRow.parent_id.is_(None),
            JobRow.state.in_(FINAL),
            JobRow.changed_at < self._cutoff,
            ~exists(select(part.id).where(part.parent_id == JobRow.id, young)),
        )

    def _examined(self, session: Session, roots: Sequence[str], leaving: frozenset[str]) -> Batch:
        """What belongs to these roots, where only jobs that do not leave may inherit certificates."""
        jobs = _family(session, roots)
        rows = session.scalars(select(CertificateRow).where(CertificateRow.job_id.in_(jobs))).all()
        inherited: dict[tuple[str, str], str] = {}
        for project, model in {(row.project_id, row.model_id) for row in rows}:
            heirs = self._heirs(session, project, model, leaving)
            mine = [row.id for row in rows if (row.project_id, row.model_id) == (project, model)]
            inherited |= {(project, each): heirs[each] for each in mine if each in heirs}
        gone = {(row.project_id, row.id) for row in rows} - inherited.keys()
        counts = [
            session.scalar(select(func.count()).select_from(table).where(table.job_id.in_(jobs))) or 0
            for table in (TransitionRow, DeliveryRow)
        ]
        return Batch(jobs, frozenset(gone), inherited, *counts)

    def _heirs(self, session: Session, project: str, model: str, leaving: frozenset[str]) -> dict[str, str]:
        """The certificates that results of other jobs about this network name, each with the first of these jobs."""
        about = (JobRow.project_id == project, JobRow.model_id == model, JobRow.result.is_not(None))
        found: dict[str, str] = {}
        for job, result in session.execute(select(JobRow.id, JobRow.result).where(*about).order_by(JobRow.sequence)):
            if job not in leaving:
                for certificate in self._names(str(result)):
                    found.setdefault(certificate, job)
        return found

    def _names(self, result: str) -> frozenset[str]:
        """Certificates that a result names. One that cannot be read shows none to anybody."""
        if result not in self._named:
            try:
                items = json.loads(self._blobs.get(result))["items"]
                self._named[result] = frozenset(item["certificate"] for item in items if item["certificate"])
            except (BlobMissing, BlobCorrupted):
                self._named[result] = frozenset()
        return self._named[result]


def _family(session: Session, roots: Sequence[str]) -> frozenset[str]:
    """With their parts, which have none of their own."""
    return frozenset(roots) | frozenset(session.scalars(select(JobRow.id).where(JobRow.parent_id.in_(roots))))


def forget_keys(database: Database, before: float, really: bool) -> int:
    """Deletes Idempotency-Keys from before then, if `really`; says how many there are."""
    old = IdempotencyRow.created_at < before
    with database.writing() if really else database.reading() as session:
        count = session.scalar(select(func.count()).select_from(IdempotencyRow).where(old)) or 0
        if really:
            session.execute(delete(IdempotencyRow).where(old))
    return count


Lasting = TypeVar("Lasting", ModelRow, DatasetRow)
"""What jobs are about, and stays when they go."""


def planned_unused(database: Database, kind: type[Lasting], before: float, leaving: frozenset[str]) -> list[Lasting]:
    """Networks, or datasets, from before then that no job is about, but for those that leave."""
    with database.reading() as session:
        return _unused(session, kind, before, leaving)


def delete_unused(database: Database, kind: type[Lasting], before: float) -> list[Lasting]:
    """Deletes unused ones. A job that is being queued holds the rows that it is about, and keeps them."""
    with database.writing() as session:
        free = select(kind.sequence).where(kind.created_at < before).with_for_update(skip_locked=True)
        ours = set(session.scalars(free))
        found = [row for row in _unused(session, kind, before, frozenset()) if row.sequence in ours]
        for row in found:
            session.delete(row)
    return found


def _unused(session: Session, kind: type[Lasting], before: float, leaving: frozenset[str]) -> list[Lasting]:
    """No certificate is about them either: its job would be."""
    about = JobRow.model_id if kind is ModelRow else JobRow.dataset_id
    jobs = session.execute(select(JobRow.id, JobRow.project_id, about))
    used = {(project, name) for job, project, name in jobs if job not in leaving}
    rows = session.scalars(select(kind).where(kind.created_at < before))
    return [row for row in rows if (row.project_id, row.id) not in used]
