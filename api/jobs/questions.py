"""The same question of the same project has the same answer: a checked one is given again, without computing.

Nobody has to trust that: the certificates are the older job's, and prove what they prove.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import and_, or_, select
from sqlalchemy.orm import Session

from provenn.api.blob_errors import BlobCorrupted, BlobMissing
from provenn.api.blobs import Blobs
from provenn.api.jobs.model import State
from provenn.api.schemas import JobRequest, JobResult
from provenn.api.tables import JobRow
from provenn.verifier.version import provenn_version

ASIDE = {"budget", "priority", "cache"}
"""Members of a request on which only depends when the answer comes, and how good it may get."""
AT_ONCE = 16
"""Blobs that are looked for at a time: a bucket takes its while to answer."""
DECIDED = ("inputs", "specification", "monotonicity")
"""Kinds of question of which an answer that is verified gets no better with more time."""


def question(request: JobRequest) -> str:
    """Digest of the model, of what is asked of it and how, and of the version that answers."""
    asked = request.model_dump_json(exclude=ASIDE)
    return hashlib.sha256(f"{provenn_version()}\n{asked}".encode()).hexdigest()


def answer(session: Session, job: JobRow) -> JobRow | None:
    """The best job of the project that has answered this one's question, with checked certificates alone."""
    good = and_(JobRow.kind.in_(DECIDED), JobRow.verdict == "verified")
    mine = (JobRow.project_id == job.project_id, JobRow.question == job.question, JobRow.parent_id.is_(None))
    done = (JobRow.state == State.SUCCEEDED, JobRow.reusable, JobRow.version == provenn_version())
    found = select(JobRow).where(*mine, *done, or_(good, JobRow.seconds >= job.seconds))
    return session.scalar(found.order_by(JobRow.seconds.desc(), JobRow.sequence.desc()).limit(1))


def certificates(job: JobRow, blobs: Blobs) -> Sequence[str] | None:
    """Those of a job that has succeeded; None if they, or its result, are not all there any more."""
    assert job.result is not None
    try:
        result = JobResult.model_validate_json(blobs.get(job.result))
    except (BlobMissing, BlobCorrupted):
        return None
    found = sorted({item.certificate for item in result.items if item.certificate is not None})
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return found if all(pool.map(blobs.exists, found)) else None


def take(session: Session, job: JobRow, source: str) -> bool:
    """Gives a new job the answer of another, unless that has been deleted by now."""
    found = session.scalar(select(JobRow).where(JobRow.id == source).with_for_update(read=True))
    if found is None:
        return False
    job.state, job.reason = State.SUCCEEDED, f"job {found.id} has answered this question"
    job.result, job.verdict, job.reusable, job.version = found.result, found.verdict, True, found.version
    job.reused = found.reused or found.id
    job.done = job.total = job.items
    job.phase, job.finished_at = "done", time.time()
    return True
