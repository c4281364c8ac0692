"""What the documents promise, found in them: command lines, and whether the command understands them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer

from provenn.api.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FENCE = re.compile(r"```(?:sh|console|yaml|text)\n(.*?)```", re.DOTALL)
LINE = re.compile(r"(?:^|[\s/])provenn (?=[a-z-])(.*)$")


def command_lines() -> Iterator[tuple[str, list[str]]]:
    """(document, arguments) of every `provenn ...` line in a code block."""
    for document in DOCUMENTS:
        for block in FENCE.findall(document.read_text()):
            for line in block.replace("\\\n", " ").splitlines():
                found = LINE.search(line.split(" #")[0])
                if found and not line.lstrip().startswith(("pip", "docker", "import", "#")):
                    yield document.name, shlex.split(found[1].rstrip("& "))


@cache
def program() -> Any:
    """The whole command, as typer builds it."""
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Name -> command."""
    return dict(program().commands)


def parse(arguments: Sequence[str]) -> None:
    """Understands a command line without running it.   Raises: TyperException if it is not one."""
    group = program()
    try:
        with group.make_context("provenn", list(arguments)) as context:
            name, command, rest = group.resolve_command(context, list(arguments))
            command.make_context(name, rest, parent=context)
    except typer.Exit as shown:  # --help and --version show something and stop
        assert shown.exit_code == 0


def options(command: Any) -> set[str]:
    """Every `--option` of a command, but --help."""
    return {name for p in command.params for name in p.opts if name.startswith("--")} - {"--help"}
