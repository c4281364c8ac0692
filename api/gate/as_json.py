"""The report as one JSON object: the same bytes for the same answers, but for `seconds` and `cached`."""

from __future__ import annotations

from typing import Any

from provenn.api.gate.report import Line, Report
from provenn.api.gate.thresholds import Outcome
from provenn.verifier.version import provenn_version


def as_json(report: Report) -> dict[str, Any]:
    """What docs/gate.md describes."""
    return {
        "format": "provenn-gate-report/1",
        "provenn": provenn_version(),
        "config": report.config,
        "outcome": str(report.outcome),
        "exit_code": int(report.code),
        "on_unknown": "pass" if report.tolerant else "fail",
        "counts": {str(outcome): report.count(outcome) for outcome in Outcome},
        "seconds": report.seconds,
        "notes": list(report.notes),
        "checks": [_line(line) for line in report.lines],
    }


def _line(line: Line) -> dict[str, Any]:
    return {
        "model": line.model,
        "file": line.file,
        "check": line.key,
        "title": line.title,
        "needed": line.needed,
        "outcome": str(line.outcome),
        "measured": line.measured,
        "reason": line.reason,
        "examples": list(line.examples),
        "line": line.line,
        "seconds": line.seconds,
        "cached": line.cached,
    }
