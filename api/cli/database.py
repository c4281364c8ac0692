"""`provenn db`: the schema of a service's database, while the service is stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import ValidationError
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from provenn.api.settings import Settings

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", metavar="DIR", help="Folder of the service; default: that of the settings.")
]

commands = typer.Typer(
    name="db",
    help="Show and change the schema of a service's database.",
    epilog="Examples:\n\n  provenn db current\n  provenn db upgrade\n\nManual: docs/operations.md",
    no_args_is_help=True,
)


@commands.command(epilog="Examples:\n\n  provenn db current --json")
def current(data_dir: DataDir = None, json: Json = False) -> int:
    """Show which revision of the schema the database has, and which this version of Provenn uses."""
    from provenn.api import migrations

    with _engine(settings(data_dir)) as engine, engine.connect() as connection:
        found = migrations.current(connection)
    return _show(found, json)


@commands.command(epilog="Examples:\n\n  provenn db upgrade")
def upgrade(data_dir: DataDir = None, json: Json = False) -> int:
    """Bring the schema to the newest revision, keeping every row. A service does so itself when it starts."""
    from provenn.api import migrations

    given = settings(data_dir)
    with _alone(given) as engine:
        migrations.upgrade(engine)
    return _show(migrations.newest(), json)


@commands.command(epilog="Examples:\n\n  provenn db downgrade v0001 --yes")
def downgrade(
    revision: Annotated[str, typer.Argument(metavar="REVISION", help="As v0001, or base: no tables at all.")],
    yes: Annotated[bool, typer.Option("--yes", help="Lose what only newer revisions hold.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Take the schema back to an earlier revision, before an earlier version of Provenn is started on it."""
    from provenn.api import migrations

    if not yes:
        raise typer.BadParameter("what only newer revisions hold is lost: make a backup, then add --yes")
    with _alone(settings(data_dir)) as engine:
        migrations.downgrade(engine, revision)
    return _show(None if revision == "base" else revision, json)


def settings(data_dir: Path | None) -> Settings:
    """Those of the environment, with another folder if one is given.   Raises: BadParameter naming what is wrong."""
    from provenn.api.settings import Settings

    try:
        return Settings(**({} if data_dir is None else {"data_dir": data_dir}))  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(first["msg"], param_hint="PROVENN_" + str(first["loc"][0]).upper()) from None


@contextmanager
def answering() -> Iterator[None]:
    """Says in one line that the database does not answer.   Raises: UnusableDatabase."""
    from sqlalchemy.exc import OperationalError

    from provenn.api.database import UnusableDatabase

    try:
        yield
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error).__name__
        raise UnusableDatabase(f"the database (PROVENN_DATABASE) does not answer: {reason}") from error


@contextmanager
def _engine(given: Settings) -> Iterator[Engine]:
    from provenn.api.database import opened, writer

    with answering():
        engine = opened(given.database_url)
        try:
            yield writer(engine)
        finally:
            engine.dispose()


@contextmanager
def _alone(given: Settings) -> Iterator[Engine]:
    """The database, while no service uses it.   Raises: DataDirectoryInUse."""
    from sqlalchemy import inspect, text

    from provenn.api.database import DataDirectoryInUse, exclusive

    folder = given.data_dir.resolve()
    with exclusive(folder), _engine(given) as engine:
        with engine.connect() as connection:
            if engine.dialect.name != "sqlite" and inspect(connection).has_table("nodes"):
                heard = text("SELECT count(*) FROM nodes WHERE seen_at > extract(epoch FROM now()) - :silence")
                alive = connection.scalar(heard, {"silence": 2 * given.lease_seconds})
                if alive:
                    raise DataDirectoryInUse(f"{alive} servers use the database: stop them first")
        yield engine


def _show(revision: str | None, json: bool) -> int:
    from provenn.api import migrations

    found: dict[str, Any] = {"revision": revision, "newest": migrations.newest()}
    told = f"the schema is {revision or 'not there'}; the newest is {found['newest']}"
    outcome.show(found, Text(told), json)
    return ExitCode.VERIFIED
