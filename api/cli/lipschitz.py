"""`provenn lipschitz`, from the options to the exit code: read, bound, keep, say."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.cli import artifacts, lipschitz_curve, outcome
from provenn.api.cli.answers import COLOURS, MEANING
from provenn.api.cli.certifying import CODES
from provenn.api.cli.chart import require_drawable
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.files import InvalidFile, read_array, read_file, read_inputs
from provenn.api.lipschitz import LipschitzResult, Options, bound, load
from provenn.api.lipschitz_curve import Balls, curve, increasing
from provenn.api.lipschitz_question import Around, Question, matrix
from provenn.api.statements import DISTANCE, at_least, at_most, named
from provenn.verifier.errors import InvalidSpecification

SHOWN = 30


@dataclass(frozen=True)
class Request:
    """The options as given.   Raises: BadParameter for one that is missing or makes no sense.

    eps: one radius, or several separated by commas.
    """

    model: Path
    norm: str
    to: str | None
    rows: str
    scale: Path | None
    at: Path | None
    eps: str | None
    region_norm: str
    clip: tuple[float, float] | None
    out: Path | None
    plot: Path | None = None

    def __post_init__(self) -> None:
        if (self.at is None) != (self.eps is None):
            missing, given = ("--at", "--eps") if self.at is None else ("--eps", "--at")
            raise BadParameter(f"is missing: {given} needs it, for the region is both", param_hint=missing)
        if self.at is None and (self.clip is not None or self.region_norm != "inf"):
            raise BadParameter("--region-norm and --clip belong to --at with --eps", param_hint="--at")
        if self.clip is not None and not -math.inf < self.clip[0] < self.clip[1] < math.inf:
            reason = f"{self.clip[0]} {self.clip[1]} is not a range; give finite LO HI with LO below HI"
            raise BadParameter(reason, param_hint="--clip")
        if self.plot is not None and self.at is None:
            reason = "draws constants against the radius of regions: give --at with --eps too"
            raise BadParameter(reason, param_hint="--plot")
        if len(self.radii) > 1:
            try:
                increasing(self.radii)
            except InvalidSpecification as error:
                raise BadParameter(str(error), param_hint="--eps") from None

    @property
    def radii(self) -> list[str]:
        """As they were said; none without a region."""
        return [] if self.eps is None else [part.strip() for part in self.eps.split(",")]

    def asked(self, shape: tuple[int, ...]) -> tuple[Question, Balls | None]:
        """What is asked of a network with inputs of this shape; where there are several regions they stand beside it.

        Raises: InvalidFile naming the array; BadParameter for a plot of one number.
        """
        weights = None if self.scale is None else _weights(self.scale, shape)
        question = Question(self.norm, self.to, self.rows, weights)
        if self.at is None:
            return question, None
        centres = read_inputs(self.at, shape)
        if max(len(centres), len(self.radii)) > 1:
            return question, Balls(centres, self.radii, self.region_norm, self.clip)
        if self.plot is not None:
            reason = "there is one point and one radius: give several radii (--eps 0.01,0.02) or points to draw"
            raise BadParameter(reason, param_hint="--plot")
        region = Around(centres[0].tolist(), self.radii[0], self.region_norm, self.clip)
        return replace(question, region=region), None


def run(request: Request, options: Options, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if --out or --plot could not be written."""
    trouble = artifacts.prepared(request.out)
    if request.plot is not None:
        require_drawable(request.plot)
    start = time.monotonic()
    with progress_bar() as bar:
        model = load(read_file(request.model))
        question, balls = request.asked(model.graph.input_shape)
        if balls is None:
            result = bound(model, question, options, bar)
        else:
            files = lipschitz_curve.Files(request.out, trouble)
            found = curve(model, balls, question, options, bar, files.keep)
    rows = matrix(request.rows, math.prod(model.graph.output_shape))
    if balls is not None:
        return lipschitz_curve.show(
            lipschitz_curve.Answer(found, rows, request.model.name, request.plot), files, as_json
        )
    path = None
    if request.out is not None and trouble is None and result.certificate is not None:
        try:
            path = artifacts.keep_certificate(request.out, result.certificate)
        except CannotWrite as error:
            trouble = error
    said = _as_json(result, path, time.monotonic() - start)
    said |= {"error": outcome.described(trouble)} if trouble else {}
    outcome.show(said, _as_view(result, rows, path, request.out), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[result.verdict]


def require_time(seconds: float) -> float:
    """Itself.   Raises: BadParameter unless it is a time above zero."""
    if not 0 < seconds < math.inf:
        raise BadParameter(f"{seconds} is not a time; give seconds above 0", param_hint="--timeout")
    return seconds


def _weights(path: Path, shape: tuple[int, ...]) -> list[float]:
    array = read_array(path)
    size = math.prod(shape)
    if array.shape not in (shape, (size,)):
        raise InvalidFile(path, f"has shape {list(array.shape)}, but the network takes {list(shape)}")
    if not (array > 0).all():
        raise InvalidFile(path, f"has the value {array.min()}; weights are above 0")
    return [float(weight) for weight in array.reshape(-1)]


def _as_json(result: LipschitzResult, path: str | None, seconds: float) -> dict[str, Any]:
    return {
        "verdict": result.verdict,
        "upper": result.upper,
        "lower": result.lower,
        "method": result.method,
        "norm": result.norm,
        "output_norm": result.output_norm,
        "rows": result.rows,
        "seconds": seconds,
        "assurance": result.assurance,
        "certificate": path,
        "gap": result.gap,
        "well_posed": result.well_posed,
        "reason": result.reason,
        "stats": result.stats,
    }


def _as_view(
    result: LipschitzResult, rows: tuple[tuple[float, ...], ...], path: str | None, out: Path | None
) -> RenderableType:
    table = Table.grid(padding=(0, 3))
    table.add_row("verdict", Text(result.verdict, style=f"bold {COLOURS[result.verdict]}"))
    outward = "each by itself" if result.output_norm == "each" else DISTANCE[result.output_norm]
    table.add_row("question", Text(f"{named(rows)}, {outward}, against {DISTANCE[result.norm]} of the inputs"))
    if isinstance(result.upper, float) and isinstance(result.lower, float):
        table.add_row("upper bound", f"{at_most(result.upper)}  (proved)")
        table.add_row("lower bound", f"{at_least(result.lower)}  (a pair of inputs)")
    table.add_row("method", result.method)
    if result.gap is not None:
        table.add_row("gap", f"this method's optimum is at most {100 * result.gap:.2g} % below the upper bound")
    if result.well_posed is not None:
        posed = "proved: one fixed point for every input" if result.well_posed else "not proved"
        table.add_row("well posed", posed)
    table.add_row("seconds", f"{result.seconds:.3f}")
    if result.assurance:
        table.add_row("assurance", f"{result.assurance}: {MEANING[result.assurance]}")
    if result.reason:
        table.add_row("reason", Text(result.reason))
    if result.certificate is not None:
        table.add_row("certificate", Text(path or f"made and checked, {outcome.unkept(out)}"))
    return table if not isinstance(result.upper, list) else Group(table, Text(), *_each(result, rows))


def _each(result: LipschitzResult, rows: tuple[tuple[float, ...], ...]) -> list[RenderableType]:
    """A line a row."""
    assert isinstance(result.upper, list)
    assert isinstance(result.lower, list)
    table = Table("rows", "upper bound", "lower bound", box=None, pad_edge=False)
    for row, upper, lower in list(zip(rows, result.upper, result.lower, strict=True))[:SHOWN]:
        table.add_row(named([row]), at_most(upper), at_least(lower))
    more = len(rows) - SHOWN
    return [table, *([Text(f"... and {more} more; --json lists all")] if more > 0 else [])]
