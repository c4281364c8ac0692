"""The history of the schema: `upgrade` brings any database of an earlier version to the newest."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from provenn.verifier.errors import ProvennError

LOCK = 0x70726F76656E6E
"""Of PostgreSQL: several servers that start at once upgrade one after another."""
FIRST = "v0001"


class OtherSchema(ProvennError):
    """The database's schema is not one that this version of Provenn can use, or make."""


def upgrade(engine: Engine, revision: str = "head") -> None:
    """Brings the schema to `revision`, in one transaction; one from before there was a history counts as FIRST.

    Raises: OtherSchema if it is newer than this version of Provenn, or there is no such revision above it.
    """
    with engine.begin() as connection:
        _lock(connection)
        target = newest() if revision == "head" else revision
        found = current(connection)
        if found is None and inspect(connection).has_table("jobs"):
            command.stamp(_config(connection), FIRST)
            found = FIRST
        if found == target:
            return
        if revision not in ("head", *_above(found)):
            raise OtherSchema(f"there is no revision {revision} above {found or 'base'}")
        command.upgrade(_config(connection), revision)


def downgrade(engine: Engine, revision: str) -> None:
    """Takes the schema back to `revision` (`base`: no tables); what only newer schemas hold is lost.

    Raises: OtherSchema if it is newer than this version of Provenn, or there is no such revision below it.
    """
    with engine.begin() as connection:
        _lock(connection)
        found = current(connection)
        if revision not in ("base", *_below(found)):
            raise OtherSchema(f"there is no revision {revision} below {found or 'base'}")
        command.downgrade(_config(connection), revision)


def require_newest(engine: Engine) -> None:
    """Raises: OtherSchema unless the schema is the one that this version of Provenn uses."""
    with engine.connect() as connection:
        found = current(connection)
    if found != newest():
        raise OtherSchema(f"the database's schema is {found or 'unknown'}, not {newest()}: provenn db upgrade")


def current(connection: Connection) -> str | None:
    """The revision of the schema, None if it has none."""
    return MigrationContext.configure(connection).get_current_revision()


def newest() -> str | None:
    """The newest revision there is."""
    return _scripts().get_current_head()


def _above(found: str | None) -> list[str]:
    """Revisions that an upgrade can reach, newest first."""
    known = _known(found)
    return known[: known.index(found)] if found is not None else known


def _below(found: str | None) -> list[str]:
    """Revisions that a downgrade can reach, newest first."""
    known = _known(found)
    return known[known.index(found) + 1 :] if found is not None else []


def _known(found: str | None) -> list[str]:
    known = [script.revision for script in _scripts().walk_revisions()]
    if found is not None and found not in known:
        raise OtherSchema(
            f"the database's schema is {found}, from a newer version of Provenn than this one, whose newest is "
            f"{known[0]}: install that version, and take the schema back with its `provenn db downgrade` if need be"
        )
    return known


def _lock(connection: Connection) -> None:
    """Until the transaction ends nobody else changes the schema; on SQLite it is the only writer already."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(None))


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
