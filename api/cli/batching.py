"""`provenn batch`, from the options to the exit code: read, certify, keep, draw, say."""

from __future__ import annotations

import hashlib
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.batch.data import Data, read_data
from provenn.api.batch.question import Question
from provenn.api.batch.results import BUNDLE, RESULTS, SUMMARY, TABLE, write_parquet, write_summary
from provenn.api.batch.run import BatchResult, certify_batch
from provenn.api.batch.summary import Accuracy, Share
from provenn.api.certification import Options, load_model
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS
from provenn.api.cli.batch_charts import curve, histogram
from provenn.api.cli.certifying import CODES
from provenn.api.cli.chart import drawn
from provenn.api.cli.outcome import CannotWrite
from provenn.api.cli.progress import progress_bar
from provenn.api.cli.served import asking
from provenn.api.client.batches import HowBatch
from provenn.api.files import read_file
from provenn.api.report import overall
from provenn.api.statements import DISTANCE
from provenn.models.preprocessing import Layout, Preprocessing, preprocessed
from provenn.models.reading import executor
from provenn.solvers.base import Progress
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.numbers import exact

MODEL = "model.onnx"
CLASSES = 20
"""Of a table, at most."""


@dataclass(frozen=True)
class Request:
    """The options, as far as they could be understood before a file was read."""

    model: Path
    data: Path
    labels: str | None
    preprocessing: Preprocessing | None
    question: Question
    out: Path | None
    server: str | None


def question(
    eps: str | None, radius: str | None, tolerance: float, norm: str, clip: tuple[float, float] | None
) -> Question:
    """What --eps or --radius asks.   Raises: BadParameter naming the option."""
    if (eps is None) == (radius is None):
        raise BadParameter("give either --eps E,E,.. or --radius R", param_hint="--eps")
    try:
        epsilons = () if eps is None else tuple(part.strip() for part in eps.split(","))
        return Question(epsilons, None if radius is None else float(exact(radius)), tolerance, norm, clip)
    except InvalidSpecification as error:
        option = "--tolerance" if "tolerance" in str(error) else "--clip" if "range" in str(error) else None
        raise BadParameter(str(error), param_hint=option or ("--eps" if radius is None else "--radius")) from None


def preprocessing(divide: float | None, mean: str | None, std: str | None, layout: Layout) -> Preprocessing | None:
    """What is put before the network, None if nothing is.   Raises: BadParameter naming the option."""
    if divide is None and mean is None and std is None and layout == "chw":
        return None
    means, deviations = _numbers(mean, "--mean", 0.0), _numbers(std, "--std", 1.0)
    try:
        return Preprocessing(1.0 if divide is None else divide, means, deviations, layout)
    except InvalidModel as error:
        raise BadParameter(str(error), param_hint="--divide, --mean, --std") from None


def _numbers(text: str | None, option: str, absent: float) -> tuple[float, ...]:
    try:
        return (absent,) if text is None else tuple(float(exact(part.strip())) for part in text.split(","))
    except InvalidSpecification as error:
        raise BadParameter(f"{error}; give a number, or one a channel as 0.5,0.4,0.3", param_hint=option) from None


def run(request: Request, options: Options, as_json: bool) -> int:
    """Prints the accuracies and returns the verdict's code.   Raises: CannotWrite if --out cannot be written to."""
    return asking(lambda: _run(request, options, as_json), as_json)


def _run(request: Request, options: Options, as_json: bool) -> int:
    with progress_bar(remaining=True) as bar:
        content = read_file(request.model)
        if request.preprocessing is not None:
            content = preprocessed(content, request.preprocessing)
        data = read_data(request.data, executor(content).input_shape, request.labels)
        if request.out is not None:
            _prepare(request, content)
        try:
            if request.server is None:
                found, job = certify_batch(load_model(content), data, request.question, options, request.out, bar), None
            else:
                found, job = _served(request, content, data, options, bar)
        except OSError as error:
            raise CannotWrite(str(request.out or tempfile.gettempdir()), error) from error
    files = {} if request.out is None else _kept(request, request.out, found)
    verdict = overall([row.verdict for row in found.rows])
    said = {
        "verdict": verdict,
        "inputs": len(data),
        "rows": len(found.rows),
        "model_sha256": hashlib.sha256(content).hexdigest(),
        "question": request.question.as_json(),
        "job": job,
        "seconds": found.seconds,
        "root": found.root,
        "summary": found.summary.as_json(),
        "files": files,
    }
    outcome.show(said, as_view(said, found, request.question), as_json)
    return CODES[verdict]


def _served(
    request: Request, content: bytes, data: Data, options: Options, progress: Progress
) -> tuple[BatchResult, str]:
    """By a service, and its job; what it says is proved has been proved here.   Raises: as `Client.batch`."""
    from provenn.api.client import Client

    assert request.server is not None
    start = time.monotonic()
    how = HowBatch(method=options.method, timeout=options.seconds, seed=options.seed, semantics=options.semantics)
    with Client(request.server) as client:
        found = client.batch(content, data, request.question, request.out, progress=progress, **how)
    return BatchResult(found.rows, found.summary, found.root, time.monotonic() - start), found.origin.job


def _prepare(request: Request, content: bytes) -> None:
    """The folder, and the network in it that certificates are about where it is not the one given."""
    assert request.out is not None
    try:
        request.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(str(request.out), error) from error
    if request.preprocessing is not None:
        artifacts.write(request.out / MODEL, content)


def _kept(request: Request, folder: Path, found: BatchResult) -> dict[str, str]:
    """What the folder has in the end, by what it is.   Raises: CannotWrite."""
    files = {"results": folder / RESULTS, "summary": folder / SUMMARY, "bundle": folder / BUNDLE}
    files |= {"model": folder / MODEL} if request.preprocessing is not None else {}
    try:
        write_summary(files["summary"], found.summary, request.question, found.root, found.seconds)
        if find_spec("pyarrow") is not None:
            files["table"] = folder / TABLE
            write_parquet(files["table"], found.rows)
    except OSError as error:
        raise CannotWrite(str(folder), error) from error
    charts = {
        "curve": curve(found.summary, request.question, request.model.name),
        "histogram": histogram(found.rows, request.question, request.model.name),
    }
    formats = (".html", ".svg", ".png") if find_spec("matplotlib") is not None else (".html", ".svg")
    known = [(name, chart) for name, chart in charts.items() if chart is not None]
    for (name, chart), suffix in product(known, formats):
        path = folder / f"{name}{suffix}"
        files[name if suffix == ".html" else f"{name}_{suffix[1:]}"] = path
        artifacts.write(path, drawn(chart, path))
    return {key: str(path) for key, path in files.items()}


def as_view(said: dict[str, Any], found: BatchResult, asked: Question) -> RenderableType:
    """The verdict, a table of accuracies by radius and one by class, and what was written."""
    verdict = Text(said["verdict"], style=f"bold {COLOURS[said['verdict']]}")
    clean = found.summary.clean
    head = Text.assemble("verdict  ", verdict, f"   {said['inputs']} inputs   {found.seconds:.1f} s")
    right = Text(f"classified rightly  {_percent(clean)}")
    files = [Text(f"{name:<10}{path}") for name, path in said["files"].items()]
    kept = files or [Text("certificates were made and checked, not kept: give --out DIR")]
    return Group(head, right, Text(), _radii(found, asked), *_classes(found, asked), Text(), *kept)


def _radii(found: BatchResult, asked: Question) -> Table:
    how = f"radius ({DISTANCE[asked.norm]})"
    verdicts = ("verified", "falsified", "unknown", "timeout")
    table = Table(how, *verdicts, "certified accuracy", "accuracy under attack", box=None, pad_edge=False)
    for column in table.columns[1:5]:
        column.justify = "right"
    for each in _shown(found.summary.radii, asked):
        counts = (str(each.verdicts[verdict]) for verdict in verdicts)
        table.add_row(f"{each.epsilon:.6g}", *counts, _percent(each.certified), _percent(each.attacked))
    return table


def _shown(radii: tuple[Accuracy, ...], asked: Question) -> tuple[Accuracy, ...]:
    """All that were asked for; of those at which brackets are told, every fourth."""
    return radii if asked.largest is None else radii[3::4]


def _classes(found: BatchResult, asked: Question) -> list[RenderableType]:
    """Certified accuracy by class; nothing where there is one class."""
    classes = found.summary.classes
    if len(classes) < 2:
        return []
    radii = _shown(found.summary.radii, asked)
    heads = [f"certified at {each.epsilon:.6g}" for each in radii]
    table = Table("class", "inputs", "rightly", *heads, box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for label, one in list(classes.items())[:CLASSES]:
        shares = [f"{100 * each.certified.value:.1f} %" for each in _shown(one.radii, asked)]
        table.add_row(str(label), str(one.clean.total), f"{100 * one.clean.value:.1f} %", *shares)
    left = len(classes) - CLASSES
    more = [Text(f"... and {left} more classes; --json lists all")] if left > 0 else []
    return [Text(), table, *more]


def _percent(share: Share) -> str:
    return f"{100 * share.value:.1f} %  ({100 * share.low:.1f} to {100 * share.high:.1f})"
