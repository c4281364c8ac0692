"""Rows as clients see them."""

from __future__ import annotations

from datetime import UTC, datetime

from provenn.api.jobs.model import State
from provenn.api.schemas import JobStatus, Progress, Transition
from provenn.api.tables import JobRow, TransitionRow


def moment(seconds: float) -> datetime:
    """Seconds since the epoch as a time."""
    return datetime.fromtimestamp(seconds, UTC)


def status(row: JobRow) -> JobStatus:
    """A job without its result."""
    return JobStatus(
        id=row.id,
        model=row.model_id,
        state=State(row.state),
        reason=row.reason,
        error=row.error,
        kind=row.kind,
        method=row.method,
        seconds=row.seconds,
        seed=row.seed,
        certificates=row.certificates,
        priority=row.priority,
        parent=row.parent_id,
        attempt=row.attempt,
        parked=row.parked,
        verdict=row.verdict,
        reused=row.reused,
        compute_seconds=row.compute_seconds,
        progress=progress(row),
        created_at=moment(row.created_at),
        changed_at=moment(row.changed_at),
        started_at=None if row.started_at is None else moment(row.started_at),
        finished_at=None if row.finished_at is None else moment(row.finished_at),
    )


def progress(row: JobRow) -> Progress:
    """How far a job is."""
    fraction = 1.0 if row.state == State.SUCCEEDED else min(1.0, (row.done + row.share) / max(1, row.total))
    same = ("done", "total", "phase", "bound", "domains", "bounds")
    return Progress(fraction=fraction, **{name: getattr(row, name) for name in same})


def transition(row: TransitionRow) -> Transition:
    """One change of a job's state."""
    return Transition(
        change=row.change, state=State(row.state), attempt=row.attempt, reason=row.reason, at=moment(row.at)
    )
