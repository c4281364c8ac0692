"""examples/ci-gate, as its README tells it: the gate passes on the robust network and fails on the weakened one."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cli_kit import Command
from documented import commands, options, parse
from gate_kit import Gate

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "ci-gate"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(EXAMPLE, folder)
    monkeypatch.chdir(folder)
    return folder


def train(*arguments: str) -> None:
    runpy.run_path("model.py")["main"](list(arguments))


def test_it_passes_and_then_fails(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = Command(capsys)
    train()
    ran = command("gate")
    assert (ran.code, ran.err.splitlines()) == (0, []), ran.out
    assert "the gate passed: 6 passed" in ran.out
    train("--weakened")
    ran = command("gate", "--junit", "gate.xml")
    assert ran.code == 1
    readable = ran.out.splitlines()
    failed = [row.split() for row in readable if row.startswith("failed")]
    assert len(failed) == 2
    assert any(" becomes class " in row and "within 0.08" in row for row in readable)
    assert "the same inputs as above" in ran.out
    assert "the gate failed: 4 passed, 2 failed" in ran.out
    assert len(readable) < 30
    train()
    capsys.readouterr()
    ran = command("gate", "--json")
    assert {check["cached"] for check in ran.json["checks"]} == {True}


def test_the_readme_shows_both_reports_and_what_they_say_is_there() -> None:
    text = (EXAMPLE / "README.md").read_text()
    assert "the gate passed: 6 passed" in text
    assert "the gate failed: 4 passed, 2 failed" in text
    titles = ("clean accuracy", "certified accuracy within 0.02", "certified accuracy within 0.08")
    assert all(text.count(f"  {title} ") == 2 for title in titles)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def test_the_action_is_one_and_gives_options_that_there_are() -> None:
    action = read(ROOT / "action.yml")
    assert action["runs"]["using"] == "composite"
    scripts = [step["run"] for step in action["runs"]["steps"] if "run" in step]
    assert all("shell" in step for step in action["runs"]["steps"] if "run" in step)
    for script in scripts:
        assert "${{" not in script  # an input could be a command otherwise: they come by the environment
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    given = {word for script in scripts for word in script.replace("(", " ").replace(")", " ").split()}
    assert {word for word in given if word.startswith("--") and word != "--quiet"} <= options(commands()["gate"])
    text = (ROOT / "action.yml").read_text()
    for name in action["inputs"]:
        assert f"inputs.{name} " in text


def test_the_action_s_step_runs(gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its script, with the environment's own provenn in place of the one that it installs."""
    gate.write("clean_accuracy = 0.8\n")
    assert gate().code == 1  # the answer is kept: the step loads less
    (tmp_path / "provenn").mkdir()
    (tmp_path / "provenn" / "bin").symlink_to(Path(sys.executable).parent)
    places = {"RUNNER_TEMP": "", "GITHUB_OUTPUT": "output", "GITHUB_STEP_SUMMARY": "summary"}
    given = {"CONFIG": "provenn.toml", "REPORTS": "reports", "SERVER": "", "RECHECK": "false"}
    for name, value in {**given, **{name: str(tmp_path / place) for name, place in places.items()}}.items():
        monkeypatch.setenv(name, value)
    step = next(step for step in read(ROOT / "action.yml")["runs"]["steps"] if step.get("id") == "gate")
    ran = subprocess.run(["bash", "-c", step["run"]], capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stderr
    assert "the gate failed: 1 failed" in ran.stdout
    said = (tmp_path / "output").read_text().splitlines()
    assert said == ["outcome=failed", "exit-code=1", "sarif=reports/gate.sarif"]
    assert (tmp_path / "summary").read_text() == ran.stdout


def test_gitlab_and_pre_commit_run_commands_that_there_are() -> None:
    job = read(ROOT / ".gitlab-ci.example.yml")["robustness"]
    (line,) = job["script"]
    parse(line.split()[1:])
    assert job["artifacts"]["reports"]["junit"] in line
    (hook,) = read(ROOT / ".pre-commit-hooks.yaml")
    parse(hook["entry"].split()[1:])
    assert hook["pass_filenames"] is False
    workflow = read(EXAMPLE / ".github" / "workflows" / "robustness.yml")
    uses = next(step for step in workflow["jobs"]["gate"]["steps"] if step.get("id") == "gate")
    assert set(uses["with"]) <= set(read(ROOT / "action.yml")["inputs"])
