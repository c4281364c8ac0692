"""`provenn nap ...`, from the options to the exit code: read, mine or verify, keep, say."""

from __future__ import annotations

import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api import activation_patterns as naps
from provenn.api.activation_patterns import Answered, Bracket, Coverage, Mining, Radii, Samples, Search
from provenn.api.batch.data import read_data
from provenn.api.certification import Options
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.answers import COLOURS, MEANING
from provenn.api.cli.certifying import CODES
from provenn.api.cli.outcome import CannotWrite, ExitCode
from provenn.api.cli.progress import progress_bar
from provenn.api.files import InvalidFile, read_file, read_inputs
from provenn.api.statements import at_least, at_most
from provenn.models.activation_pattern import Pattern, read_pattern
from provenn.models.executor import OnnxExecutor
from provenn.models.specification.activation_pattern import KIND
from provenn.verifier.errors import InvalidSpecification, in_file
from provenn.verifier.numbers import exact, hexadecimal, spoken, written
from provenn.verifier.spec_json import FORMAT

QUESTION = "question.json"


def number(text: str, option: str) -> Fraction:
    """The number that an option gives.   Raises: BadParameter naming it."""
    try:
        return exact(text)
    except InvalidSpecification as error:
        raise BadParameter(str(error), param_hint=option) from None


def options(method: str, timeout: float, seed: int) -> Options:
    """How to answer.   Raises: BadParameter for a time that is none."""
    from provenn.api.cli.lipschitz import require_time

    return Options(method, require_time(timeout), seed=seed)


@dataclass(frozen=True)
class Data:
    """A network, and the data of its classes, as given."""

    model: Path
    data: Path
    labels: str | None

    def read(self) -> tuple[bytes, Samples]:
        """Both.   Raises: InvalidFile, InvalidModel."""
        content = read_file(self.model)
        found = read_data(self.data, OnnxExecutor(content).input_shape, self.labels)
        return content, Samples(found.inputs.astype(np.float32), np.array(found.labels, np.int64))


def mine(given: Data, how: Mining, out: Path, as_json: bool) -> int:
    """Writes a file a class.   Raises: CannotWrite."""
    content, samples = given.read()
    found = naps.mine(content, samples, how)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CannotWrite(str(out), error) from error
    files = [artifacts.write(out / f"pattern-{p.label}.json", p.as_bytes()) for p in found]
    said = [_mined(pattern, file) for pattern, file in zip(found, files, strict=True)]
    table = Table("class", "samples", "active", "inactive", "free", "file", box=None, pad_edge=False)
    for row in said:
        table.add_row(*(str(row[k]) for k in ("class", "samples", "active", "inactive", "free", "file")))
    about = {"delta": written(how.delta), "labels": how.labels, "patterns": said}
    outcome.show(about, table, as_json)
    return ExitCode.VERIFIED


def _mined(pattern: Pattern, file: str) -> dict[str, Any]:
    active, inactive = (sum(len(getattr(x, side)) for x in pattern.layers) for side in ("active", "inactive"))
    counts = {"active": active, "inactive": inactive, "free": pattern.neurons - pattern.constrained}
    return {"class": pattern.label, "samples": pattern.samples, **counts, "file": file}


def _read(path: Path) -> Pattern:
    try:
        return read_pattern(read_file(path))
    except InvalidSpecification as error:
        raise in_file(path, error) from None


def coverage(given: Data, files: tuple[Path, ...], as_json: bool) -> int:
    """Prints a row a pattern."""
    patterns = [_read(path) for path in files]
    content, samples = given.read()
    rows = naps.coverage(content, patterns, samples)
    table = Table("class", "samples", "follow", "recall", "precision", "classified so", box=None, pad_edge=False)
    for row in rows:
        shares = (_percent(row.recall), _percent(row.precision))
        table.add_row(str(row.label), str(row.samples), str(row.followed), *shares, f"{row.right} of {row.followed}")
    outcome.show({"patterns": [_covered(row) for row in rows]}, table, as_json)
    return ExitCode.VERIFIED


def _covered(row: Coverage) -> dict[str, Any]:
    told = {"class": row.label, "samples": row.samples, "followed": row.followed, "all_followed": row.all_followed}
    return {**told, "right": row.right, "recall": row.recall, "precision": row.precision}


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


@dataclass(frozen=True)
class Where:
    """The region as given: around an input, or a box.   Raises: BadParameter unless it is one of the two."""

    at: Path | None
    eps: str | None
    clip: tuple[float, float] | None
    box: tuple[str, str] | None

    def __post_init__(self) -> None:
        if (self.at is None) == (self.box is None):
            raise BadParameter("give either --at with --eps, or --box LO HI", param_hint="--at")
        if (self.at is None) != (self.eps is None):
            raise BadParameter("--at and --eps belong together", param_hint="--eps")
        if self.box is not None and self.clip is not None:
            raise BadParameter("it belongs to --at with --eps", param_hint="--clip")

    def read(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """The members of a document.   Raises: InvalidFile."""
        if self.box is not None:
            low, high = (written(number(end, "--box")) for end in self.box)
            return {"lower": low, "upper": high}
        assert self.at is not None
        assert self.eps is not None
        found: dict[str, Any] = {"input": [hexadecimal(float(v)) for v in _one(self.at, shape)]}
        found |= {"epsilon": written(number(self.eps, "--eps"))}
        return found | ({} if self.clip is None else {"clip": [written(spoken(end)) for end in self.clip]})


def _one(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    values = read_inputs(path, shape)
    if len(values) > 1:
        raise InvalidFile(path, f"holds {len(values)} inputs; give one")
    return np.asarray(values[0])


@dataclass(frozen=True)
class Question:
    """What is asked: of one pattern its class, of two that they exclude each other."""

    pattern: Path
    excludes: Path | None
    where: Where
    margin: str | None
    target: int | None

    def document(self, shape: tuple[int, ...]) -> dict[str, Any]:
        """As a specification document, with the patterns in it.   Raises: InvalidFile, InvalidSpecification."""
        found: dict[str, Any] = {"pattern": _content(self.pattern)}
        found |= {} if self.excludes is None else {"excludes": _content(self.excludes)}
        found |= {} if self.target is None else {"target": self.target}
        found |= {} if self.margin is None else {"margin": written(number(self.margin, "--margin"))}
        return found | self.where.read(shape)


def _content(path: Path) -> dict[str, Any]:
    return _read(path).model_dump(by_alias=True, exclude_none=True)


def verify(model: Path, asked: Question, how: Options, out: Path | None, as_json: bool) -> int:
    """Prints the answer and returns the verdict's code; INTERNAL if --out could not be written."""
    trouble = artifacts.prepared(out)
    content = read_file(model)
    shape = OnnxExecutor(content).input_shape
    document = asked.document(shape)
    with progress_bar() as bar:
        found = naps.verify(content, document, how, naps.no_files, bar)
    kept: dict[str, str | None] = {"certificate": None, "counterexample": None, "question": None}
    if out is not None and trouble is None:
        try:
            (files,) = artifacts.keep(out, [found.item], shape)
            text = json.dumps({"format": FORMAT, "kind": KIND, **document}).encode()
            question = artifacts.write(out / QUESTION, text)
            kept = {"certificate": files.certificate, "counterexample": files.counterexample, "question": question}
        except CannotWrite as error:
            trouble = error
    said = _answered(found, kept) | ({"error": outcome.described(trouble)} if trouble else {})
    outcome.show(said, _answer_view(found, kept), as_json)
    if trouble is not None:
        outcome.complain(trouble, as_json=False)
        return ExitCode.INTERNAL
    return CODES[found.item.verdict]


def _answered(found: Answered, kept: dict[str, str | None]) -> dict[str, Any]:
    item = found.item
    return {
        "verdict": item.verdict,
        "statement": found.stated.words,
        "method": item.method,
        "margin": item.margin,
        "seconds": item.seconds,
        "assurance": item.assurance,
        "reason": item.reason,
        "inhabited": found.inhabited,
        "model_sha256": naps.digest(found.stated.model),
        **kept,
        "stats": item.stats,
    }


SEEN = {
    True: "an input of the region that follows the pattern was found (active: z >= 0 or the margin; inactive: z <= 0)",
    None: "no input of the region was found that follows the pattern: there may be none",
}


def _answer_view(found: Answered, kept: dict[str, str | None]) -> RenderableType:
    item, table = found.item, Table.grid(padding=(0, 3))
    table.add_row("verdict", Text(item.verdict, style=f"bold {COLOURS[item.verdict]}"))
    table.add_row("statement", Text(found.stated.words))
    table.add_row("method", item.method)
    table.add_row("seconds", f"{item.seconds:.3f}")
    if item.assurance:
        table.add_row("assurance", f"{item.assurance}: {MEANING[item.assurance]}")
    if item.margin is not None:
        table.add_row("margin", f"{item.margin:.6g}")
    if not found.excludes:
        table.add_row("inputs", SEEN[found.inhabited])
    if item.reason:
        table.add_row("reason", Text(item.reason))
    for name, path in kept.items():
        if path is not None:
            table.add_row(name, Text(path))
    return table


def radius(
    files: tuple[Path, Path, Path], clip: tuple[float, float] | None, search: Search, how: Options, as_json: bool
) -> int:
    """Prints both radii; files: network, pattern, input."""
    content, pattern = read_file(files[0]), _read(files[1])
    x = _one(files[2], OnnxExecutor(content).input_shape).astype(np.float32)
    found = naps.radii(content, pattern, x, clip, how, search)
    outcome.show(_radii(found), _radii_view(found), as_json)
    return CODES["verified" if found.within.verified else "unknown"]


def _bracket(found: Bracket) -> dict[str, Any]:
    item = found.item
    how = {"method": None, "assurance": None} if item is None else {"method": item.method, "assurance": item.assurance}
    return {"verified": found.verified, "falsified": found.falsified, "whole": found.whole, **how}


def _radii(found: Radii) -> dict[str, Any]:
    ends = {"without": _bracket(found.without), "with": _bracket(found.within)}
    seen = {"follows": found.follows, "inhabited": found.inhabited or None}
    return {**ends, "gain": found.gain, **seen, "seconds": found.seconds}


def _radii_view(found: Radii) -> RenderableType:
    table = Table("", "verified up to", "counterexample at", "method", "assurance", box=None, pad_edge=False)
    for name, end in (("without the pattern", found.without), ("with the pattern", found.within)):
        shown = _bracket(end)
        broken = "-" if end.falsified is None else at_most(end.falsified)
        table.add_row(name, at_least(end.verified), broken, shown["method"] or "-", shown["assurance"] or "-")
    gain = "-" if found.gain is None else f"{found.gain:.2f}"
    follows = "follows the pattern" if found.follows else "does not follow the pattern itself"
    return Group(table, Text(), Text(f"gain {gain}; the input {follows}; {SEEN[found.inhabited or None]}"))
