"""The commands about derivatives: their options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from provenn.api.cli.arguments import Clip, Json, ModelFile, RegionNorm, Seconds

Rows = Annotated[
    str, typer.Option(metavar="ROWS", help="Which outputs: all, 3, 3-5, 0,2; differences: pairs, pairs:3.")
]
DomainFile = Annotated[
    Path | None, typer.Option(metavar="FILE.json", help="All inputs of a tabular model: what every feature may be.")
]
Fixed = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="Hold a feature of --region at a value or category; repeat it for more."),
]
At = Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Centre of a region, instead of --region.")]
Eps = Annotated[str | None, typer.Option(metavar="E", help="Radius of the region around --at, as 0.03 or 8/255.")]
Method = Annotated[
    Literal["bab", "crown", "alpha-crown", "recurjac", "ibp"],
    typer.Option(help="bab divides the region until the time ends; the others bound it as a whole: seconds."),
]

MONOTONICITY_EPILOG = """Examples:

  provenn monotonicity model.onnx --features age,income --region domain.json --out proof
  provenn monotonicity model.onnx --features age --region domain.json --fix colour=2 --expect increasing
  provenn monotonicity model.onnx --features 0,3-5 --at x.npy --eps 0.1 --clip 0 1
  provenn monotonicity model.onnx --features all --region domain.json --rows 1 --json

A domain file lists the features in the order of the inputs:

  {"features": [{"name": "age", "range": [18, 100]}, {"name": "sex", "values": [0, 1]},
                {"name": "colour", "one_hot": 3}, {"name": "bias", "value": 1}]}

Increasing: of any two inputs of the region that differ in this feature alone, the one with more of it has no smaller
output. It is proved, or a pair of inputs shows otherwise. Categories are enumerated: all combinations must agree.

Exit codes: 0 every dependence is decided (with --expect: as expected), 10 a pair of inputs contradicts, 11 unknown,
12 the time ended before, 2 bad input, 1 internal error.

Manual: docs/monotonicity.md"""

JACOBIAN_EPILOG = """Examples:

  provenn jacobian model.onnx --at x.npy --eps 0.1 --out proof
  provenn jacobian model.onnx --at x.npy --eps 8/255 --clip 0 1 --rows pairs:3 --method crown
  provenn jacobian model.onnx --region domain.json --fix sex=0 --fix colour=2 --json

For every output and input: proved bounds of the derivative over all of the region, and beside them the least and the
largest that was seen at points of it.

Exit codes: 0 proved, 11 no proof, 12 no bounds in the time, 2 bad input, 1 internal error.

Manual: docs/monotonicity.md"""


commands = typer.Typer()


@commands.command(epilog=MONOTONICITY_EPILOG)
def monotonicity(
    model: ModelFile,
    features: Annotated[
        str,
        typer.Option(metavar="NAMES", help="Which features: names of --region, numbers of inputs as 0,3-5, or all."),
    ],
    rows: Rows = "all",
    region: DomainFile = None,
    fix: Fixed = None,
    at: At = None,
    eps: Eps = None,
    region_norm: RegionNorm = "inf",
    clip: Clip = None,
    method: Method = "bab",
    expect: Annotated[
        Literal["increasing", "decreasing"] | None,
        typer.Option(help="What every dependence has to be: anything else is exit code 10 or 11."),
    ] = None,
    timeout: Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search for pairs of inputs.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the certificate and the pairs of inputs in DIR.")
    ] = None,
    json: Json = False,
) -> int:
    """Prove that outputs only rise, or only fall, with a feature, or find two inputs that show otherwise."""
    from provenn.api.cli import monotonicity as command
    from provenn.api.cli.lipschitz import require_time
    from provenn.api.cli.regions import Where
    from provenn.api.monotonicity import Options

    where = Where(region, tuple(fix or ()), at, eps, region_norm, clip)
    request = command.Request(model, features, rows, where, expect, out)
    return command.run(request, Options(method, require_time(timeout), seed), json)


@commands.command(epilog=JACOBIAN_EPILOG)
def jacobian(
    model: ModelFile,
    rows: Rows = "all",
    at: At = None,
    eps: Eps = None,
    region_norm: RegionNorm = "inf",
    clip: Clip = None,
    region: DomainFile = None,
    fix: Fixed = None,
    method: Method = "bab",
    timeout: Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the points where derivatives are seen.")] = 0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the certificate and jacobian.npz, the bounds, in DIR.")
    ] = None,
    json: Json = False,
) -> int:
    """Bound every derivative of a network's outputs over a region, with a certificate."""
    from provenn.api.cli import jacobian as command
    from provenn.api.cli.lipschitz import require_time
    from provenn.api.cli.regions import Where
    from provenn.api.monotonicity import Options

    request = command.Request(model, rows, Where(region, tuple(fix or ()), at, eps, region_norm, clip), out)
    return command.run(request, Options(method, require_time(timeout), seed), json)
