"""`provenn jacobian`, from the options to the exit code: read, bound, keep, say."""

from __future__ import annotations

import io
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.certification import LoadedModel, load_model
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS, MEANING
from provenn.api.cli.certifying import CODES
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.cli.regions import Where
from provenn.api.domain import Domain, Place
from provenn.api.files import read_file
from provenn.api.jacobian import JacobianResult, Question, jacobian
from provenn.api.lipschitz_question import matrix
from provenn.api.monotonicity import Options
from provenn.api.statements import at_least, at_most, named

SHOWN, LARGEST = 60, 10
"""Entries that a table has, at most; of more, those of the largest magnitude."""


@dataclass(frozen=True)
class Request:
    """The options as given."""

    model: Path
    rows: str
    where: Where
    out: Path | None


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known; rows: of C in words; names: of the inputs; kept: where it was written, of what out should
    have.
    """

    result: JacobianResult
    asked: str
    rows: tuple[str, ...]
    names: tuple[str, ...]
    kept: dict[str, str | None]
    out: Path | None


def run(request: Request, options: Options, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if --out could not be written."""
    trouble = artifacts.prepared(request.out)
    start = time.monotonic()
    with progress_bar() as bar:
        model = load_model(read_file(request.model), slopes=True)
        domain = request.where.read(math.prod(model.graph.input_shape))
        result = jacobian(model, Question(_place(request, model, domain), request.rows), options, bar)
    kept: dict[str, str | None] = {"certificate": None, "bounds": None}
    if request.out is not None and trouble is None and result.certificate is not None:
        try:
            kept["certificate"] = artifacts.keep_certificate(request.out, result.certificate)
            kept["bounds"] = artifacts.write(request.out / "jacobian.npz", _packed(result))
        except CannotWrite as error:
            trouble = error
    rows = tuple(named([row]) for row in matrix(request.rows, math.prod(model.graph.output_shape)))
    answer = Answer(result, request.rows, rows, _names(model, domain), kept, request.out)
    said = _as_json(answer, time.monotonic() - start)
    said |= {"error": outcome.described(trouble)} if trouble else {}
    outcome.show(said, _as_view(answer), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[result.verdict]


def _place(request: Request, model: LoadedModel, domain: Domain | None) -> Place:
    """The one region.   Raises: InvalidFile, InvalidSpecification; BadParameter if there are several."""
    if domain is None:
        return request.where.ball(model.graph.input_shape)
    places = domain.places(())
    if len(places) > 1:
        reason = f"has {len(places)} combinations of categories, but a Jacobian is bounded over one region: use --fix"
        raise BadParameter(reason, param_hint="--region")
    return places[0]


def _names(model: LoadedModel, domain: Domain | None) -> tuple[str, ...]:
    """Of the inputs: numbers, or features; of one that is one-hot with the category."""
    if domain is None:
        return tuple(f"input {number}" for number in range(math.prod(model.graph.input_shape)))
    return tuple(
        feature.name if feature.ordered else f"{feature.name}={number}"
        for feature in domain.features
        for number in range(feature.width)
    )


def _packed(result: JacobianResult) -> bytes:
    """jacobian.npz."""
    buffer = io.BytesIO()
    ends = {"lower": result.lower, "upper": result.upper}
    ends |= {"seen_lower": result.seen.lower, "seen_upper": result.seen.upper}
    np.savez_compressed(buffer, allow_pickle=False, **{name: end for name, end in ends.items() if end is not None})
    return buffer.getvalue()


def _as_json(answer: Answer, seconds: float) -> dict[str, Any]:
    result = answer.result
    return {
        "verdict": result.verdict,
        "lower": _listed(result.lower),
        "upper": _listed(result.upper),
        "seen": {"lower": _listed(result.seen.lower), "upper": _listed(result.seen.upper)},
        "method": result.method,
        "rows": answer.asked,
        "outputs": list(answer.rows),
        "inputs": list(answer.names),
        "seconds": seconds,
        "assurance": result.assurance,
        **answer.kept,
        "reason": result.reason,
        "stats": result.stats,
    }


def _listed(ends: NDArray[np.float64] | None) -> list[list[float | None]] | None:
    """By rows; null for what is not finite."""
    if ends is None:
        return None
    return [[value if math.isfinite(value) else None for value in row] for row in ends.tolist()]


def _as_view(answer: Answer) -> RenderableType:
    result, table = answer.result, Table.grid(padding=(0, 3))
    table.add_row("verdict", Text(result.verdict, style=f"bold {COLOURS[result.verdict]}"))
    table.add_row("question", f"{len(answer.rows)} x {len(answer.names)} derivatives")
    table.add_row("method", result.method)
    table.add_row("seconds", f"{result.seconds:.3f}")
    if result.assurance:
        table.add_row("assurance", f"{result.assurance}: {MEANING[result.assurance]}")
    if result.reason:
        table.add_row("reason", Text(result.reason))
    if result.certificate is not None:
        kept = answer.kept["certificate"] or f"made and checked, {outcome.unkept(answer.out)}"
        table.add_row("certificate", Text(kept))
    if answer.kept["bounds"] is not None:
        table.add_row("bounds", Text(answer.kept["bounds"]))
    if result.lower is None or result.upper is None:
        return table
    signs = [int((result.lower >= 0).sum()), int((result.upper <= 0).sum())]
    signs.append(int(((result.lower >= 0) & (result.upper <= 0)).sum()))
    told = f"{signs[0] - signs[2]} only rise, {signs[1] - signs[2]} only fall, {signs[2]} are zero"
    table.add_row("proved signs", f"{told}, of {result.lower.size}")
    return Group(table, Text(), *_entries(answer, result.lower, result.upper))


def _entries(answer: Answer, lower: NDArray[np.float64], upper: NDArray[np.float64]) -> list[RenderableType]:
    """A line an entry: all, or the largest."""
    size, seen = np.maximum(-lower, upper), answer.result.seen
    order = range(size.size) if size.size <= SHOWN else np.argsort(-size, axis=None)[:LARGEST].tolist()
    table = Table("output", "input", "derivative (proved)", "seen at points", box=None, pad_edge=False)
    for number in order:
        place = divmod(number, lower.shape[1])
        proved = f"{at_least(lower[place])} to {at_most(upper[place])}"
        shown = _seen(float(seen.lower[place]), float(seen.upper[place]))
        table.add_row(answer.rows[place[0]], Text(answer.names[place[1]]), proved, shown)
    if size.size <= SHOWN:
        return [table]
    return [Text(f"The {LARGEST} that may be largest; --json and --out have all:"), table]


def _seen(least: float, most: float) -> str:
    """One number where all that was seen is the same up to rounding."""
    return f"{least:.6g} to {most:.6g}" if least <= most else f"{0.5 * least + 0.5 * most:.6g}"
