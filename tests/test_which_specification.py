"""The page "Which specification do I need?": every example is run, and comes to the verdict that it states."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from provenn.api.cli.app import main
from provenn.api.cli.certifying import CODES
from provenn.models.specification.documents import document_of, kinds

PAGE = (Path(__file__).parents[1] / "docs" / "which_specification.md").read_text()
BLOCK = re.compile(r"```(python|toml|json|sh)\n(.*?)```", re.DOTALL)
NAMED = re.compile(r"# ([\w-]+\.toml)\n")
COMMAND = re.compile(r"^provenn (.*?)(?:  # (\w+))?$", re.MULTILINE)
BLOCKS: list[tuple[str, str]] = BLOCK.findall(PAGE)
DOCUMENTS = {found[1]: text for kind, text in BLOCKS if kind == "toml" and (found := NAMED.match(text))}
COMMANDS = [(line, verdict) for kind, text in BLOCKS if kind == "sh" for line, verdict in COMMAND.findall(text)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the networks and the documents of the page."""
    place = tmp_path_factory.mktemp("page")
    for name, text in DOCUMENTS.items():
        (place / name).write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for kind, text in BLOCKS:
            if kind == "python" and "import provenn" not in text:
                exec(compile(text, "which_specification.md", "exec"), {})
    return place


def test_the_commands_do_what_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for line, verdict in COMMANDS:
        assert main(shlex.split(line)) == CODES[verdict or "verified"], (line, capsys.readouterr())
    assert (folder / "fooled" / "counterexample.npy").exists()


def test_python_does_what_the_page_says(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    (code,) = [text for kind, text in BLOCKS if kind == "python" and "import provenn" in text]
    exec(compile(code, "which_specification.md", "exec"), {})
    assert capsys.readouterr().out == "verified checked\n"


def test_every_kind_has_an_example_and_is_in_the_table() -> None:
    table = PAGE.split("## ")[0]
    assert {kind for kind in kinds() if f"`{kind}`" not in table} == set()
    shown = {(document_of(text.encode()) or {}).get("kind") for text in DOCUMENTS.values()}
    assert set(kinds()) - shown <= {"robustness", "cases"}, "kinds that another one's example is as good as"
