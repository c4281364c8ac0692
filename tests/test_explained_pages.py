"""The pages on tightness and on top labels: every example runs, and says what the page says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from provenn.api.cli.app import main
from provenn.api.cli.certifying import CODES

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"```(python|sh)\n(.*?)```|((?:^(?:    [^\n]+)?\n)*^    [^\n]+\n)", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(r"^provenn (.*?)(?:  # (\w+))?$", re.MULTILINE)


@pytest.mark.parametrize("page", ["tightness.md", "top_k.md"])
def test_the_examples_of_a_page(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for kind, text, _ in BLOCK.findall((DOCS / page).read_text()):
        if kind == "python":
            exec(compile(text, page, "exec"), names)
        for line, verdict in COMMAND.findall(text) if kind == "sh" else ():
            assert main(shlex.split(line)) == CODES[verdict or "verified"], (line, capsys.readouterr())


def test_the_table_of_the_page_on_tightness(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall((DOCS / "tightness.md").read_text())
    (code, *_), (commands, *_) = ([text for kind, text, _ in blocks if kind == wanted] for wanted in ("python", "sh"))
    exec(compile(code, "tightness.md", "exec"), {})
    capsys.readouterr()
    assert main(shlex.split(COMMAND.findall(commands)[0][0])) == 0
    printed = {tuple(line.split()) for line in capsys.readouterr().out.splitlines()}
    shown = next(table for *_, table in blocks if "behind layer" in table)
    wanted = {tuple(line.split()) for line in shown.splitlines()}
    assert wanted <= printed
