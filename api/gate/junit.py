"""The report as JUnit XML: a suite a model, a case a check; an undecided one is an error, or skipped if it may pass."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from provenn.api.gate.report import Line, Report
from provenn.api.gate.thresholds import Outcome

if TYPE_CHECKING:
    from junitparser import Error, Failure, Skipped


def as_junit(report: Report) -> bytes:
    """The file."""
    from junitparser import JUnitXml, TestCase, TestSuite

    suites = JUnitXml("provenn gate")
    for model in report.models:
        suite = TestSuite(model)
        for line in report.of(model):
            case = TestCase(line.title, f"{model}.{line.key}", round(line.seconds, 3))
            result = _result(line, report.tolerant)
            if result is not None:
                case.result = result
            suite.add_testcase(case)
        suites.add_testsuite(suite)
    suites.update_statistics()  # type: ignore[no-untyped-call]
    text = io.BytesIO()
    suites.write(text, pretty=True)
    return text.getvalue()


def _result(line: Line, tolerant: bool) -> Failure | Error | Skipped | None:
    from junitparser import Error, Failure, Skipped

    if line.outcome == Outcome.PASSED:
        return None
    kind = Failure if line.outcome == Outcome.FAILED else Skipped if tolerant else Error
    found = kind(f"{line.measured}; needed: {line.needed}", str(line.outcome))
    found.text = "\n".join([f"needed: {line.needed}", f"measured: {line.measured}", *line.beside])
    return found
