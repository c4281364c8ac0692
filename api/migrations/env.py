"""What Alembic runs: every migration on the connection that `provenn.api.migrations` gives it, in its transaction."""

from __future__ import annotations

from alembic import context

from provenn.api.tables import Base


def run() -> None:
    """The revisions between the database's and the one that is wanted."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite changes a table by copying it
        transaction_per_migration=False,
    )
    context.run_migrations()


if __name__ == "env_py":  # as Alembic calls it; whoever imports it runs nothing
    run()
