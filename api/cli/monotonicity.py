"""`provenn monotonicity`, from the options to the exit code: read, decide, keep, say."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from provenn.api.domain import Place, columns
from provenn.api.files import read_file
from provenn.api.lipschitz_question import matrix
from provenn.api.monotone import question
from provenn.api.monotonicity import (
    Dependence,
    MonotonicityResult,
    Options,
    Question,
    Trend,
    monotonicity,
    require_several,
)
from provenn.api.statements import at_least, at_most, named
from provenn.models.specification.monotone import Monotone
from provenn.solvers.base import Verdict
from provenn.solvers.trend import Pair
from provenn.verifier.errors import InvalidSpecification, ProvennError, in_file

SHOWN = 40
TRENDS = {
    Trend.INCREASING: "green",
    Trend.DECREASING: "green",
    Trend.CONSTANT: "green",
    Trend.NEITHER: "red",
    Trend.UNKNOWN: "yellow",
}


@dataclass(frozen=True)
class Request:
    """The options as given; expected: a trend, or None."""

    model: Path
    features: str
    rows: str
    where: Where
    expected: str | None
    out: Path | None

    def asked(self, model: LoadedModel) -> Asked:
        """Raises: InvalidFile, InvalidSpecification, ResourceLimit; BadParameter naming the option."""
        return _asked(self, model)


@dataclass(frozen=True)
class Stated:
    """A document of kind monotone, and its path."""

    model: Path
    document: Monotone
    path: Path
    out: Path | None

    def asked(self, model: LoadedModel) -> Asked:
        """Of the network.   Raises: InvalidSpecification, ResourceLimit, naming the file."""
        graph = model.graph
        outputs = math.prod(graph.output_shape)
        try:
            found, names = question(self.document, math.prod(graph.input_shape), outputs)
            rows = tuple(named([row]) for row in matrix(found.rows, outputs))
        except ProvennError as error:
            raise in_file(self.path, error) from None
        return Asked(found, rows, names, self.document.words)


@dataclass(frozen=True, eq=False)
class Asked:
    """The question, the rows of C in words, the names of its features by their inputs; words: of a document."""

    question: Question
    rows: tuple[str, ...]
    names: dict[int, str]
    words: str = ""


@dataclass(frozen=True, eq=False)
class Answer:
    """What is known, and where it was written, if in `out`: the certificate, and pairs by row, column and kind."""

    asked: Asked
    result: MonotonicityResult
    certificate: str | None
    pairs: dict[tuple[int, int, str], str]
    out: Path | None

    @property
    def verdict(self) -> Verdict:
        """Of the result."""
        return Verdict(self.result.verdict)


def run(request: Request | Stated, options: Options, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if --out could not be written."""
    trouble = artifacts.prepared(request.out)
    start = time.monotonic()
    with progress_bar() as bar:
        model = load_model(read_file(request.model), slopes=True)
        asked = request.asked(model)
        result = monotonicity(model, asked.question, options, bar)
    proof, pairs = None, dict[tuple[int, int, str], str]()
    if request.out is not None and trouble is None:
        try:
            proof = None if result.certificate is None else artifacts.keep_certificate(request.out, result.certificate)
            pairs = _kept(request.out, result.dependences)
        except CannotWrite as error:
            trouble = error
    answer = Answer(asked, result, proof, pairs, request.out)
    said = _as_json(answer, time.monotonic() - start)
    said |= {"error": outcome.described(trouble)} if trouble else {}
    outcome.show(said, _as_view(answer), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    stopped = result.interrupted and answer.verdict not in (Verdict.VERIFIED, Verdict.FALSIFIED)
    return ExitCode.INTERRUPTED if stopped else CODES[answer.verdict]


def _asked(request: Request, model: LoadedModel) -> Asked:
    graph = model.graph
    inputs = math.prod(graph.input_shape)
    domain = request.where.read(inputs)
    try:
        asked = columns(request.features.split(","), inputs, domain)
        if not asked:
            raise InvalidSpecification("no feature has an order and more than one value")
    except InvalidSpecification as error:
        raise BadParameter(str(error), param_hint="--features") from None
    places = [request.where.ball(graph.input_shape)] if domain is None else domain.places(asked)
    try:
        for place in places:
            require_several(asked, place)
    except InvalidSpecification as error:
        raise BadParameter(str(error), param_hint="--features") from None
    names = {column: f"input {column}" for column in asked}
    if domain is not None:
        names = {column: domain.feature(str(column)).name for column in asked}
    rows = tuple(named([row]) for row in matrix(request.rows, math.prod(graph.output_shape)))
    return Asked(Question(asked, tuple(places), request.rows, request.expected), rows, names)


def _kept(folder: Path, dependences: Sequence[Dependence]) -> dict[tuple[int, int, str], str]:
    """Writes every pair as [2, *input].   Raises: CannotWrite."""
    found: dict[tuple[int, int, str], str] = {}
    for each in dependences:
        for kind, pair in (("fall", each.fall), ("rise", each.rise)):
            if pair is not None:
                path = folder / f"witness-{each.row}-{each.column}-{kind}.npy"
                found[each.row, each.column, kind] = artifacts.write_array(path, np.stack([pair.first, pair.second]))
    return found


def _as_json(answer: Answer, seconds: float) -> dict[str, Any]:
    result, question = answer.result, answer.asked.question
    return {
        "verdict": str(answer.verdict),
        "expected": result.expected,
        "method": result.method,
        "rows": question.rows,
        "regions": [place.label for place in question.places],
        "dependences": [_dependence(answer, each) for each in result.dependences],
        "seconds": seconds,
        "assurance": result.assurance,
        "certificate": answer.certificate,
        "reason": result.reason,
        "interrupted": result.interrupted,
        "stats": result.stats,
    } | ({"property": answer.asked.words} if answer.asked.words else {})


def _dependence(answer: Answer, each: Dependence) -> dict[str, Any]:
    asked = answer.asked
    pairs = {"fall": each.fall, "rise": each.rise}
    return {
        "row": each.row,
        "output": asked.rows[each.row],
        "column": each.column,
        "feature": asked.names[each.column],
        "trend": str(each.trend),
        "lower": each.lower if math.isfinite(each.lower) else None,
        "upper": each.upper if math.isfinite(each.upper) else None,
        **{kind: pair and _pair(answer, (each, kind), pair) for kind, pair in pairs.items()},
    }


def _pair(answer: Answer, of: tuple[Dependence, str], pair: Pair) -> dict[str, Any]:
    (each, kind), places = of, answer.asked.question.places
    return {
        "first": pair.first.ravel().tolist(),
        "second": pair.second.ravel().tolist(),
        "values": _values(each, pair),
        "change": pair.change,
        "region": _label(places, pair),
        "path": answer.pairs.get((each.row, each.column, kind)),
    }


def _values(each: Dependence, pair: Pair) -> list[float]:
    """Of the feature, in both inputs."""
    return [float(pair.first.flat[each.column]), float(pair.second.flat[each.column])]


def _label(places: Sequence[Place], pair: Pair) -> str:
    """Of a region where both inputs lie."""
    return next(p.label for p in places if p.set.contains(pair.first) and p.set.contains(pair.second))


def _as_view(answer: Answer) -> RenderableType:
    result, question, verdict = answer.result, answer.asked.question, answer.verdict
    table = Table.grid(padding=(0, 3))
    table.add_row("verdict", Text(verdict, style=f"bold {COLOURS[verdict]}"))
    if answer.asked.words:
        table.add_row("property", Text(answer.asked.words))
    if result.expected is not None:
        table.add_row("expected", result.expected)
    if len(question.places) > 1:
        table.add_row("regions", f"{len(question.places)} combinations of categories")
    table.add_row("method", result.method)
    table.add_row("seconds", f"{result.seconds:.3f}")
    if result.assurance:
        table.add_row("assurance", f"{result.assurance}: {MEANING[result.assurance]}")
    if result.reason:
        table.add_row("reason", Text(result.reason))
    if result.certificate is not None:
        table.add_row("certificate", Text(answer.certificate or f"made and checked, {outcome.unkept(answer.out)}"))
    more = len(result.dependences) - SHOWN
    rest = [Text(f"... and {more} more; --json lists all")] if more > 0 else []
    return Group(table, Text(), _each(answer), *rest)


def _each(answer: Answer) -> Table:
    """A line a dependence."""
    heads = ("output", "feature", "verdict", "derivative (proved)", "falls", "rises")
    table = Table(*heads, box=None, pad_edge=False)
    for each in answer.result.dependences[:SHOWN]:
        proved = "unknown"
        if math.isfinite(each.lower) and math.isfinite(each.upper):
            proved = f"{at_least(each.lower)} to {at_most(each.upper)}"
        trend = Text(each.trend, style=TRENDS[each.trend])
        pairs = [_shown(answer, each, pair) for pair in (each.fall, each.rise)]
        names = (answer.asked.rows[each.row], Text(answer.asked.names[each.column]))
        table.add_row(*names, trend, proved, *pairs)
    return table


def _shown(answer: Answer, each: Dependence, pair: Pair | None) -> Text:
    """By how much, from where to where."""
    if pair is None:
        return Text("-")
    first, second = _values(each, pair)
    label = _label(answer.asked.question.places, pair)
    return Text(f"by {abs(pair.change):.4g} from {first:.7g} to {second:.7g}" + (f", {label}" if label else ""))
