"""`provenn nap`: its commands, their options and what `--help` teaches."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from provenn.api.cli.arguments import Clip, Json, ModelFile, Seconds

commands = typer.Typer(
    name="nap",
    help="Neural activation patterns: mine them, measure them, prove what follows from them.",
    epilog="Examples:\n\n  provenn nap mine model.onnx train.npz --delta 0.99 --out patterns\n"
    "  provenn nap verify model.onnx --pattern patterns/pattern-3.json --box 0 1\n\nManual: docs/nap.md",
    no_args_is_help=True,
)

DataFile = Annotated[
    Path, typer.Argument(metavar="DATA", help="Inputs with their classes: .npz, .npy, .csv, .parquet, or images.")
]
Labels = Annotated[
    str | None, typer.Option(metavar="L", help="The classes where DATA has none: 7,2,1 or a labels.npy file.")
]
PatternFile = Annotated[Path, typer.Option("--pattern", metavar="FILE.json", help="A pattern that `mine` has written.")]
PatternFiles = Annotated[
    list[Path], typer.Option("--pattern", metavar="FILE.json", help="A pattern file; repeat it for more.")
]
At = Annotated[Path | None, typer.Option(metavar="FILE.npy", help="Centre of the region.")]
Eps = Annotated[str | None, typer.Option(metavar="E", help="Radius of the region around --at, as 0.03 or 8/255.")]
Box = Annotated[
    tuple[str, str] | None,
    typer.Option(metavar="LO HI", help="Instead: every input between these two numbers, such as 0 1."),
]
Margin = Annotated[str | None, typer.Option(metavar="M", help="What pre-activations of active neurons are at least.")]
Method = Annotated[str, typer.Option(help="auto, alpha-crown, ...: the names that `provenn backends` lists.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the attack: the same seed, the same answer.")]
Out = Annotated[Path | None, typer.Option(metavar="DIR", help="Keep certificate, question and counterexample in DIR.")]

CODES = "Exit codes: 0 verified, 10 falsified, 11 unknown, 12 timeout, 2 bad input, 1 internal error."

MINE_EPILOG = """Examples:

  provenn nap mine model.onnx train.npz --out patterns
  provenn nap mine model.onnx xs.npy --labels ys.npy --delta 0.95 --class 3 --class 5 --out patterns
  provenn nap mine model.onnx train.npz --predicted --layer relu_2 --delta 0.99 --out patterns --json

A neuron is active in the pattern of a class if its pre-activation is above 0 for at least the share delta of the
samples of the class, inactive if it is not for at least this share, and free otherwise. Samples that the network gives
another class than the data do not count, unless --wrong is given. DIR/pattern-K.json is the pattern of class K.

Manual: docs/nap.md"""


@commands.command(epilog=MINE_EPILOG)
def mine(
    model: ModelFile,
    data: DataFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where pattern files are written.")],
    labels: Labels = None,
    delta: Annotated[
        str, typer.Option(metavar="D", help="Share of samples that must agree, above 1/2, at most 1.")
    ] = "1",
    classes: Annotated[
        list[int] | None, typer.Option("--class", metavar="K", min=0, help="Of this class; repeat it; default: all.")
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Over the ReLU with this output; repeat it; default: all ReLUs."),
    ] = None,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="Count samples by the class that the network gives them.")
    ] = False,
    wrong: Annotated[
        bool, typer.Option("--wrong", help="Count misclassified samples, too, by the class in the data.")
    ] = False,
    json: Json = False,
) -> int:
    """Mine the delta-relaxed pattern of every class from data."""
    from provenn.api.activation_patterns import Mining
    from provenn.api.cli import patterns

    chosen = (None if classes is None else tuple(classes), None if layer is None else tuple(layer))
    how = Mining(patterns.number(delta, "--delta"), *chosen, "predicted" if predicted else "dataset", wrong)
    return patterns.mine(patterns.Data(model, data, labels), how, out, json)


@commands.command(
    epilog="Examples:\n\n  provenn nap coverage model.onnx test.npz --pattern patterns/pattern-3.json "
    "--pattern patterns/pattern-5.json\n\nRecall: the share of a class that follows its pattern; precision: the share "
    "of what follows it that is of the class.\n\nManual: docs/nap.md"
)
def coverage(model: ModelFile, data: DataFile, pattern: PatternFiles, labels: Labels = None, json: Json = False) -> int:
    """Measure on held-out data how many inputs follow patterns, and whether they are of the class."""
    from provenn.api.cli import patterns

    return patterns.coverage(patterns.Data(model, data, labels), tuple(pattern), json)


VERIFY_EPILOG = f"""Examples:

  provenn nap verify model.onnx --pattern patterns/pattern-3.json --box 0 1 --out proof
  provenn nap verify model.onnx --pattern patterns/pattern-3.json --at x.npy --eps 0.2 --clip 0 1
  provenn check proof/certificate.zip --model model.onnx --spec proof/question.json

{CODES}

Manual: docs/nap.md"""


@commands.command(epilog=VERIFY_EPILOG)
def verify(
    model: ModelFile,
    pattern: PatternFile,
    at: At = None,
    eps: Eps = None,
    clip: Clip = None,
    box: Box = None,
    target: Annotated[
        int | None, typer.Option(metavar="T", min=0, help="The one class that must not win; default: any other.")
    ] = None,
    margin: Margin = None,
    method: Method = "auto",
    timeout: Seconds = 60.0,
    seed: Seed = 0,
    out: Out = None,
    json: Json = False,
) -> int:
    """Prove that every input of a region that follows a pattern gets the pattern's class, or find one that does not."""
    from provenn.api.cli import patterns

    question = patterns.Question(pattern, None, patterns.Where(at, eps, clip, box), margin, target)
    return patterns.verify(model, question, patterns.options(method, timeout, seed), out, json)


EXCLUDE_EPILOG = f"""Examples:

  provenn nap exclude model.onnx --pattern patterns/pattern-3.json --pattern patterns/pattern-5.json --box 0 1

{CODES}

Manual: docs/nap.md"""


@commands.command(epilog=EXCLUDE_EPILOG)
def exclude(
    model: ModelFile,
    pattern: PatternFiles,
    at: At = None,
    eps: Eps = None,
    clip: Clip = None,
    box: Box = None,
    margin: Margin = None,
    method: Method = "auto",
    timeout: Seconds = 60.0,
    seed: Seed = 0,
    out: Out = None,
    json: Json = False,
) -> int:
    """Prove that no input of a region follows the patterns of two classes, or find one that does."""
    from provenn.api.cli import patterns

    if len(pattern) != 2:
        raise typer.BadParameter(f"give two patterns, not {len(pattern)}", param_hint="--pattern")
    question = patterns.Question(pattern[0], pattern[1], patterns.Where(at, eps, clip, box), margin, None)
    return patterns.verify(model, question, patterns.options(method, timeout, seed), out, json)


RADIUS_EPILOG = """Examples:

  provenn nap radius model.onnx --pattern patterns/pattern-3.json --at x.npy --clip 0 1 --timeout 20

Both radii are bracketed by doubling and bisection: a certificate at the lower end, each question within --timeout.

Manual: docs/nap.md"""


@commands.command(epilog=RADIUS_EPILOG)
def radius(
    model: ModelFile,
    pattern: PatternFile,
    at: Annotated[Path, typer.Option(metavar="FILE.npy", help="The input.")],
    clip: Clip = None,
    largest: Annotated[str, typer.Option(metavar="R", help="Up to this radius.")] = "1",
    method: Method = "auto",
    timeout: Seconds = 20.0,
    seed: Seed = 0,
    json: Json = False,
) -> int:
    """Find the largest radius around an input that is verified, without and with a pattern."""
    from provenn.api.activation_patterns import Search
    from provenn.api.cli import patterns

    search = Search(largest=patterns.number(largest, "--largest"))
    return patterns.radius((model, pattern, at), clip, search, patterns.options(method, timeout, seed), json)
