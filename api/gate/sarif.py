"""The report as SARIF 2.1.0: a rule a kind of check; a result a check that has not passed, where its threshold is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from provenn.api.gate.found import sha256
from provenn.api.gate.report import Line, Report
from provenn.api.gate.thresholds import Outcome
from provenn.verifier.version import provenn_version

if TYPE_CHECKING:
    from sarif_pydantic import Result

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    "clean_accuracy": "Inputs are classified as their labels say",
    "certified_accuracy": "Inputs keep their class within a radius, proved by certificates",
    "attacked_accuracy": "No attack finds a counterexample within a radius",
    "lipschitz": "Outputs change by at most so much per change of the inputs",
    "no_regression": "What was reached once is not lost",
    "monotone": "Outputs only rise, or only fall, with a feature",
    "properties": "A property holds",
    "equivalence": "Two versions of a network compute the same, but for a bound",
}


def as_sarif(report: Report) -> bytes:
    """The file."""
    from sarif_pydantic import Invocation, Message, ReportingDescriptor, Run, Sarif, Tool, ToolDriver

    named = dict.fromkeys(line.key for line in report.lines)
    rules = [ReportingDescriptor(id=key, name=key, short_description=Message(text=RULES[key])) for key in named]
    driver = ToolDriver(name="Provenn", version=provenn_version(), rules=rules)
    results = [_result(report, line) for line in report.lines if line.outcome != Outcome.PASSED]
    run = Run(tool=Tool(driver=driver), results=results, invocations=[Invocation(execution_successful=True)])
    log = Sarif.model_validate({"$schema": SCHEMA, "version": "2.1.0", "runs": [run]})
    text: str = log.model_dump_json(by_alias=True, exclude_none=True, indent=1)
    return text.encode() + b"\n"


def _result(report: Report, line: Line) -> Result:
    from sarif_pydantic import ArtifactLocation, Level, Location, Message, PhysicalLocation, Region, Result

    undecided = line.outcome == Outcome.UNKNOWN
    level = Level.WARNING if undecided and report.tolerant else Level.ERROR
    text = "\n".join([f"{line.model}: {line.title}: {line.measured}; needed: {line.needed}", *line.beside])
    uri = ArtifactLocation(uri=quote(report.config))
    place = PhysicalLocation(artifact_location=uri, region=Region(start_line=line.line))
    same = {"provenn/v1": sha256(f"{line.model}\n{line.key}\n{line.title}".encode())}
    return Result(
        rule_id=line.key,
        kind="open" if undecided and report.tolerant else "fail",
        level=level,
        message=Message(text=text),
        locations=[Location(physical_location=place)],
        partial_fingerprints=same,
    )
