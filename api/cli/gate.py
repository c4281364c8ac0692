"""`provenn gate`: its options, what `--help` teaches, and which exit code every ending has."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provenn.api.cli.arguments import Json

EPILOG = """Examples:

  provenn gate
  provenn gate --config robustness.toml --junit gate.xml --sarif gate.sarif --markdown gate.md
  provenn gate --update-baseline
  provenn gate --server https://provenn.example --json

provenn.toml, or [tool.provenn] of pyproject.toml:

  [models.digits]
  file = "digits.onnx"
  data = "digits.npz"
  clip = [0, 1]
  radii = [0.02, 0.05]

  [models.digits.checks]
  clean_accuracy = 0.95
  certified_accuracy = 0.80
  lipschitz = 12

Exit codes: 0 passed, 1 a threshold is not met, 2 bad input, 3 undecided when the budget ended, 4 the machinery failed
(no service, no disk). $GITHUB_STEP_SUMMARY gets the report where it is set.

Manual: docs/gate.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def gate(
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Default: provenn.toml here, or a pyproject.toml with [tool.provenn]."),
    ] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Measure, and write what no_regression compares with anew.")
    ] = False,
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Prove again what the cache says, from its certificates.")
    ] = False,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as JUnit XML.")] = None,
    sarif: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as SARIF 2.1.0.")] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report as Markdown.")] = None,
    server: Annotated[
        str | None, typer.Option(metavar="URL", help="Have a service measure; its certificates are checked here.")
    ] = None,
    json: Json = False,
) -> int:
    """Check that thresholds on what is proved of networks are met: for the build of a repository."""
    from provenn.api.cli import gating

    return gating.run(gating.Request(config, update_baseline, recheck, junit, sarif, markdown, server), json)
