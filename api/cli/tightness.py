"""The command `provenn tightness`: its options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provenn.api.cli.arguments import Clip, Json

EPILOG = """Examples:

  provenn tightness model.onnx --input xs.npy --label ys.npy
  provenn tightness model.onnx --input xs.npy --eps 8/255 --clip 0 1 --json
  provenn tightness epoch-*.onnx --input xs.npy --label ys.npy --plot tightness.png

Around an input the network is a linear map. Tightness is the radius of the box that this map makes of a box of inputs,
over the radius that interval propagation (IBP) finds layer by layer: 1 where intervals lose nothing. Several networks,
such as one network's checkpoints, have a row each, in this order; the plot shows how tightness goes.

Exit codes: 0 measured, 2 bad input, or a network that is not piecewise linear, 1 internal error.

Manual: docs/tightness.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def tightness(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL...", help="The network: an .onnx file, gzip or not; or several.")
    ],
    inputs: Annotated[
        Path, typer.Option("--input", metavar="FILE.npy", help="One input, or a batch with a leading axis.")
    ],
    label: Annotated[
        str | None,
        typer.Option(metavar="K", help="Classes, as 7,2,1 or a labels.npy file: measure margins to the other classes."),
    ] = None,
    eps: Annotated[
        str, typer.Option(metavar="E", help="Radius of the boxes, as 0.03 or 8/255; it matters with --clip alone.")
    ] = "0.1",
    clip: Clip = None,
    outputs_only: Annotated[
        bool, typer.Option("--outputs-only", help="Of the outputs alone: a pass an output, not one an input value.")
    ] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Draw it, by layer or by network: FILE.png, FILE.svg or FILE.html."),
    ] = None,
    json: Json = False,
) -> int:
    """Measure how much of a network's interval bounds is the network's, and how much the intervals'."""
    from provenn.api.cli import measuring

    return measuring.run(measuring.Request(tuple(models), inputs, label, eps, clip, not outputs_only, plot), json)
