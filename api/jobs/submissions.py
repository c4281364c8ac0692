"""Whether a new job is queued, answered at once, the same as an earlier one, or refused: all in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from provenn.api.blobs import Blobs
from provenn.api.database import Database
from provenn.api.jobs import idempotency, questions, quotas
from provenn.api.jobs.store import JobStore, keep_certificates
from provenn.api.settings import Settings
from provenn.api.tables import JobRow


@dataclass(frozen=True)
class Submissions:
    """The door to the job table."""

    database: Database
    store: JobStore
    blobs: Blobs
    settings: Settings

    def submit(self, job: JobRow, key: str | None = None) -> JobRow:
        """The job in the table: this one, or that which the Idempotency-Key `key` has made before.

        A job without a question is neither answered from earlier ones nor an answer to later ones.
        Raises: QuotaExceeded, IdempotencyConflict.
        """
        source, certificates = self._answer(job)

        def unless(session: Session) -> JobRow | None:
            quotas.hold(session, job.project_id)
            if key is not None:
                earlier = idempotency.remembered(session, job, key, self.settings.idempotency_hours)
                if earlier is not None:
                    return earlier
            if source is None or not questions.take(session, job, source):
                quotas.require_work(session, job, self.settings)
            quotas.require_bytes(session, job, self.settings)
            return None

        def then(session: Session) -> None:
            if job.reused is not None:
                keep_certificates(session, job, certificates)
            if key is not None:
                idempotency.remember(session, job, key)

        return self.store.add(job, unless, then)

    def _answer(self, job: JobRow) -> tuple[str | None, Sequence[str]]:
        """A job that has answered the same question, and its certificates; nothing of it is missing."""
        if job.question is None:
            return None, ()
        with self.database.reading() as session:
            found = questions.answer(session, job)
        certificates = None if found is None else questions.certificates(found, self.blobs)
        return (None, ()) if found is None or certificates is None else (found.id, certificates)
