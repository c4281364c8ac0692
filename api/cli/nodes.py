"""`provenn nodes`: who runs the jobs, straight from the database."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode
from provenn.verifier.errors import ProvennError

if TYPE_CHECKING:
    from provenn.api.jobs.nodes import Known

EPILOG = """Examples:

  provenn nodes
  provenn nodes --here     (exit code 2 if no supervisor of this machine lives: a health check of provenn worker)"""
SHOWN = ("id", "host", "pid", "device", "slots", "deaths", "draining")

commands = typer.Typer()


class NoSupervisor(ProvennError):
    """No supervisor of this machine was heard of lately."""


@commands.command(epilog=EPILOG)
def nodes(
    data_dir: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Folder of the service; default: that of the settings."),
    ] = None,
    here: Annotated[
        bool, typer.Option("--here", help="Only those of this machine that are alive; an error if there is none.")
    ] = False,
    json: Json = False,
) -> int:
    """List who claims jobs and runs them: machine, device, slots, running jobs, when last heard of."""
    from provenn.api.cli import listings
    from provenn.api.cli.given import read
    from provenn.api.database import Database
    from provenn.api.jobs.nodes import nodes_of

    settings = read(data_dir=data_dir)
    database = Database(settings.database_url, upgrade=False)
    try:
        found = nodes_of(database, settings).known()
    finally:
        database.close()
    if here:
        found = [each for each in found if each.alive and each.row.host == socket.gethostname()]
        if not found:
            raise NoSupervisor(f"no supervisor of {socket.gethostname()} is alive")
    rows = [described(each, time.time()) for each in found]
    outcome.show({"nodes": rows}, listings.table(rows) if rows else Text("nobody runs jobs"), json)
    return ExitCode.VERIFIED


def described(known: Known, now: float) -> dict[str, Any]:
    """silent_seconds: since it was last heard of."""
    facts = {name: getattr(known.row, name) for name in SHOWN}
    return {
        **facts,
        "running": known.running,
        "alive": known.alive,
        "silent_seconds": round(max(0.0, now - known.row.seen_at), 1),
    }
