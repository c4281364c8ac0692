"""`provenn radius`, from the options to the exit code: read, bound, keep, draw, say."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.certification import load_model
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS
from provenn.api.cli.certifying import CODES
from provenn.api.cli.chart import Chart, Line, axis, drawn, require_drawable
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.cli.questions import require_class
from provenn.api.files import read_file, read_inputs, read_labels
from provenn.api.lipschitz import Options
from provenn.api.radius import Batch, Radii, radii
from provenn.api.statements import DISTANCE, at_least


@dataclass(frozen=True)
class Request:
    """The options as given."""

    model: Path
    inputs: Path
    labels: str
    norm: str
    out: Path | None
    plot: Path | None

    def batch(self, shape: tuple[int, ...], classes: int) -> Batch:
        """What is asked.   Raises: InvalidFile; BadParameter naming the option."""
        inputs = read_inputs(self.inputs, shape)
        try:
            labels = read_labels(self.labels, len(inputs))
        except ValueError as reason:
            raise BadParameter(str(reason), param_hint="--label") from None
        for label in labels:
            require_class(label, classes, "--label")
        return Batch(inputs, labels, self.norm)


def run(request: Request, options: Options, as_json: bool) -> int:
    """Prints the radii and returns the exit code; INTERNAL if something could not be written."""
    trouble = artifacts.prepared(request.out)
    if request.plot is not None:
        require_drawable(request.plot)
    with progress_bar() as bar:
        model = load_model(read_file(request.model))
        found = radii(model, request.batch(model.graph.input_shape, math.prod(model.graph.output_shape)), options, bar)
    kept: dict[str, str | None] = {"certificate": None, "curve_file": None, "plot": None}
    try:
        if request.out is not None and trouble is None:
            kept |= _kept(request.out, found)
        if request.plot is not None:
            kept["plot"] = artifacts.write(request.plot, drawn(_chart(found, request.model.name), request.plot))
    except CannotWrite as error:
        trouble = error
    said = {**found.as_json(), **kept} | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, _as_view(found, kept), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[found.constants.verdict]


def _kept(folder: Path, found: Radii) -> dict[str, str | None]:
    """Writes the certificate and the curve.   Raises: CannotWrite."""
    text = json.dumps(found.as_json(), indent=1, allow_nan=False).encode() + b"\n"
    proof = found.constants.certificate
    return {
        "certificate": None if proof is None else artifacts.keep_certificate(folder, proof),
        "curve_file": artifacts.write(folder / "curve.json", text),
    }


def _as_view(found: Radii, kept: dict[str, Any]) -> RenderableType:
    table, constants, count = Table.grid(padding=(0, 3)), found.constants, len(found.radii)
    table.add_row("verdict", Text(constants.verdict, style=f"bold {COLOURS[constants.verdict]}"))
    table.add_row("inputs", f"{count}, of which {sum(r > 0 for r in found.radii)} have a radius above 0")
    table.add_row("radius", f"{DISTANCE[constants.norm]}: {_summary(found.radii)}")
    table.add_row("method", constants.method)
    table.add_row("seconds", f"{found.seconds:.3f}")
    if reason := found.as_json()["reason"]:
        table.add_row("reason", Text(reason))
    for name, path in kept.items():
        if path is not None:
            table.add_row(name.replace("_", " "), Text(path))
    return table


def _summary(values: list[float]) -> str:
    if len(values) == 1:
        return at_least(values[0])
    return f"median {at_least(statistics.median_low(values))}, largest {at_least(max(values))}"


def _chart(found: Radii, model: str) -> Chart:
    """Accuracy stays up to every radius of the curve, and falls there to that of the next."""
    points = [(point["radius"], 100 * point["accuracy"]) for point in found.curve()]
    after = [accuracy for _, accuracy in points[1:]] + [0.0]
    steps = [corner for (x, y), next_y in zip(points, after, strict=True) for corner in ((x, y), (x, next_y))]
    end = points[-1][0] * 1.05 or 1.0
    what, how_far = "certified accuracy, %", f"radius ({DISTANCE[found.constants.norm]})"
    return Chart(
        f"{model}: {what}",
        f"The share of {len(found.radii)} inputs whose class is certain within a radius, which falls with the radius.",
        axis(how_far, [0.0, end]),
        axis(what, [0.0, 100.0]),
        [Line(what, [*steps, (end, 0.0)], marked=False)],
        [],
        (how_far, what),
        [(at_least(radius), f"{accuracy:.6g}") for radius, accuracy in points],
    )
