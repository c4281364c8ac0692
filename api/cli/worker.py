"""`provenn worker`: runs queued jobs, and nothing else; on any machine that reaches the database and the blobs."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode

if TYPE_CHECKING:
    from provenn.api.jobs.engine import Engine
    from provenn.api.settings import Settings

LOOK_SECONDS = 1.0
EPILOG = """Examples:

  provenn worker --data-dir /var/lib/provenn-worker --workers 4
  provenn worker --device cuda --workers 1

The service runs as `provenn serve --workers 0`, with the same PROVENN_DATABASE=postgresql://... and PROVENN_BLOBS=...
SIGTERM or Ctrl-C: what runs gets PROVENN_DRAIN_SECONDS to end, then it is queued again; a second time: at once."""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def worker(
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of this process alone; default provenn-data.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Jobs that run at the same time; default 2.")] = None,
    device: Annotated[str | None, typer.Option(help="Where to compute: cpu, cuda, cuda:1; default cpu.")] = None,
    json: Json = False,
) -> int:
    """Run queued jobs of a service beyond one process, until it is interrupted."""
    from provenn.api.cli import serving
    from provenn.api.cli.given import read
    from provenn.api.sharing import require_shared
    from provenn.models import sandbox

    settings = read(data_dir=data_dir, workers=workers, device=device)
    require_shared(settings)
    if not settings.workers:
        raise typer.BadParameter("it has to run at least one job", param_hint="--workers")
    serving.require_usable(settings.data_dir)
    sandbox.require(sandbox.demanded(settings.require_sandbox))
    found = described(settings)
    outcome.show(
        found, Text("Provenn runs jobs of {database}, {workers} at a time. Stop: Ctrl-C".format(**found)), json
    )
    return run(settings)


def described(settings: Settings) -> dict[str, Any]:
    """What it works on, without secrets."""
    from provenn.api.database import database_url

    return {
        "database": database_url(settings.database_url).render_as_string(hide_password=True),
        "blobs": settings.blobs,
        "data_dir": str(settings.data_dir.resolve()),
        "workers": settings.workers,
        "device": settings.device,
    }


def run(settings: Settings) -> int:
    """Until a signal, or until a thread of the engine has ended: whoever started this process starts it again then.

    Raises: TracingUnavailable; as `supervisor`.
    """
    from provenn.api import logs, tracing
    from provenn.api.supervisor import supervisor

    logs.configure(settings.log_format, settings.log_level)
    tracing.start(settings.trace_endpoint)
    hear, tell = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(tell, b"."))
    with supervisor(settings, upgrade=False) as found:
        while not select.select([hear], [], [], LOOK_SECONDS)[0]:
            if found.engine.status not in ("starting", "ready"):
                outcome.warn([found.engine.status])
                return ExitCode.INTERNAL
        os.read(hear, 1)
        threading.Thread(target=_hurry, args=[hear, found.engine], daemon=True).start()
    return ExitCode.VERIFIED


def _hurry(hear: int, engine: Engine) -> None:
    """At the second signal."""
    os.read(hear, 1)
    engine.hurry()
