"""`provenn keys`: who may use a service, straight in its database, also while it runs."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.database import DataDir, answering, settings
from provenn.api.cli.outcome import ExitCode

if TYPE_CHECKING:
    from provenn.api.database import Database
    from provenn.api.tables import AuditRow, KeyRow

SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400, "y": 365 * 86_400}
SPAN = re.compile(r"([1-9][0-9]{0,3})([hdwy])")
SCOPES = ("read", "submit", "admin")

ProjectName = Annotated[str, typer.Option("--project", metavar="NAME", help="The project; made if there is none.")]
OneProject = Annotated[str | None, typer.Option("--project", metavar="NAME", help="Of this project alone.")]
Most = Annotated[int, typer.Option(min=1, max=1000, help="How many at most, the newest.")]

commands = typer.Typer(
    name="keys",
    help="Make, list and revoke API keys, and read the audit log.",
    epilog="Examples:\n\n  provenn keys create --name ci --scope submit\n  provenn keys list --json",
    no_args_is_help=True,
)

CREATE_EPILOG = """Examples:

  provenn keys create --name operator --scope admin
  provenn keys create --project vision --name ci --scope submit --expires 30d --max-queued 100

The key is printed this once; the database keeps its digest alone."""


@commands.command(epilog=CREATE_EPILOG)
def create(
    name: Annotated[str, typer.Option(metavar="NAME", help="What the key is for.")],
    project: ProjectName = "default",
    scope: Annotated[
        list[str] | None,
        typer.Option(metavar="SCOPE", help="read; submit, which includes read; or admin, which includes both."),
    ] = None,
    expires: Annotated[str, typer.Option(metavar="SPAN", help="As 12h, 90d, 4w, 1y; or never.")] = "90d",
    max_queued: Annotated[int | None, typer.Option(min=0, help="Jobs that may be queued at a time.")] = None,
    max_bytes: Annotated[int | None, typer.Option(min=0, help="Bytes of its networks and requests.")] = None,
    max_seconds: Annotated[float | None, typer.Option(min=0, help="Seconds of workers in a rolling day.")] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Make a key of a project and print it."""
    from provenn.api.keys import Grant, Keys, Scope

    for given in scope or []:
        if given not in SCOPES:
            raise typer.BadParameter(f"'{given}' is none of {', '.join(SCOPES)}", param_hint="--scope")
    scopes = frozenset(Scope(given) for given in scope or ["read"])
    grant = Grant(name, scopes, _end(expires), max_queued, max_bytes, max_seconds)
    database = _database(data_dir)
    keys = Keys(database)
    owner = keys.project(project)
    row, key = keys.create(owner.id, grant)
    _note(database, "create", row)
    found = {"key": key, **_described(row, {owner.id: owner.name})}
    told = f"{key}\n\nKept nowhere else. Project {project}, {row.scopes}, expires {found['expires_at'] or 'never'}."
    outcome.show(found, Text(told, no_wrap=True, overflow="ignore"), json)
    return ExitCode.VERIFIED


@commands.command("list", epilog="Examples:\n\n  provenn keys list\n  provenn keys list --project vision --json")
def list_keys(project: OneProject = None, limit: Most = 100, data_dir: DataDir = None, json: Json = False) -> int:
    """List keys without their secrets, the newest first."""
    from provenn.api.keys import Keys

    keys = Keys(_database(data_dir))
    names = _names(keys)
    rows = [_described(row, names) for row in keys.page(limit, _identifier(names, project))]
    return _list("keys", rows, ("id", "project", "name", "scopes", "used_at", "expires_at", "revoked_at"), json)


@commands.command(epilog="Examples:\n\n  provenn keys revoke 0123456789abcdef")
def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The part of the key between its two underscores.")],
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """End a key for good; a running service refuses it within some seconds."""
    from provenn.api.keys import SHAPE, Keys

    whole = SHAPE.fullmatch(key)
    database = _database(data_dir)
    keys = Keys(database)
    row = keys.revoke(whole[1] if whole else key)
    if row is None:
        raise typer.BadParameter("there is no such key: `provenn keys list` has the ids", param_hint="ID")
    _note(database, "revoke", row)
    outcome.show(_described(row, _names(keys)), Text(f"{row.id} ({row.name}) is revoked"), json)
    return ExitCode.VERIFIED


@commands.command(epilog="Examples:\n\n  provenn keys projects --json")
def projects(data_dir: DataDir = None, json: Json = False) -> int:
    """List the projects, the oldest first."""
    from provenn.api.keys import Keys

    found = Keys(_database(data_dir)).projects()
    rows = [{"name": row.name, "id": row.id, "created_at": _time(row.created_at)} for row in found]
    return _list("projects", rows, ("name", "id", "created_at"), json)


@commands.command(epilog="Examples:\n\n  provenn keys audit\n  provenn keys audit --project vision --limit 500 --json")
def audit(project: OneProject = None, limit: Most = 100, data_dir: DataDir = None, json: Json = False) -> int:
    """Read the audit log: who changed what, and who was refused, the newest first."""
    from provenn.api.audit import AuditLog
    from provenn.api.keys import Keys

    database = _database(data_dir)
    names = _names(Keys(database))
    rows = [_entry(row, names) for row in AuditLog(database).page(limit, _identifier(names, project))]
    return _list("entries", rows, ("at", "project", "key", "action", "object", "status", "address"), json)


def _list(name: str, rows: Sequence[dict[str, Any]], shown: Sequence[str], json: bool) -> int:
    from provenn.api.cli import listings

    brief = [{column: "" if row[column] is None else row[column] for column in shown} for row in rows]
    outcome.show({name: rows}, listings.table(brief) if brief else Text(f"no {name} yet"), json)
    return ExitCode.VERIFIED


def _database(data_dir: Path | None) -> Database:
    """The service's own, made if there is none yet.   Raises: BadParameter; UnusableDatabase."""
    from provenn.api.database import Database

    found = settings(data_dir)
    try:
        found.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = f"{found.data_dir} cannot be used: {error.strerror or error}"
        raise typer.BadParameter(reason, param_hint="--data-dir") from None
    with answering():
        return Database(found.database_url)


def _note(database: Database, what: str, row: KeyRow) -> None:
    """Whoever reaches the database needs no key, but is written down too."""
    from provenn.api.audit import AuditLog
    from provenn.api.tables import AuditRow

    action = f"provenn keys {what}"
    AuditLog(database).add(AuditRow(project_id=row.project_id, action=action, object=row.id, status=ExitCode.VERIFIED))


def _names(keys: Any) -> dict[str, str]:
    return {row.id: row.name for row in keys.projects()}


def _identifier(names: dict[str, str], project: str | None) -> str | None:
    if project is None:
        return None
    for identifier, name in names.items():
        if name == project:
            return identifier
    raise typer.BadParameter(f"there is no project '{project}': `provenn keys projects` lists them")


def _described(row: KeyRow, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": row.id,
        "project": names[row.project_id],
        "name": row.name,
        "scopes": row.scopes.split(),
        "max_queued": row.max_queued,
        "max_bytes": row.max_bytes,
        "max_seconds": row.max_seconds,
        "created_at": _time(row.created_at),
        "expires_at": _time(row.expires_at),
        "revoked_at": _time(row.revoked_at),
        "used_at": _time(row.used_at),
    }


def _entry(row: AuditRow, names: dict[str, str]) -> dict[str, Any]:
    from provenn.api.audit import described

    project = None if row.project_id is None else names.get(row.project_id, row.project_id)
    return {**described(row), "at": _time(row.at), "project": project}


def _end(span: str) -> float | None:
    """When a span that begins now is over; None for never."""
    if span == "never":
        return None
    found = SPAN.fullmatch(span)
    if found is None:
        raise typer.BadParameter("give a span as 12h, 90d, 4w or 1y, or never", param_hint="--expires")
    return time.time() + int(found[1]) * SECONDS[found[2]]


def _time(seconds: float | None) -> str | None:
    return None if seconds is None else time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
