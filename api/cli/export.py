"""The command that turns a torch module into a file: its options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode

EPILOG = """Examples:

  provenn export my_package.my_module:build_model --input-shape 1,28,28 --weights model.pt --out model.onnx
  provenn export my_module:Classifier --input-shape 64 --format pt2
  provenn export --trust-pickle model.pt --input-shape 3,32,32

This runs the module's code, on your machine. The file that comes out holds none: the service takes it from anyone.
It is written only if onnxruntime and the module agree on random inputs, and Provenn reads it.

Exit codes: 0 written, 2 bad input, 1 internal error, or a file that cannot be written.

Manual: docs/formats.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def export(
    input_shape: Annotated[str, typer.Option(metavar="N,N,..", help="Shape of one input, without the batch: 1,28,28.")],
    module: Annotated[
        str | None,
        typer.Argument(metavar="MODULE:CALLABLE", help="A function or class of yours that returns the torch module."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Its state dict: .safetensors, or of torch.save (tensors alone are read)."),
    ] = None,
    trust_pickle: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A whole pickled module instead; opening it runs whatever code is in it."),
    ] = None,
    format: Annotated[
        Literal["onnx", "pt2", "safetensors"], typer.Option(help="What to write; safetensors holds the weights alone.")
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Where to; default model.onnx, ..")] = None,
    json: Json = False,
) -> int:
    """Export a torch module on your own machine to a file that needs no trust, and check that it computes the same."""
    from provenn.api.cli import exporting

    if (module is None) == (trust_pickle is None):
        raise typer.BadParameter("give MODULE:CALLABLE, or --trust-pickle FILE", param_hint="MODULE:CALLABLE")
    if weights is not None and trust_pickle is not None:
        raise typer.BadParameter("a pickled module holds its weights", param_hint="--weights")
    source = exporting.Source(module, weights, trust_pickle)
    found = exporting.run(source, exporting.shape(input_shape), format, out or Path(f"model.{format}"))
    outcome.show(found, exporting.as_view(found), json)
    return ExitCode.VERIFIED
