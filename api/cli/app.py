"""The commands: options in, one library call, one answer out. Heavy imports wait until a command needs them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer
from typer.main import get_command

from provenn.api.cli import (
    batch,
    database,
    derivatives,
    export,
    gate,
    gc,
    keys,
    nap,
    nodes,
    outcome,
    place,
    signing,
    stability,
    tightness,
    worker,
)
from provenn.api.cli.arguments import Clip, Json, ModelFile, RegionNorm, Seconds
from provenn.api.cli.outcome import ExitCode
from provenn.verifier.errors import ProvennError

app = typer.Typer(
    name="provenn",
    help="Proves things about neural networks and hands back certificates that need not be trusted.",
    epilog="Begin with:\n\n  provenn inspect model.onnx\n  provenn certify --help\n\nManual: docs/cli.md",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

SpecFile = Annotated[
    Path | None,
    typer.Option("--spec", metavar="FILE", help="A property: VNN-LIB, or a document in TOML or JSON, of any kind."),
]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command line (the process's own if None) and returns its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    sys.excepthook = partial(outcome.internal, as_json)
    try:
        return int(get_command(app).main(given, prog_name="provenn", standalone_mode=False) or 0)
    except (ProvennError, typer.TyperException) as error:
        outcome.complain(error, as_json)
        return ExitCode.INTERNAL if isinstance(error, outcome.CannotWrite) else ExitCode.USAGE
    except typer.Abort:
        return ExitCode.INTERRUPTED


def _show_version(wanted: bool) -> None:
    if wanted:
        from provenn.api.cli.listings import versions

        print(versions()["provenn"])
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Proves things about neural networks and hands back certificates that need not be trusted."""


@app.command(epilog="Examples:\n\n  provenn inspect model.onnx\n  provenn inspect model.onnx.gz --json")
def inspect(model: ModelFile, json: Json = False) -> int:
    """Show what a network is: shapes, operators, parameters, digest. Exit code 2 if it cannot be read."""
    from provenn.api.cli import listings
    from provenn.api.files import read_file

    found = listings.network(read_file(model))
    outcome.show(found, listings.network_view(found), json)
    return ExitCode.VERIFIED


Semantics = Annotated[
    Literal["real", "float32"],
    typer.Option(
        help="What is proved of the network: in real arithmetic on the file's numbers, or as it runs: every float32 "
        "execution, in any order of summation, at the cost of a little margin."
    ),
]

StateFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Keep a search that time, memory or a signal ends in FILE; the same command goes on from there.",
    ),
]

Target = Annotated[
    int | None, typer.Option(metavar="T", help="The one class that must not win; default: any but the label.")
]
TopK = Annotated[
    int | None,
    typer.Option(min=1, metavar="K", help="In place of --label: the K largest outputs keep their labels, in order."),
]
Unordered = Annotated[bool, typer.Option("--unordered", help="With --top-k: they may change places.")]

BELONG = "--label, --eps, --norm, --clip, --target, --top-k and --unordered belong to --input"

CERTIFY_EPILOG = """Examples:

  provenn certify model.onnx --spec property.vnnlib --out proof
  provenn certify model.onnx --spec brightness.toml
  provenn certify model.onnx --input x.npy --label 3 --eps 0.03 --clip 0 1
  provenn certify model.onnx --input xs.npy --label ys.npy --eps 0.01 --eps 0.03
  provenn certify model.onnx --input x.npy --top-k 3 --eps 0.01 --clip 0 1

Exit codes: 0 verified (all of a batch), 10 falsified, 11 unknown, 12 timeout, 2 bad input,
1 internal error, or results that cannot be saved.

Anyone can then check the certificate: provenn check proof/certificate.zip --model model.onnx

Manual: docs/cli.md; what to write into FILE of --spec: docs/which_specification.md"""


@app.command(epilog=CERTIFY_EPILOG)
def certify(
    model: ModelFile,
    spec: SpecFile = None,
    inputs: Annotated[
        Path | None,
        typer.Option("--input", metavar="FILE.npy", help="One input, or a batch with a leading axis of any length."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(metavar="K", help="The class that must win: a number; for a batch 7,2,1 or a labels.npy file."),
    ] = None,
    eps: Annotated[
        list[str] | None,
        typer.Option(metavar="E", help="Radius around the input, as 0.03 or 8/255; repeat it for several."),
    ] = None,
    norm: Annotated[Literal["inf", "2", "1"], typer.Option(help="The norm that measures the radius.")] = "inf",
    clip: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="LO HI", help="Range every input value stays in, such as 0 1 for pixels."),
    ] = None,
    target: Target = None,
    top_k: TopK = None,
    unordered: Unordered = False,
    method: Annotated[
        str, typer.Option(help="auto, ibp, crown, ...: the names that `provenn backends` lists; or lipschitz.")
    ] = "auto",
    semantics: Semantics = "real",
    timeout: Annotated[float, typer.Option(metavar="SECONDS", help="Wall-clock limit of the computation.")] = 60.0,
    device: Annotated[str, typer.Option(help="Where to compute: cpu, cuda, cuda:1.")] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the attack: the same seed, the same answer.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Keep certificates and counterexamples in DIR; without it no file is written."
        ),
    ] = None,
    save: StateFile = None,
    cross_check: Annotated[
        bool,
        typer.Option("--cross-check", help="Compare with auto_LiRPA's bounds and sampled points; error if they clash."),
    ] = False,
    json: Json = False,
) -> int:
    """Prove a property of a network, or find a counterexample: give --spec, or --input with --label and --eps."""
    from provenn.api.cli.request import Request, Robustness

    robustness = None
    if spec is not None and inputs is not None:
        raise typer.BadParameter("give either --spec or --input, not both", param_hint="--spec")
    if inputs is not None:
        robustness = Robustness(inputs, label, eps or (), norm, clip, target, top_k, not unordered)
    elif label is not None or eps or clip is not None or target is not None or norm != "inf" or top_k or unordered:
        raise typer.BadParameter(BELONG, param_hint="--input")
    request = Request(model, robustness or spec, method, timeout, device, seed, out, cross_check, semantics, save)

    from provenn.api.cli.certifying import run

    return run(request, json)


LIPSCHITZ_EPILOG = """Examples:

  provenn lipschitz model.onnx --out proof
  provenn lipschitz model.onnx --rows pairs:3
  provenn lipschitz model.onnx --norm inf --to 1 --rows 0,2
  provenn lipschitz model.onnx --at x.npy --eps 0.1 --region-norm 2 --timeout 300
  provenn lipschitz model.onnx --norm inf --at x.npy --eps 8/255 --to inf --method crown
  provenn lipschitz model.onnx --norm 1 --at x.npy --eps 8/255 --to inf --method bab
  provenn lipschitz model.onnx --at xs.npy --eps 0.001,1/255,8/255 --out curve --plot curve.html
  provenn lipschitz model.onnx --method lipsdp-conic --solver clarabel

Methods: auto (until optimal, or the time ends), norm-product and eclipse-fast (milliseconds, loose), lipsdp-layer,
lipsdp-neuron (tightest everywhere, in l2), lipsdp-channel (large convolutions), lipsdp-conic (by cvxpy). Bounds of the
Jacobian, for all norms, in seconds around an input: crown, alpha-crown (optimised slopes), recurjac and ibp (looser,
to compare with), bab (branch and bound: exact on small networks). The checker proves every number.

Exit codes: 0 proved (all of several), 11 no proof, 12 no number in the time, 2 bad input, 1 internal error.

Manual: docs/lipschitz.md"""

SolverName = Annotated[
    Literal["clarabel", "scs", "mosek"] | None, typer.Option(help="Who solves lipsdp-conic; default clarabel.")
]


@app.command(epilog=LIPSCHITZ_EPILOG)
def lipschitz(
    model: ModelFile,
    method: Annotated[
        str,
        typer.Option(
            help="auto, norm-product, eclipse-fast, lipsdp-layer, -neuron, -channel or -conic; by bounds of the "
            "Jacobian: crown, alpha-crown, recurjac, ibp, bab."
        ),
    ] = "auto",
    solver: SolverName = None,
    norm: Annotated[Literal["2", "inf", "1"], typer.Option(help="The norm that measures inputs.")] = "2",
    to: Annotated[
        Literal["2", "inf", "1", "each"] | None,
        typer.Option(help="The norm that measures outputs, or each row by itself; default 2, for pairs each."),
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="ROWS", help="Which outputs: all, 3, 3-5, 0,2; differences: pairs, pairs:3.")
    ] = "all",
    scale: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Weights of the input's values in its norm; default 1.")
    ] = None,
    at: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npy", help="Centre of a region, or a batch of them; without it: everywhere."),
    ] = None,
    eps: Annotated[
        str | None,
        typer.Option(metavar="E[,E..]", help="Radius of the region around --at, as 0.03 or 8/255; or several."),
    ] = None,
    region_norm: RegionNorm = "inf",
    clip: Clip = None,
    timeout: Seconds = 60.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the search for the lower bound.")] = 0,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Keep the certificates in DIR.")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw constants against the radius: FILE.png, .svg or .html.")
    ] = None,
    json: Json = False,
) -> int:
    """Bound how much a network's outputs can change per change of its inputs, with a certificate."""
    from provenn.api.cli import lipschitz as command
    from provenn.api.lipschitz import Options

    request = command.Request(model, norm, to, rows, scale, at, eps, region_norm, clip, out, plot)
    return command.run(request, Options(method, solver, command.require_time(timeout), seed), json)


RADIUS_EPILOG = """Examples:

  provenn radius model.onnx --input xs.npy --label ys.npy
  provenn radius model.onnx --input xs.npy --label ys.npy --out radii --plot curve.png

Lipschitz constants of the differences of outputs are proved once for all inputs; how long that may take is --timeout.

Exit codes: 0 all radii are known, 11 no proof, 12 no number in the time, 2 bad input, 1 internal error.

Manual: docs/lipschitz.md"""


@app.command(epilog=RADIUS_EPILOG)
def radius(
    model: ModelFile,
    inputs: Annotated[
        Path, typer.Option("--input", metavar="FILE.npy", help="One input, or a batch with a leading axis.")
    ],
    label: Annotated[
        str,
        typer.Option(metavar="K", help="The class that must win: a number; for a batch 7,2,1 or a labels.npy file."),
    ],
    norm: Annotated[Literal["2", "inf"], typer.Option(help="The norm that measures the radius.")] = "2",
    method: Annotated[str, typer.Option(help="How constants are bounded: as of provenn lipschitz.")] = "auto",
    solver: SolverName = None,
    timeout: Seconds = 60.0,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep curve.json and the constants' certificate in DIR.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw certified accuracy by radius: FILE.png, .svg or .html.")
    ] = None,
    json: Json = False,
) -> int:
    """Find the radius around every input within which its class is certain, from Lipschitz constants."""
    from provenn.api.cli import radius as command
    from provenn.api.cli.lipschitz import require_time
    from provenn.api.lipschitz import Options

    request = command.Request(model, inputs, label, norm, out, plot)
    return command.run(request, Options(method, solver, require_time(timeout)), json)


app.registered_commands += batch.commands.registered_commands  # listed here
app.registered_commands += derivatives.commands.registered_commands
app.registered_commands += tightness.commands.registered_commands
app.registered_commands += stability.commands.registered_commands
app.registered_commands += export.commands.registered_commands
app.registered_commands += gate.commands.registered_commands
app.add_typer(signing.commands)
app.add_typer(keys.commands)
app.add_typer(nap.commands)
app.registered_commands += worker.commands.registered_commands
app.registered_commands += place.commands.registered_commands
app.registered_commands += nodes.commands.registered_commands
app.add_typer(database.commands)
app.registered_commands += gc.commands.registered_commands


CHECK_EPILOG = """Examples:

  provenn check proof/certificate.zip --model model.onnx
  provenn check proof/certificate.zip --model model.onnx --spec property.vnnlib
  provenn check certificate.zip --model model.onnx --keys keys.json --require-signature
  provenn check results/batch.zip --model model.onnx --data test.npz
  provenn check results/batch.zip --model model.onnx --item 17

Exit codes: 0 accepted, 13 rejected, 14 accepted with a bad signature, 2 bad input.
With --spec the certificate must also be about exactly that property.
Whether it is true and who said it are two questions, and both are answered: keys.json is the answer of GET /v1/keys.
Of a batch every row is checked: that its certificate proves exactly that, and with --data that its input is that one.

The checker needs neither torch nor the program that made the certificate."""


@app.command(epilog=CHECK_EPILOG)
def check(
    certificate: Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="A certificate: a zip file or a folder.")],
    model: Annotated[
        Path, typer.Option(metavar="MODEL", help="The network it is about: .onnx or .safetensors, gzip or not.")
    ],
    spec: SpecFile = None,
    keys: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Public keys, one of which must have signed it if it is signed."),
    ] = None,
    require_signature: Annotated[
        bool, typer.Option("--require-signature", help="Only a certificate that one of --keys has signed will do.")
    ] = False,
    data: Annotated[
        Path | None, typer.Option(metavar="DATA", help="Of a batch: what it must be about; runs counterexamples, too.")
    ] = None,
    labels: Annotated[str | None, typer.Option(metavar="L", help="The classes where DATA has none.")] = None,
    item: Annotated[int | None, typer.Option(min=0, metavar="K", help="Of a batch: this row alone.")] = None,
    json: Json = False,
) -> int:
    """Re-prove every claim of a certificate with the trusted checker, and say who signed it."""
    from provenn.api.batch.bundle import is_batch
    from provenn.api.cli import batch_checking, checking

    if require_signature and keys is None:
        raise typer.BadParameter("give --keys: whose signatures count", param_hint="--require-signature")
    if is_batch(certificate):
        asked = batch_checking.Asked(certificate, model, spec, data, labels, item, keys)
        found = batch_checking.examine(asked)
        outcome.show(found, batch_checking.as_view(found), json)
        return checking.code(found, keys, require_signature)
    if data is not None or labels is not None or item is not None:
        raise typer.BadParameter("--data, --labels and --item belong to a batch", param_hint="--data")
    found = checking.examine(certificate, model, spec, keys)
    outcome.show(found, checking.as_view(found), json)
    return checking.code(found, keys, require_signature)


SERVE_EPILOG = """Examples:

  provenn serve
  provenn serve --port 9000 --data-dir /var/lib/provenn --workers 4

Every setting can also come from the environment, such as PROVENN_PORT=9000: docs/cli.md lists them.
Beyond 127.0.0.1 it listens only with PROVENN_AUTHENTICATION=keys; `provenn keys create` makes the first key."""


@app.command(epilog=SERVE_EPILOG)
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on; default 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one; default 8000.")
    ] = None,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder of the database and the blobs; default provenn-data.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Jobs that run at the same time; default 2; 0: others run them.")
    ] = None,
    json: Json = False,
) -> int:
    """Run the REST service until it is interrupted."""
    from provenn.api.cli import serving

    settings = serving.settings(host=host, port=port, data_dir=data_dir, workers=workers)
    outcome.show(serving.described(settings), serving.as_view(settings), json)
    serving.run(settings)
    return ExitCode.VERIFIED


@app.command(epilog="Examples:\n\n  provenn ops\n  provenn ops --json")
def ops(json: Json = False) -> int:
    """List the operators that networks may use."""
    from provenn.api.cli import listings

    rows = listings.operators()
    outcome.show({"ops": rows}, listings.table(rows), json)
    return ExitCode.VERIFIED


@app.command(epilog="Examples:\n\n  provenn backends\n  provenn backends --json")
def backends(json: Json = False) -> int:
    """List the methods that --method may name, and what each can do here."""
    from provenn.api.cli import listings

    rows = listings.backends()
    outcome.show({"backends": rows}, listings.table(rows), json)
    return ExitCode.VERIFIED


@app.command(epilog="Examples:\n\n  provenn version\n  provenn version --json")
def version(json: Json = False) -> int:
    """Show the versions of Provenn and of what its results depend on."""
    from provenn.api.cli import listings

    found = listings.versions()
    outcome.show(found, listings.facts(found), json)
    return ExitCode.VERIFIED
