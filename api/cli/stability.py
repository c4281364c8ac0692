"""The command `provenn stability`: its options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provenn.api.cli.arguments import Json, Seconds

EPILOG = """Examples:

  provenn stability controller.onnx --spec loop.json --out proof --plot region.png
  provenn stability controller.onnx --spec loop.toml --timeout 600 --tolerance 0.005 --json

A document of kind lyapunov names the other networks of the loop (dynamics, Lyapunov candidate, perhaps an observer), a
box of states, a small box around the equilibrium, and how fast V has to fall outside it. What is found is the largest
level rho such that every trajectory from {V <= rho} stays there and comes into a small {V <= sigma} for ever.

With --out DIR the same document with the levels is kept, too; anyone can then check the certificate:

  provenn check proof/certificate.zip --model controller.onnx --spec proof/stability.json

Exit codes: 0 verified, 10 falsified: a condition fails at a state, 11 unknown, 12 timeout, 2 bad input,
1 internal error.

Manual: docs/stability.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def stability(
    controller: Annotated[Path, typer.Argument(metavar="CONTROLLER", help="The controller: an .onnx file.")],
    spec: Annotated[
        Path, typer.Option("--spec", metavar="FILE", help="A document of kind lyapunov, in JSON or TOML, of the loop.")
    ],
    method: Annotated[
        str, typer.Option(help="How every level is certified: a name that `provenn backends` lists.")
    ] = "branch-and-bound",
    tolerance: Annotated[
        float, typer.Option(metavar="SHARE", help="Stop where no level more than this share higher may be proved.")
    ] = 1 / 64,
    timeout: Seconds = 300.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search for states where a condition fails.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the certificate, the document with levels, a bad state.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw the region, over the first two states.")
    ] = None,
    json: Json = False,
) -> int:
    """Prove a region of attraction of a closed loop: the largest level of its Lyapunov function that can be proved."""
    from provenn.api.certification import Options
    from provenn.api.cli import attraction
    from provenn.api.cli.lipschitz import require_time

    request = attraction.Request(controller, spec, attraction.require_share(tolerance), out, plot)
    return attraction.run(request, Options(method, require_time(timeout), seed=seed), json)
