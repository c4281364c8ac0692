"""The report as Markdown, for people: a table, and below it what has not passed and why."""

from __future__ import annotations

import re
from collections.abc import Sequence

from provenn.api.gate.report import WORDS, Line, Report
from provenn.api.gate.thresholds import Outcome

MARKS = {Outcome.PASSED: "✅", Outcome.FAILED: "❌", Outcome.UNKNOWN: "❔"}
SPECIAL = re.compile(r"([\\`*_{}\[\]<>|#])")


def as_markdown(report: Report) -> str:
    """The file."""
    mark = MARKS[report.outcome]
    head = [f"## {mark} Provenn: {report.summary}", ""]
    table = ["| | model | check | needed | measured |", "| --- | --- | --- | --- | --- |", *map(_row, report.lines), ""]
    details = [part for line, told in report.details for part in _details(line, told)]
    end = [f"{_plain(report.config)}, {report.seconds:.1f} s{_found(report)}"]
    return "\n".join([*head, *table, *details, *(f"> {_plain(note)}\n" for note in report.notes), *end]) + "\n"


def _row(line: Line) -> str:
    cells = (line.model, line.title, line.needed, line.measured)
    return f"| {MARKS[line.outcome]} {WORDS[line.outcome]} | {' | '.join(map(_plain, cells))} |"


def _details(line: Line, told: Sequence[str]) -> list[str]:
    head = f"**{_plain(line.model)}: {_plain(line.title)}** {WORDS[line.outcome]}"
    return [head, "", *(f"- {_plain(part)}" for part in told), ""]


def _found(report: Report) -> str:
    cached = sum(line.cached for line in report.lines)
    return f"; {cached} of {len(report.lines)} checks were known from earlier runs" if cached else ""


def _plain(text: str) -> str:
    """Nothing in it is markup."""
    return SPECIAL.sub(r"\\\1", text)
