"""`provenn batch`: its options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from provenn.api.cli.arguments import Clip, Json, ModelFile, Seconds

EPILOG = """Examples:

  provenn batch model.onnx test.npz --eps 0.01,0.03,8/255 --clip 0 1 --out results
  provenn batch model.onnx images/ --eps 2,4,8 --divide 255 --mean 0.5 --std 0.25 --clip 0 255 --out results
  provenn batch model.onnx xs.npy --labels ys.npy --radius 0.5 --norm 2 --timeout 3600 --out radii --json
  provenn batch model.onnx test.npz --eps 0.01 --clip 0 1 --out results --server https://provenn.example

DATA: .npz (arrays x and y), .npy with --labels, .csv or .parquet (a column label), or a folder that has a folder of
images for every class. --eps asks for a verdict at each radius; --radius for every input's own radius up to this one,
between the largest with a certificate and the smallest with a counterexample.
--divide, --mean, --std and --layout become the first nodes of the network: radii are in the units of DATA.

With --out DIR a run that was killed goes on after its last finished chunk when the same command is given again. In the
end DIR has results.jsonl and results.parquet (a row an input and radius), summary.json, curve.html, histogram.html,
batch.zip (all certificates under one Merkle root; provenn check DIR/batch.zip --model model.onnx), and model.onnx where
preprocessing was put before the network: that is what the certificates are about. The charts are there as .svg, too,
and as .png where matplotlib is installed.

With --server URL a service certifies; what it answers is proved again here, row by row, before anything is printed.

Exit codes: 0 everything is verified (with --radius: some radius of every input is), 10 falsified, 11 unknown,
12 timeout, 13 the service's proofs do not hold, 2 bad input, 1 internal error, no answer of the service, or results
that cannot be saved.

Manual: docs/batch.md"""

Server = Annotated[
    str | None, typer.Option(metavar="URL", help="Let a service do the work; its key is PROVENN_API_KEY.")
]

ITEM_EPILOG = """Examples:

  provenn batch-item results/batch.zip 17 --out row.zip
  provenn batch-item 0b5e6a5d5b0f4c6c9d0a1c9e1f1d2a3b 17 --server https://provenn.example --out row.zip

The row's number counts from 0, as --item of provenn check; FILE has the row, its certificate, and its path to the root
of the whole batch: provenn check FILE --model model.onnx. Nothing is proved before.

Exit codes: 0 written, 13 the bundle is not what it says, 2 bad input, 1 the service or the file cannot be had.

Manual: docs/batch.md"""

commands = typer.Typer()


@commands.command(epilog=EPILOG)
def batch(
    model: ModelFile,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="Inputs with their classes: .npz, .npy, .csv, .parquet, or images.")
    ],
    eps: Annotated[
        str | None, typer.Option(metavar="E[,E..]", help="Radii, as 0.03 or 8/255: a verdict at each.")
    ] = None,
    radius: Annotated[
        str | None, typer.Option(metavar="R", help="Instead: bracket every input's radius up to this one.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(metavar="T", help="Width of these brackets, as a share of their upper ends.")
    ] = 0.01,
    labels: Annotated[
        str | None, typer.Option(metavar="L", help="The classes where DATA has none: 7,2,1 or a labels.npy file.")
    ] = None,
    norm: Annotated[Literal["inf", "2", "1"], typer.Option(help="The norm that measures the radius.")] = "inf",
    clip: Clip = None,
    divide: Annotated[
        float | None, typer.Option(metavar="D", help="Every input is divided by this first, such as 255 for pixels.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(metavar="M[,M..]", help="Then this is subtracted: a number, or one a channel.")
    ] = None,
    std: Annotated[
        str | None, typer.Option(metavar="S[,S..]", help="Then it is divided by this: a number, or one a channel.")
    ] = None,
    layout: Annotated[
        Literal["chw", "hwc"], typer.Option(help="hwc: the inputs of DATA have their channels last.")
    ] = "chw",
    method: Annotated[
        str, typer.Option(help="auto, ibp, crown, ...: the names that `provenn backends` lists.")
    ] = "auto",
    semantics: Annotated[
        Literal["real", "float32"],
        typer.Option(help="What is proved: the network in real arithmetic, or every float32 execution of it."),
    ] = "real",
    timeout: Seconds = 600.0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the attack: the same seed, the same answer.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep rows, summary, plots and certificates in DIR, and go on there."),
    ] = None,
    server: Server = None,
    json: Json = False,
) -> int:
    """Certify many inputs together: verdicts at several radii or the radius of each, and accuracies over all."""
    from provenn.api.certification import Options
    from provenn.api.cli.batching import Request, preprocessing, question, run
    from provenn.api.cli.lipschitz import require_time

    asked = question(eps, radius, tolerance, norm, clip)
    if server is not None and device != "cpu":
        raise typer.BadParameter("a service chooses its device itself", param_hint="--device")
    request = Request(model, data, labels, preprocessing(divide, mean, std, layout), asked, out, server)
    return run(request, Options(method, require_time(timeout), device, seed, semantics=semantics), json)


@commands.command("batch-item", epilog=ITEM_EPILOG)
def item(
    batch: Annotated[str, typer.Argument(metavar="BATCH", help="A batch.zip; with --server the batch's id.")],
    row: Annotated[int, typer.Argument(metavar="K", min=0, help="The row's number, from 0.")],
    out: Annotated[Path, typer.Option(metavar="FILE.zip", help="Write the bundle of the row there.")],
    server: Server = None,
    json: Json = False,
) -> int:
    """Take one row out of a batch, with its certificate, to be checked without the others."""
    from provenn.api.cli.batch_items import Request, run

    return run(Request(batch, row, out, server), json)
