"""`provenn gc`: what is past its time, and what nobody refers to."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.database import DataDir, answering, settings
from provenn.api.cli.outcome import ExitCode

commands = typer.Typer()

EPILOG = """Examples:

  provenn gc
  provenn gc --yes
  provenn gc --keep-days 90 --models --yes --json

It may run while services do. Jobs that are over go after --keep-days; certificates go with the last job that names
them. Blobs that nothing refers to are first set aside, and deleted by a later run, an hour later at the earliest.

Manual: docs/operations.md"""


@commands.command(epilog=EPILOG)
def gc(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go; the default.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it.")] = False,
    keep_days: Annotated[
        float | None,
        typer.Option(metavar="N", min=0, help="Days that jobs stay when they are over; default: retention_days."),
    ] = None,
    models: Annotated[bool, typer.Option("--models", help="Networks and data that no job is about go too.")] = False,
    data_dir: DataDir = None,
    json: Json = False,
) -> int:
    """Delete old jobs, and files that nothing refers to."""
    from provenn.api.blobs import Blobs
    from provenn.api.cli import listings
    from provenn.api.database import Database
    from provenn.api.gc import Policy, collect

    if dry_run and yes:
        raise typer.BadParameter("give one of --dry-run and --yes", param_hint="--dry-run")
    given = settings(data_dir)
    days = given.retention_days if keep_days is None else keep_days
    with answering():
        database = Database(given.database_url, upgrade=False)
        try:
            found = collect(database, Blobs.of(given), Policy(days, models, given.idempotency_hours), yes)
        finally:
            database.close()
    rows = [asdict(amount) for amount in found]
    shown = [{**row, "bytes": "" if row["bytes"] is None else f"{row['bytes']:,}"} for row in rows]
    outcome.show({"dry_run": not yes, "keep_days": days, "amounts": rows}, listings.table(shown), json)
    if not yes and not json:
        outcome.console().print("Nothing was changed: add --yes.")
    return ExitCode.VERIFIED
