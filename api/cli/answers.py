"""The answer of `provenn certify`: as the JSON object of docs/cli.md, and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.certification import ItemResult
from provenn.api.cli.artifacts import Kept
from provenn.api.cli.outcome import unkept
from provenn.api.cross_check import CrossCheck
from provenn.api.report import Point, overall, report
from provenn.api.schemas import JobResult

SHOWN = 20
COLOURS = {"verified": "green", "falsified": "red", "unknown": "yellow", "timeout": "yellow"}
MEANING = {
    "checked": "every claim re-proved by the trusted checker, rigorously in real arithmetic",
    "deployed": "every claim re-proved by the trusted checker, for every float32 execution in any order",
    "computed": "floating point only: no certificate",
    "vacuous": "the property allows no input, exactly: nothing was computed, and there is no certificate",
    "replayed": "the counterexample was run by onnxruntime",
}


@dataclass(frozen=True, eq=False)
class Answer:
    """Everything known at the end; kept: what was written for each result; folder: --out; seconds: wall clock.

    second: what --cross-check found, None if it was not asked for. words: what a document states, empty without one;
    said: what each question is, with --top-k.
    """

    points: Sequence[Point]
    results: Sequence[ItemResult]
    kept: Sequence[Kept]
    folder: str | None
    seconds: float
    second: CrossCheck | None = None
    words: str = ""
    said: Sequence[str] = ()

    @property
    def verdict(self) -> str:
        """Over all results."""
        return overall([r.verdict for r in self.results])

    @cached_property
    def summary(self) -> JobResult:
        """The same report that the service gives."""
        return report(self.points, self.results, [k.certificate for k in self.kept], {})


def as_json(answer: Answer) -> dict[str, Any]:
    """One object; a batch has `items` besides, and its margin is null unless every item was bounded."""
    margins = [r.margin for r in answer.results]
    items = [_item(answer, i) for i in range(len(answer.results))]
    certificates = [k.certificate for k in answer.kept if k.certificate is not None]
    found: dict[str, Any] = {
        "verdict": answer.verdict,
        "method": ", ".join(dict.fromkeys(r.method for r in answer.results)),
        "semantics": answer.results[0].semantics,
        "margin": None if None in margins else min(m for m in margins if m is not None),
        "seconds": answer.seconds,
        "assurance": _assurance(answer),
        "warnings": [warning for r in answer.results for warning in r.warnings],
        "reason": next((r.reason for r in answer.results if r.verdict == answer.verdict and r.reason), None),
        "certificate": certificates[0] if len(items) == 1 and certificates else None,
        "counterexample": next((i["counterexample"] for i in items if i["counterexample"]), None),
        "stats": answer.summary.stats,
    }
    if answer.words:
        found["property"] = answer.words
    if len(items) > 1:
        found["certificate"] = answer.folder if certificates else None
        found["items"] = items
    if answer.second is not None:
        wrong = [{"index": index, "message": message} for index, message in answer.second.disagreements]
        found["cross_check"] = {"cases": answer.second.cases, "disagreements": wrong}
    return found


def as_view(answer: Answer) -> RenderableType:
    """A table of facts for one question, a table of counts per radius for a batch."""
    view = _single(answer) if len(answer.results) == 1 else _batch(answer)
    return view if answer.second is None else Group(view, Text(), Text(_said(answer.second)))


def _item(answer: Answer, index: int) -> dict[str, Any]:
    kept, item = answer.kept[index], answer.summary.items[index].model_dump()
    if item["counterexample"] is not None:
        item["counterexample"]["path"] = kept.counterexample
    return item | ({"property": answer.said[index]} if answer.said else {})


def _assurance(answer: Answer) -> str | None:
    """The weakest among those that decide the verdict."""
    found = {r.assurance for r in answer.results if r.verdict == answer.verdict}
    return next((a for a in (None, "vacuous", "computed", "checked", "deployed", "replayed") if a in found), None)


def _verdict(verdict: str) -> Text:
    return Text(verdict, style=f"bold {COLOURS[verdict]}")


def _said(second: CrossCheck) -> str:
    wrong = [f"  item {index}: {message}" for index, message in second.disagreements[:SHOWN]]
    found = f"{len(second.disagreements)} disagreements" if wrong else "no disagreement"
    return "\n".join([f"cross-check with auto_LiRPA and sampled points: {found} in {second.cases} cases", *wrong])


def _single(answer: Answer) -> RenderableType:
    result, kept = answer.results[0], answer.kept[0]
    table = Table.grid(padding=(0, 3))
    if answer.words:
        table.add_row("property", Text(answer.words))
    table.add_row("verdict", _verdict(result.verdict))
    table.add_row("method", result.method)
    table.add_row("semantics", result.semantics)
    table.add_row("margin", _margin(result))
    table.add_row("seconds", f"{answer.seconds:.3f}")
    if result.assurance:
        table.add_row("assurance", f"{result.assurance}: {MEANING[result.assurance]}")
    if result.reason:
        table.add_row("reason", Text(result.reason))
    for warning in result.warnings:
        if warning != result.reason:
            table.add_row("warning", Text(warning))
    if result.counterexample:
        table.add_row("output", Text(_numbers(result.counterexample.output)))
        if result.counterexample.original is not None:
            table.add_row("parameters", Text(_numbers(result.counterexample.input)))
        table.add_row("counterexample", Text(kept.counterexample or unkept(answer.folder)))
    if result.certificate:
        table.add_row("certificate", Text(kept.certificate or f"made and checked, {unkept(answer.folder)}"))
    return table


def _batch(answer: Answer) -> RenderableType:
    head = Text.assemble("verdict   ", _verdict(answer.verdict), f"   {answer.seconds:.2f} s")
    table = Table("radius", "verified", "falsified", "unknown", "timeout", "verified %", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in answer.summary.summary:
        counts = (row.verified, row.falsified, row.unknown, row.timeout)
        table.add_row(f"{row.epsilon:g}", *map(str, counts), f"{100 * row.verified / sum(counts):.1f}")
    return Group(head, Text(), table, *_open_items(answer), *_folder(answer))


def _open_items(answer: Answer) -> list[RenderableType]:
    """The first items that were not verified."""
    left = [i for i in answer.summary.items if i.verdict != "verified"]
    if not left:
        return []
    table = Table("input", "radius", "verdict", "method", "margin", "reason", box=None, pad_edge=False)
    for item in left[:SHOWN]:
        margin = "" if item.margin is None else f"{item.margin:.4g}"
        reason = Text(item.reason or "")
        table.add_row(str(item.input), f"{item.epsilon:g}", _verdict(item.verdict), item.method, margin, reason)
    more = [Text(f"... and {len(left) - SHOWN} more; --json lists all")] if len(left) > SHOWN else []
    return [Text(), table, *more]


def _folder(answer: Answer) -> list[RenderableType]:
    count = len({id(r.certificate) for r in answer.results if r.certificate is not None})  # items may share one
    there = any(kept.certificate for kept in answer.kept)
    where = f"in {answer.folder}" if there else f"made and checked, {unkept(answer.folder)}"
    return [Text(f"\n{count} certificate{'s' if count > 1 else ''} {where}")] if count else []


def _margin(result: ItemResult) -> str:
    if result.margin is None:
        return "not bounded"
    return f"{result.margin:.6g}  ({'proved ' if result.certificate else ''}lower bound)"


def _numbers(values: Sequence[float]) -> str:
    shown = ", ".join(f"{v:.5g}" for v in values[:10])
    return f"[{shown}{', ...' if len(values) > 10 else ''}]"
