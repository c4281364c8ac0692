"""The reports in every format, read by those who define it."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from gate_kit import Gate
from junitparser import Error, Failure, JUnitXml, Skipped
from sarif_pydantic import Level, load

from provenn.api.gate.as_json import as_json
from provenn.api.gate.junit import as_junit
from provenn.api.gate.markdown import as_markdown
from provenn.api.gate.report import AGAIN, GateCode, Line, Report
from provenn.api.gate.sarif import as_sarif
from provenn.api.gate.thresholds import Outcome

ROOT = Path(__file__).parents[3]
EXAMPLES = ("input 3: class 2 becomes class 1 within 0.1", "input a|b<c>\x07: class 1 becomes class 0 within 0.1")


def line(key: str, outcome: Outcome, title: str, number: int = 7) -> Line:
    reason = "the budget ended" if outcome == Outcome.UNKNOWN else None
    examples = EXAMPLES if outcome == Outcome.FAILED else ()
    about = ("at least 80 %", outcome, "79 of 100 certified", reason, examples)
    return Line("digits", "m.onnx", key, number, title, *about, 1.23456, False)


LINES = (
    line("clean_accuracy", Outcome.PASSED, "clean accuracy"),
    line("certified_accuracy", Outcome.FAILED, "certified accuracy within 0.1", 9),
    line("no_regression", Outcome.FAILED, "no regression: certified accuracy within 0.1", 11),
    line("lipschitz", Outcome.UNKNOWN, "Lipschitz constant"),
)
STRICT, TOLERANT = (Report("ci/provenn.toml", LINES, tolerant, 4.2, ("a note",)) for tolerant in (False, True))
UNDECIDED = Report("provenn.toml", (LINES[0], LINES[3]), False, 1.0)


def test_outcomes_and_codes() -> None:
    assert (STRICT.code, TOLERANT.code) == (GateCode.FAILED, GateCode.FAILED)
    assert UNDECIDED.code == GateCode.INCONCLUSIVE
    assert Report("c", UNDECIDED.lines, True, 1.0).code == GateCode.PASSED
    assert STRICT.summary == "the gate failed: 1 passed, 2 failed, 1 undecided"


def test_junit(tmp_path: Path) -> None:
    for report, kind in ((STRICT, Error), (TOLERANT, Skipped)):
        path = tmp_path / "gate.xml"
        path.write_bytes(as_junit(report))
        (suite,) = JUnitXml.fromfile(str(path))
        assert (suite.name, suite.tests, suite.failures) == ("digits", 4, 2)
        assert (suite.errors, suite.skipped) == ((1, 0) if kind is Error else (0, 1))
        cases = list(suite)
        assert [case.classname for case in cases] == [f"digits.{one.key}" for one in LINES]
        assert cases[0].is_passed
        (failure,) = cases[1].result
        assert isinstance(failure, Failure)
        assert failure.message == "79 of 100 certified; needed: at least 80 %"
        assert EXAMPLES[0] in failure.text
        assert isinstance(cases[3].result[0], kind)
        assert "the budget ended" in cases[3].result[0].text
        ET.parse(path)  # well-formed, whatever the names of inputs are


def test_sarif(tmp_path: Path) -> None:
    path = tmp_path / "gate.sarif"
    path.write_bytes(as_sarif(STRICT))
    (run,) = load(path).runs
    assert run.tool.driver.name == "Provenn"
    assert [rule.id for rule in run.tool.driver.rules] == [one.key for one in LINES]
    assert [result.rule_id for result in run.results] == ["certified_accuracy", "no_regression", "lipschitz"]
    assert {result.level for result in run.results} == {Level.ERROR}
    place = run.results[0].locations[0].physical_location
    assert (place.artifact_location.uri, place.region.start_line) == ("ci/provenn.toml", 9)
    assert EXAMPLES[0] in run.results[0].message.text
    raw = json.loads(path.read_bytes())
    assert (raw["version"], raw["$schema"]) == ("2.1.0", "https://json.schemastore.org/sarif-2.1.0.json")
    path.write_bytes(as_sarif(TOLERANT))
    assert load(path).runs[0].results[2].level == Level.WARNING


def test_markdown() -> None:
    text = as_markdown(STRICT)
    assert text.startswith("## ❌ Provenn: the gate failed: 1 passed, 2 failed, 1 undecided\n")
    rows = [row for row in text.splitlines() if row.startswith("| ")]
    assert len(rows) == 2 + len(LINES)
    assert all(row.count("|") - row.count("\\|") == 6 for row in rows)
    assert "input a\\|b\\<c\\>\ufffd: class 1" in text
    assert text.count("class 2 becomes class 1") == 1
    assert f"- {AGAIN}" in text
    assert "> a note" in text


def test_json() -> None:
    found = as_json(TOLERANT)
    assert (found["outcome"], found["exit_code"], found["on_unknown"]) == ("failed", 1, "pass")
    assert found["counts"] == {"passed": 1, "failed": 2, "unknown": 1}
    json.dumps(found, allow_nan=False)


def test_all_at_once_and_the_summary_of_a_step(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(summary))
    gate.write("clean_accuracy = 0.8\n")
    ran = gate("--junit", "gate.xml", "--sarif", "gate.sarif", "--markdown", "gate.md", "--json")
    assert ran.code == 1
    assert summary.read_text() == "before\n" + (gate.folder / "gate.md").read_text()
    assert JUnitXml.fromfile("gate.xml").failures == 1
    assert load("gate.sarif").runs[0].results[0].rule_id == "clean_accuracy"
    assert ran.json["checks"][0]["measured"] == "3 of 4 (75.0 %) classified rightly"


def test_what_is_missing_is_said_before_anything_is_measured(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.write("clean_accuracy = 0.5\n")
    for option, package in (("--junit", "junitparser"), ("--sarif", "sarif_pydantic")):
        monkeypatch.setattr("provenn.api.gate.extra.find_spec", lambda name: None)
        ran = gate(option, "file")
        assert ran.code == 2
        assert f"backend '{package}': it writes {option}, and is not installed: pip install 'provenn[gate]'" in ran.err


def test_an_unchanged_gate_loads_no_torch(gate: Gate) -> None:
    gate.write("clean_accuracy = 0.5\n")
    assert gate().code == 0
    code = (
        "import sys; from provenn.api.cli import main; print(main(['gate', '--json'])); print('torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[1:] == ["0", "False"], ran.stderr


def test_a_mistake_of_ours_is_no_threshold_that_is_not_met(gate: Gate) -> None:
    gate.write("clean_accuracy = 0.5\n")
    code = (
        "import sys\nfrom provenn.api.cli import main, gating\n"
        "gating.run_gate = lambda *given: 1 // 0\nsys.exit(main(['gate']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 4
    assert "error: internal error, not yours: ZeroDivisionError" in ran.stderr
