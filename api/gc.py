"""Garbage collection: rows that are past their time, then blobs that no row refers to. It may run beside servers.

Why no blob is lost that somebody needs. A writer puts a blob and inserts a row that refers to it within GRACE_SECONDS;
`put` makes a blob young even if it is there already. A collection (1) lists the blobs that are older than that, (2)
reads from the rows what they refer to, (3) sets aside what it has listed and no row refers to. If a writer puts such a
blob again before it is set aside, its row may come after (2), and the blob goes aside all the same: then it comes back
as soon as anyone asks for it (`Blobs`). A later collection deletes for good only what has been set aside for longer
than GRACE_SECONDS when it reads the rows: by then every such writer has inserted its row, which is seen, and the blob
is brought back instead. A blob put after it was set aside is a new one in its old place, and not touched by that.
Collections that run at the same time, or end half-way, do no more than each of them would.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from provenn.api.blobs import Blobs, Stored
from provenn.api.database import Database
from provenn.api.retention import Lasting, Retention, delete_unused, forget_keys, planned_unused
from provenn.api.tables import CertificateRow, DatasetRow, FileRow, JobRow, ModelRow

GRACE_SECONDS = 3600.0
"""Between the put of a blob and the row that refers to it there may be no more; uploads and jobs need seconds."""
DAY = 86_400.0
PAGE = 10_000
"""Rows read at a time."""


@dataclass(frozen=True)
class Policy:
    """keep_days: of jobs that are over, None: for ever; key_hours: Idempotency-Keys.

    models: networks and datasets that no job is about go too.
    """

    keep_days: float | None
    models: bool
    key_hours: float


@dataclass(frozen=True)
class Amount:
    """How many of what, and their bytes where they have any of their own."""

    what: str
    count: int
    bytes: int | None = None


@dataclass(frozen=True)
class Leaving:
    """Rows that would go, or have gone: ids of jobs, certificates (project, id), `sequence`s of networks, datasets."""

    jobs: frozenset[str] = frozenset()
    certificates: frozenset[tuple[str, str]] = frozenset()
    models: frozenset[int] = frozenset()
    datasets: frozenset[int] = frozenset()


def collect(database: Database, blobs: Blobs, policy: Policy, really: bool) -> list[Amount]:
    """What goes, or if not `really` would go.   Raises: SQLAlchemyError, BlobsUnavailable, OSError."""
    begun = time.time()
    old = [blob for blob in blobs.digests() if blob.modified < begun - GRACE_SECONDS]
    amounts, leaving = _rows(database, blobs, policy, begun, really)
    looked = time.time()
    with database.reading() as session:
        needed = _needed(session, Leaving() if really else leaving)
    unneeded = [blob for blob in old if blob.digest not in needed]
    if really:
        for blob in unneeded:
            blobs.withdraw(blob.digest)
    amounts += [_amount("blobs to set aside", unneeded), *_aside(blobs, needed, looked, really)]
    return [*amounts, _leftovers(blobs, begun, really)]


def _rows(database: Database, blobs: Blobs, policy: Policy, now: float, really: bool) -> tuple[list[Amount], Leaving]:
    """Deletes rows, or finds those that would be."""
    cutoff = 0.0 if policy.keep_days is None else now - DAY * policy.keep_days
    keys = forget_keys(database, now - 3600 * policy.key_hours, really)
    retention = Retention(database, blobs, cutoff)
    several = retention.roots()
    batches = [retention.delete(roots) for roots in several] if really else retention.planned(several)
    jobs = frozenset(job for batch in batches for job in batch.jobs)
    certificates = frozenset(each for batch in batches for each in batch.certificates)
    before = now - max(GRACE_SECONDS, DAY * (policy.keep_days or 0.0))

    def unused(kind: type[Lasting]) -> frozenset[int]:
        if not policy.models:
            return frozenset()
        rows = delete_unused(database, kind, before) if really else planned_unused(database, kind, before, jobs)
        return frozenset(row.sequence for row in rows)

    models, datasets = unused(ModelRow), unused(DatasetRow)
    amounts = [
        Amount("jobs", len(jobs)),
        Amount("transitions", sum(batch.transitions for batch in batches)),
        Amount("deliveries", sum(batch.deliveries for batch in batches)),
        Amount("certificates", len(certificates)),
        Amount("idempotency keys", keys),
        Amount("models", len(models)),
        Amount("datasets", len(datasets)),
    ]
    return amounts, Leaving(jobs, certificates, models, datasets)


def _needed(session: Session, leaving: Leaving) -> set[str]:
    """Digests that rows refer to, but for those that leave."""
    referring = select(JobRow.id, JobRow.request, JobRow.result, JobRow.start)
    jobs = session.execute(referring.execution_options(yield_per=PAGE))
    found = {digest for job, *several in jobs if job not in leaving.jobs for digest in several if digest is not None}
    for kind, gone in ((ModelRow, leaving.models), (DatasetRow, leaving.datasets)):
        rows = session.execute(select(kind.sequence, kind.id))
        found |= {digest for sequence, digest in rows if sequence not in gone}
    files = session.execute(select(FileRow.job_id, FileRow.id))
    found |= {digest for job, digest in files if job not in leaving.jobs}
    certificates = session.execute(select(CertificateRow.project_id, CertificateRow.id))
    return found | {digest for project, digest in certificates if (project, digest) not in leaving.certificates}


def _aside(blobs: Blobs, needed: set[str], looked: float, really: bool) -> list[Amount]:
    """Brings back what is needed of that which was set aside, and deletes what has been there long enough."""
    aside = list(blobs.aside())
    wanted = [blob for blob in aside if blob.digest in needed]
    gone = [blob for blob in aside if blob.digest not in needed and blob.modified < looked - GRACE_SECONDS]
    if really:
        for blob in wanted:
            blobs.restore(blob.digest)
        for blob in gone:
            blobs.discard(blob.digest)
    return [_amount("blobs to bring back", wanted), _amount("blobs to delete", gone)]


def _leftovers(blobs: Blobs, now: float, really: bool) -> Amount:
    """Temporary files of writers that were killed: a living one writes to its own all the time."""
    count = size = 0
    for path in blobs.leftovers():
        with suppress(FileNotFoundError):
            status = path.stat()
            if status.st_mtime < now - GRACE_SECONDS:
                count, size = count + 1, size + status.st_size
                if really:
                    path.unlink()
    return Amount("unfinished files", count, size)


def _amount(what: str, found: Iterable[Stored]) -> Amount:
    sizes = [blob.bytes for blob in found]
    return Amount(what, len(sizes), sum(sizes))
