"""The tables: typed declarative SQLAlchemy, the same on SQLite and PostgreSQL. Migrations make them, not this file."""

from __future__ import annotations

import time
import uuid
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, ForeignKeyConstraint, Index, Integer, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

DEFAULT_PROJECT = "default"
"""The project of a service without authentication."""
Sequence = BigInteger().with_variant(Integer(), "sqlite")  # only INTEGER counts up by itself there


class Base(DeclarativeBase):
    """Times are seconds since the epoch; digests are SHA-256 in hexadecimal."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy reads the plain attribute


class ProjectRow(Base):
    """A tenant: whatever belongs to it can be seen with its keys alone."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[float] = mapped_column(default=time.time)


class KeyRow(Base):
    """An API key: its `digest` and its rights. Limits that are null are the settings'."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    name: Mapped[str]
    digest: Mapped[str] = mapped_column(unique=True)
    """Of the whole key, which is random enough to need no salt."""
    scopes: Mapped[str]
    """Names with blanks between: read, submit, admin."""
    max_queued: Mapped[int | None] = mapped_column(default=None)
    max_bytes: Mapped[int | None] = mapped_column(BigInteger, default=None)
    max_seconds: Mapped[float | None] = mapped_column(default=None)
    created_at: Mapped[float] = mapped_column(default=time.time)
    expires_at: Mapped[float | None] = mapped_column(default=None)
    revoked_at: Mapped[float | None] = mapped_column(default=None)
    used_at: Mapped[float | None] = mapped_column(default=None)


class ModelRow(Base):
    """A network of a project: `id` is the digest of its canonical file, and the blob's."""

    __tablename__ = "models"
    __table_args__ = (UniqueConstraint("project_id", "id"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), default=DEFAULT_PROJECT)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"), default=None, index=True)
    id: Mapped[str] = mapped_column(index=True)
    filename: Mapped[str]
    format: Mapped[str] = mapped_column(default="onnx")
    """What was uploaded."""
    source: Mapped[str] = mapped_column(default="")
    """Digest of what was uploaded."""
    bytes: Mapped[int] = mapped_column(BigInteger)
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class DatasetRow(Base):
    """Inputs with their classes, of a project: `id` is the digest of their canonical file, and the blob's."""

    __tablename__ = "datasets"
    __table_args__ = (UniqueConstraint("project_id", "id"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), default=DEFAULT_PROJECT)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"), default=None, index=True)
    id: Mapped[str]
    filename: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    count: Mapped[int]
    width: Mapped[int]
    """Numbers of one input."""
    classes: Mapped[int]
    """One more than the largest."""
    created_at: Mapped[float] = mapped_column(default=time.time)


class JobRow(Base):
    """A job: the row is the truth, the engine only executes. `attempt` fences off every earlier worker."""

    __tablename__ = "jobs"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "model_id"], ["models.project_id", "models.id"], name="jobs_model"),
        ForeignKeyConstraint(["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"], name="jobs_dataset"),
        Index("jobs_claim", "state", "priority", "sequence"),
        Index("jobs_question", "project_id", "question"),
        Index("jobs_usage", "key_id", "started_at", "compute_seconds", "bytes"),
        Index("jobs_finished", "finished_at"),
    )

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), default=DEFAULT_PROJECT)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"), default=None)
    model_id: Mapped[str]
    dataset_id: Mapped[str | None] = mapped_column(default=None)
    """Of a batch, or of what patterns are mined from."""
    kind: Mapped[str] = mapped_column(default="inputs")
    """What it asks about: inputs, batch, specification, lipschitz, monotonicity, jacobian, tightness, patterns,
    radius."""
    method: Mapped[str]
    seconds: Mapped[float]
    seed: Mapped[int] = mapped_column(BigInteger)
    certificates: Mapped[bool]
    items: Mapped[int]
    request: Mapped[str]
    """Blob of the request as it was accepted."""
    bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    """Of the request."""
    start: Mapped[str | None] = mapped_column(default=None)
    """Blob of the searches that fell into parts; of a part, those it goes on with, then as far as it got."""
    question: Mapped[str | None] = mapped_column(default=None)
    """Digest of all that the answer depends on, but for time: see `jobs.questions`."""
    priority: Mapped[int] = mapped_column(default=0)
    """Larger first."""

    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id"), default=None, index=True)
    """The job this is a part of."""
    part: Mapped[int | None] = mapped_column(default=None)
    parts: Mapped[int] = mapped_column(default=0)
    """Into how many it fell."""
    waiting: Mapped[int] = mapped_column(default=0)
    """Of these, those that are not over."""

    state: Mapped[str]
    reason: Mapped[str | None] = mapped_column(default=None)
    error: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    change: Mapped[int] = mapped_column(default=0)
    """Counts every change of the row: the ids of its events."""
    attempt: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    parked: Mapped[bool] = mapped_column(default=False)
    """Failed because too many workers died of it."""
    not_before: Mapped[float] = mapped_column(default=0.0)
    """When it may be claimed again."""
    owner: Mapped[str | None] = mapped_column(default=None)
    lease_until: Mapped[float | None] = mapped_column(default=None)

    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    phase: Mapped[str] = mapped_column(default="")
    bound: Mapped[float | None] = mapped_column(default=None)
    """The best bound so far, of what is being searched."""
    domains: Mapped[int | None] = mapped_column(BigInteger, default=None)
    """Subdomains that branch and bound has visited."""
    share: Mapped[float] = mapped_column(default=0.0)
    """How much of the item after those done is decided: from 0 to 1."""
    bounds: Mapped[list[dict[str, Any]] | None] = mapped_column(JSON, default=None)
    """Of every output over the one region, the loosest first: `jobs.narrowing`."""

    result: Mapped[str | None] = mapped_column(default=None)
    """Blob of the result."""
    verdict: Mapped[str | None] = mapped_column(default=None)
    reusable: Mapped[bool] = mapped_column(default=False)
    """Every item has a checked certificate: the answer may serve the same question again."""
    reused: Mapped[str | None] = mapped_column(default=None)
    """The job whose answer this is."""
    version: Mapped[str] = mapped_column(default="")
    compute_seconds: Mapped[float] = mapped_column(default=0.0)
    """Wall-clock seconds of all attempts that are over."""
    created_at: Mapped[float] = mapped_column(default=time.time)
    changed_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None] = mapped_column(default=None)
    finished_at: Mapped[float | None] = mapped_column(default=None)


class TransitionRow(Base):
    """One change of a job's state."""

    __tablename__ = "transitions"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    change: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    attempt: Mapped[int]
    reason: Mapped[str | None]
    at: Mapped[float]


class CertificateRow(Base):
    """A certificate of a project: `id` is the digest of its zip, and the blob's; `job_id` the first that made it."""

    __tablename__ = "certificates"
    __table_args__ = (
        ForeignKeyConstraint(["project_id", "model_id"], ["models.project_id", "models.id"], name="certificates_model"),
    )

    project_id: Mapped[str] = mapped_column(primary_key=True, default=DEFAULT_PROJECT)
    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    model_id: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)


class FileRow(Base):
    """A file that a job has left, by its name among these: `id` is its digest, and the blob's."""

    __tablename__ = "files"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)


class IdempotencyRow(Base):
    """Which job an Idempotency-Key of a project has made, and of which request."""

    __tablename__ = "idempotency"

    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), index=True)
    created_at: Mapped[float] = mapped_column(default=time.time, index=True)


class WebhookRow(Base):
    """Where a project wants to be told that a job is over."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    url: Mapped[str]
    secret: Mapped[str]
    created_at: Mapped[float] = mapped_column(default=time.time)


class DeliveryRow(Base):
    """One message to a webhook: due at `due_at` until it is delivered or given up (`ended_at`)."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("deliveries_due", "ended_at", "due_at"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"), index=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    due_at: Mapped[float] = mapped_column(default=time.time)
    ended_at: Mapped[float | None] = mapped_column(default=None)
    status: Mapped[str] = mapped_column(default="due")
    """due, delivered, or what went wrong last."""


class AuditRow(Base):
    """Who did what, when, from where; never changed."""

    __tablename__ = "audit"
    __table_args__ = (Index("audit_project", "project_id", "sequence"),)

    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True)
    id: Mapped[str] = mapped_column(unique=True, default=lambda: uuid.uuid4().hex)
    """Says nothing of other projects, as a sequence would."""
    at: Mapped[float] = mapped_column(default=time.time, index=True)
    project_id: Mapped[str | None]
    key_id: Mapped[str | None]
    action: Mapped[str]
    object: Mapped[str | None]
    status: Mapped[int]
    address: Mapped[str | None]
    request_id: Mapped[str | None]


class NodeRow(Base):
    """A supervisor: where it runs, what it can run, when it was last heard of."""

    __tablename__ = "nodes"

    id: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    slots: Mapped[int]
    device: Mapped[str]
    deaths: Mapped[int] = mapped_column(default=0)
    """Of its workers."""
    gpus: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    """Bytes used, and there, of each GPU's memory, by its number."""
    started_at: Mapped[float] = mapped_column(default=time.time)
    seen_at: Mapped[float] = mapped_column(default=time.time)
    draining: Mapped[bool] = mapped_column(default=False)
