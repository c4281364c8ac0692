"""Projects, keys, priorities, parts, events, webhooks, audit. What was there becomes the project `default`'s.

Tables are made anew and their rows copied: SQLite changes a table's keys in no other way, and one way is enough.
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

from provenn.api.migrations.versions import v0001_first as first

revision = "v0002"
down_revision = "v0001"
branch_labels = None
depends_on = None

SEQUENCE = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
OLD = {
    "models": "sequence, id, filename, bytes, summary, created_at",
    "jobs": "sequence, id, model_id, method, seconds, seed, certificates, items, request, state, reason, error, "
    "attempt, deaths, owner, lease_until, done, total, phase, result, created_at, changed_at, started_at, finished_at",
    "certificates": "id, job_id, model_id, created_at",
}
"""The columns of v0001, by table."""
FORMAT = "CASE WHEN filename LIKE '%.safetensors%' THEN 'provenn-network/1' ELSE 'onnx' END"
NEW = {
    "models": {"project_id": "'default'", "format": FORMAT, "source": "id"},
    "jobs": {
        "project_id": "'default'",
        "kind": "'inputs'",
        "bytes": "0",
        "priority": "0",
        "parts": "0",
        "waiting": "0",
        "change": "1",
        "parked": "false",
        "not_before": "0",
        "share": "0",
        "reusable": "false",
        "version": "''",
        "compute_seconds": "0",
    },
    "certificates": {"project_id": "'default'"},
}
"""What else a row has, by table and column: SQL."""
OF_JOBS = ["deliveries", "webhooks", "idempotency", "files", "transitions"]
"""New tables that refer to the old ones."""
OTHERS = ["datasets", "keys", "projects", "audit", "nodes"]


def upgrade() -> None:
    """Every row is kept. What a job asks about is not in its old row: `kind` calls them all `inputs`."""
    _set_aside()
    for create in (_who, _models, _datasets, _jobs, _indexes, _of_jobs, _about_requests, _webhooks):
        create()
    projects = sa.table("projects", sa.column("id"), sa.column("name"), sa.column("created_at"))
    op.bulk_insert(projects, [{"id": "default", "name": "default", "created_at": time.time()}])
    _bring_back({table: (columns, NEW[table]) for table, columns in OLD.items()})
    op.execute(
        "INSERT INTO transitions (job_id, change, state, attempt, reason, at) "
        "SELECT id, change, state, attempt, reason, changed_at FROM jobs"
    )


def downgrade() -> None:
    """Keeps what the project `default` has.

    A job's parts are jobs of their own then. One that waits for its parts is nobody's, and nothing would ever end it:
    it is queued as a whole, and what is left of its parts is cancelled.
    """
    over = "state = 'cancelled', reason = 'its job begins anew as a whole', finished_at = changed_at"
    op.execute(f"UPDATE jobs SET {over} WHERE parent_id IS NOT NULL AND state IN ('queued', 'running')")
    op.execute("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND owner IS NULL")
    for table in OF_JOBS:
        op.drop_table(table)
    _set_aside(" WHERE project_id = 'default'")
    for table in OTHERS:
        op.drop_table(table)
    first.upgrade()
    _bring_back({table: (columns, {}) for table, columns in OLD.items()})


def _set_aside(which: str = "") -> None:
    for table in ("certificates", "jobs", "models"):
        op.execute(f"CREATE TABLE kept_{table} AS SELECT * FROM {table}{which}")
        op.drop_table(table)


def _bring_back(columns: dict[str, tuple[str, dict[str, str]]]) -> None:
    for table in ("models", "jobs", "certificates"):
        old, new = columns[table]
        into, values = ", ".join([old, *new]), ", ".join([old, *new.values()])
        op.execute(f"INSERT INTO {table} ({into}) SELECT {values} FROM kept_{table}")
        op.drop_table(f"kept_{table}")
        if op.get_context().dialect.name == "postgresql" and table != "certificates":
            op.execute(f"SELECT setval(pg_get_serial_sequence('{table}', 'sequence'), max(sequence)) FROM {table}")


def _who() -> None:
    """Projects, their keys, what was done, what runs."""
    op.create_table(
        "projects",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("scopes", sa.String(), nullable=False),
        sa.Column("max_queued", sa.Integer(), nullable=True),
        sa.Column("max_bytes", sa.BigInteger(), nullable=True),
        sa.Column("max_seconds", sa.Double(), nullable=True),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("expires_at", sa.Double(), nullable=True),
        sa.Column("revoked_at", sa.Double(), nullable=True),
        sa.Column("used_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
    )
    op.create_index("ix_keys_project_id", "keys", ["project_id"])
    op.create_table(
        "audit",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=True),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("object", sa.String(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("id"),
    )
    op.create_index("ix_audit_at", "audit", ["at"])
    op.create_index("audit_project", "audit", ["project_id", "sequence"])
    op.create_table(
        "nodes",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("host", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("gpus", sa.JSON(), nullable=True),
        sa.Column("started_at", sa.Double(), nullable=False),
        sa.Column("seen_at", sa.Double(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )


def _models() -> None:
    """Networks of a project."""
    op.create_table(
        "models",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("format", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("summary", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("project_id", "id"),
    )
    op.create_index("ix_models_id", "models", ["id"])
    op.create_index("ix_models_key_id", "models", ["key_id"])


def _datasets() -> None:
    """Inputs of a project."""
    op.create_table(
        "datasets",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("filename", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("classes", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("project_id", "id"),
    )
    op.create_index("ix_datasets_key_id", "datasets", ["key_id"])


def _jobs() -> None:
    """Jobs of a project."""
    op.create_table(
        "jobs",
        sa.Column("sequence", SEQUENCE, nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key_id", sa.String(), nullable=True),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("dataset_id", sa.String(), nullable=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("method", sa.String(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("certificates", sa.Boolean(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("start", sa.String(), nullable=True),
        sa.Column("question", sa.String(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("parent_id", sa.String(), nullable=True),
        sa.Column("part", sa.Integer(), nullable=True),
        sa.Column("parts", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("error", sa.JSON(), nullable=True),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("parked", sa.Boolean(), nullable=False),
        sa.Column("not_before", sa.Double(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("lease_until", sa.Double(), nullable=True),
        *_progress(),
        sa.Column("result", sa.String(), nullable=True),
        sa.Column("verdict", sa.String(), nullable=True),
        sa.Column("reusable", sa.Boolean(), nullable=False),
        sa.Column("reused", sa.String(), nullable=True),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("compute_seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.Column("changed_at", sa.Double(), nullable=False),
        sa.Column("started_at", sa.Double(), nullable=True),
        sa.Column("finished_at", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(["key_id"], ["keys.id"]),
        sa.ForeignKeyConstraint(["parent_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["project_id", "model_id"], ["models.project_id", "models.id"], name="jobs_model"),
        sa.ForeignKeyConstraint(
            ["project_id", "dataset_id"], ["datasets.project_id", "datasets.id"], name="jobs_dataset"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("sequence"),
        sa.UniqueConstraint("id"),
    )


def _progress() -> list[sa.Column[Any]]:
    """How far a job is."""
    return [
        sa.Column("done", sa.Integer(), nullable=False),
        sa.Column("total", sa.Integer(), nullable=False),
        sa.Column("phase", sa.String(), nullable=False),
        sa.Column("bound", sa.Double(), nullable=True),
        sa.Column("domains", sa.BigInteger(), nullable=True),
        sa.Column("share", sa.Double(), nullable=False),
        sa.Column("bounds", sa.JSON(), nullable=True),
    ]


def _indexes() -> None:
    """Of jobs: by parts, to claim, by question, by usage, by their end."""
    op.create_index("ix_jobs_parent_id", "jobs", ["parent_id"])
    op.create_index("jobs_claim", "jobs", ["state", "priority", "sequence"])
    op.create_index("jobs_question", "jobs", ["project_id", "question"])
    op.create_index("jobs_usage", "jobs", ["key_id", "started_at", "compute_seconds", "bytes"])
    op.create_index("jobs_finished", "jobs", ["finished_at"])


def _of_jobs() -> None:
    """What belongs to a job."""
    op.create_table(
        "certificates",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("model_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(
            ["project_id", "model_id"], ["models.project_id", "models.id"], name="certificates_model"
        ),
        sa.PrimaryKeyConstraint("project_id", "id"),
    )
    op.create_index("ix_certificates_job_id", "certificates", ["job_id"])
    op.create_table(
        "transitions",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("change", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "change"),
    )
    op.create_table(
        "files",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "name"),
    )


def _about_requests() -> None:
    """Which request has made which job."""
    op.create_table(
        "idempotency",
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("project_id", "key"),
    )
    op.create_index("ix_idempotency_created_at", "idempotency", ["created_at"])
    op.create_index("ix_idempotency_job_id", "idempotency", ["job_id"])


def _webhooks() -> None:
    """Who wants to be told."""
    op.create_table(
        "webhooks",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("project_id", sa.String(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("secret", sa.String(), nullable=False),
        sa.Column("created_at", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_webhooks_project_id", "webhooks", ["project_id"])
    op.create_table(
        "deliveries",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("webhook_id", sa.String(), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.Double(), nullable=False),
        sa.Column("ended_at", sa.Double(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["webhook_id"], ["webhooks.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("deliveries_due", "deliveries", ["ended_at", "due_at"])
    op.create_index("ix_deliveries_job_id", "deliveries", ["job_id"])
    op.create_index("ix_deliveries_webhook_id", "deliveries", ["webhook_id"])
