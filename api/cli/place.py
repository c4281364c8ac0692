"""`provenn place`: a supervisor on every node of a Ray cluster, for as long as the command runs and beyond."""

from __future__ import annotations

import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode

EPILOG = """Examples:

  provenn place --address 10.0.0.5:6379 --token-file /run/secrets/ray-token
  provenn place --address 10.0.0.5:6379 --cpus 8 --gpus 1 --workers 1
  provenn place --address 10.0.0.5:6379 --end

Settings that are given here (PROVENN_DATABASE, PROVENN_BLOBS, ...) hold on all nodes, except where a node's own
environment has them. The supervisors stay when this command ends; --end drains and ends them.
Manual: docs/cluster.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def place(
    address: Annotated[str, typer.Option(metavar="HOST:PORT", help="The head of the Ray cluster.")],
    cpus: Annotated[
        float | None, typer.Option(min=0.01, help="CPUs of each supervisor; default: all that its node has.")
    ] = None,
    gpus: Annotated[
        float | None, typer.Option(min=0, help="GPUs of each supervisor; default: all that its node has.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Jobs that each runs at the same time; default 2.")] = None,
    every: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks at the nodes.")] = 5.0,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The cluster's token; default RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH."),
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="Drain and end the supervisors instead.")] = False,
    json: Json = False,
) -> int:
    """Keep one supervisor on every node of a Ray cluster, until it is interrupted; they stay."""
    from provenn.api import logs
    from provenn.api.cli.given import read
    from provenn.api.cluster.authentication import ClusterRefused, environment
    from provenn.api.cluster.keeper import keep
    from provenn.api.cluster.orders import Order, passed
    from provenn.api.sharing import require_shared

    settings = read(workers=workers)
    if settings.database is not None:  # else the nodes have it
        require_shared(settings)
    environment(token_file)
    if find_spec("ray") is None:
        raise ClusterRefused('ray is not installed: pip install "provenn[ray]"')
    found = {"address": address, "cpus": cpus, "gpus": gpus}
    what = "Provenn ends its supervisors" if end else "Provenn keeps a supervisor on every node"
    outcome.show(found, Text(f"{what} of the Ray cluster at {address}. Stop: Ctrl-C"), json)
    logs.configure(settings.log_format, settings.log_level)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        return keep(Order(address, passed(settings), cpus, gpus, every, end), token_file)
    except KeyboardInterrupt:
        return ExitCode.VERIFIED
