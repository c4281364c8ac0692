"""`provenn tightness`, from the options to the exit code: read, measure, draw, say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.cli import artifacts, outcome
from provenn.api.cli.chart import Axis, Chart, Line, axis, drawn, require_drawable
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import Bar, progress_bar
from provenn.api.cli.questions import require_class
from provenn.api.files import read_file, read_inputs, read_labels
from provenn.api.tightness import Question, TightnessResult, measure
from provenn.models.reading import read
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.graph import Graph
from provenn.verifier.numbers import exact

TIGHTNESS = "tightness"


@dataclass(frozen=True)
class Request:
    """The options as given."""

    models: tuple[Path, ...]
    inputs: Path
    labels: str | None
    epsilon: str
    clip: tuple[float, float] | None
    layers: bool
    plot: Path | None

    def question(self, graph: Graph) -> Question:
        """What is asked of one network.   Raises: InvalidFile; BadParameter naming the option; InvalidSpecification."""
        inputs = read_inputs(self.inputs, graph.input_shape)
        try:
            labels = None if self.labels is None else read_labels(self.labels, len(inputs))
        except ValueError as reason:
            raise BadParameter(str(reason), param_hint="--label") from None
        for label in labels or ():
            require_class(label, math.prod(graph.output_shape), "--label")
        try:
            radius = float(exact(self.epsilon))
        except InvalidSpecification as error:
            raise BadParameter(f"{error}; give a radius such as 0.03 or 8/255", param_hint="--eps") from None
        return Question(inputs, None if labels is None else np.array(labels), radius, self.clip, self.layers)


@dataclass(frozen=True, eq=False)
class Answer:
    """What was measured of every network."""

    request: Request
    found: tuple[TightnessResult, ...]
    plot: str | None = None


def run(request: Request, as_json: bool) -> int:
    """Prints what was measured; INTERNAL if the plot could not be written."""
    if request.plot is not None:
        require_drawable(request.plot)
    found = []
    with progress_bar() as bar:
        for path in request.models:
            found.append(_measured(request, path, bar))
    trouble: CannotWrite | None = None
    plot: str | None = None
    if request.plot is not None:
        try:
            plot = artifacts.write(request.plot, drawn(chart(request, found), request.plot))
        except CannotWrite as error:
            trouble = error
    answer = Answer(request, tuple(found), plot)
    said = _as_json(answer) | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, _as_view(answer), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return ExitCode.VERIFIED


def _measured(request: Request, path: Path, bar: Bar) -> TightnessResult:
    """One network.   Raises: InvalidModel, UnsupportedOp, naming the file; as `Request.question`."""
    try:
        graph = read(read_file(path))
        return measure(graph, request.question(graph), bar)
    except InvalidModel as error:
        error.args = (f"{path}: {error}",)
        raise


def chart(request: Request, found: list[TightnessResult]) -> Chart:
    """By network, where there are several, else by layer."""
    title = f"{request.models[0].name}: propagation tightness" if len(found) == 1 else "propagation tightness"
    described = (
        "The radius of the box that the linear map active at an input needs, over that of layer-by-layer intervals."
    )
    if len(found) > 1:
        values, names, what = [each.tightness for each in found], [path.stem for path in request.models], "network"
    else:
        layers = [(layer.name, layer.tightness) for layer in found[0].layers]
        layers = layers[:-1] if request.labels is not None and layers else layers
        rows = [*layers, ("margins", found[0].tightness)] if request.labels is not None or not layers else layers
        names, values, what = [name for name, _ in rows], [value for _, value in rows], "layer"
    places = list(range(1, len(values) + 1))
    across: Axis = axis(what, places, names)
    points = list(zip(map(float, places), values, strict=True))
    table = [(name, f"{value:.4g}") for name, value in zip(names, values, strict=True)]
    up = axis(TIGHTNESS, [0.0, *values])
    return Chart(title, described, across, up, [Line(TIGHTNESS, points)], [], (what, TIGHTNESS), table)


def _as_json(answer: Answer) -> dict[str, Any]:
    request = answer.request
    networks = [
        {
            "model": str(path),
            "tightness": each.tightness,
            "outputs": each.outputs.mean(0).tolist(),
            "layers": [vars(layer) for layer in each.layers],
            "inputs": len(each.outputs),
            "seconds": each.seconds,
        }
        for path, each in zip(request.models, answer.found, strict=True)
    ]
    measured = "margins" if request.labels is not None else "outputs"
    about = {"epsilon": request.epsilon, "clip": None if request.clip is None else list(request.clip)}
    return {"networks": networks, "of": measured, **about, "plot": answer.plot}


def _as_view(answer: Answer) -> RenderableType:
    request = answer.request
    rows: list[RenderableType]
    what = "margins" if request.labels is not None else "outputs"
    if len(answer.found) > 1:
        table = Table("network", f"tightness ({what})", "inputs", box=None, pad_edge=False)
        for path, each in zip(request.models, answer.found, strict=True):
            table.add_row(Text(str(path)), f"{each.tightness:.4f}", str(len(each.outputs)))
        rows = [table]
    else:
        (found,) = answer.found
        facts = Table.grid(padding=(0, 3))
        facts.add_row("tightness", Text(f"{found.tightness:.4f}", style="bold"))
        facts.add_row("of", f"{what} at {len(found.outputs)} inputs")
        facts.add_row("seconds", f"{found.seconds:.3f}")
        rows = [facts]
        if found.layers:
            layers = Table("behind layer", "op", TIGHTNESS, box=None, pad_edge=False)
            for layer in found.layers:
                layers.add_row(Text(layer.name), layer.op, f"{layer.tightness:.4f}")
            rows = [facts, Text(), layers]
    if answer.plot is not None:
        rows += [Text(), Text(f"plot: {answer.plot}")]
    return Group(*rows)
