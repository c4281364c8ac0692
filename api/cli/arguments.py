"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout instead of a table.")]
ModelFile = Annotated[
    Path, typer.Argument(metavar="MODEL", help="The network: an .onnx or .safetensors file, gzip or not.")
]
RegionNorm = Annotated[Literal["inf", "2", "1"], typer.Option(help="The norm that measures the region's radius.")]
Clip = Annotated[
    tuple[float, float] | None,
    typer.Option(metavar="LO HI", help="Range every input value stays in, such as 0 1 for pixels."),
]
Seconds = Annotated[float, typer.Option(metavar="SECONDS", help="Wall-clock limit of the computation.")]
