"""The documents and the code say the same: commands, options, settings, errors, exit codes, links."""

from __future__ import annotations

import importlib
import pkgutil
import re

import pytest
import typer
from documented import DOCUMENTS, ROOT, command_lines, commands, options, parse

import provenn.api
import provenn.models
import provenn.solvers
import provenn.verifier
from provenn.api.cli.outcome import ExitCode
from provenn.api.settings import Settings
from provenn.verifier.errors import ProvennError

CLI = (ROOT / "docs" / "cli.md").read_text()
LINES = sorted({(document, " ".join(words)) for document, words in command_lines()})


def test_command_lines_are_found() -> None:
    assert {document for document, _ in LINES} >= {"README.md", "cli.md", "index.md"}
    assert len(LINES) >= 12


@pytest.mark.parametrize(("document", "line"), LINES)
def test_every_documented_command_line_is_understood(document: str, line: str) -> None:
    parse(line.split())


def test_a_wrong_command_line_would_be_noticed() -> None:
    for wrong in ("prove model.onnx", "certify model.onnx --radius 3", "check certificate.zip", "serve --port many"):
        with pytest.raises(typer.TyperException):
            parse(wrong.split())


@pytest.mark.parametrize("name", commands())
def test_every_command_and_option_is_documented(name: str) -> None:
    command = commands()[name]
    assert f"`provenn {name}" in CLI
    for option in options(command):
        assert re.search(rf"{option}\b", CLI), f"docs/cli.md does not mention {option} of provenn {name}"
    assert command.help
    assert all(p.help for p in command.params if p.name != "help"), name


def test_every_setting_is_documented_with_its_default() -> None:
    for name, field in Settings.model_fields.items():
        row = next((r for r in CLI.splitlines() if r.startswith(f"| `PROVENN_{name.upper()}` |")), None)
        assert row is not None, f"docs/cli.md lacks PROVENN_{name.upper()}"
        assert field.description is not None
        assert field.description in row
        if field.default_factory is None:
            assert row.split(" | ")[1] == ("unset" if field.default is None else str(field.default))


def test_no_setting_is_documented_that_is_not_one() -> None:
    settings = {name.upper() for name in Settings.model_fields}
    for document in DOCUMENTS:
        for name in re.findall(r"PROVENN_([A-Z_]+)", document.read_text()):
            assert name in settings | {"API_KEY", "CACHE", "SHARED"}, f"{document.name}: PROVENN_{name}"


def errors(kind: type[ProvennError] = ProvennError) -> set[str]:
    return {kind.__name__}.union(*(errors(child) for child in kind.__subclasses__()))


def test_every_error_is_documented() -> None:
    for package in (provenn.api, provenn.models, provenn.solvers, provenn.verifier):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            if not module.name.endswith("__main__"):
                importlib.import_module(module.name)
    missing = {name for name in errors() if f"`{name}`" not in CLI}
    assert not missing, f"docs/cli.md lacks the errors {sorted(missing)}"


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"(?m)^\| (\d+) \|", CLI)
    assert sorted(map(int, rows)) == sorted(ExitCode)


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


def test_the_make_targets_that_documents_name_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?m)^([a-z]+):", makefile))
    for document in DOCUMENTS:
        for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("make "):
                    assert set(line.split("#")[0].split()[1:]) <= targets, line


def test_the_licence_is_the_whole_text() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
