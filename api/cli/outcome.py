"""What the command leaves behind: an exit code, one JSON object or a table, and errors that say what to do."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from enum import IntEnum
from types import TracebackType
from typing import Any

from rich.console import Console, RenderableType
from typer import TyperException

from provenn.verifier.errors import ProvennError


class ExitCode(IntEnum):
    """The contract with scripts: docs/cli.md lists these."""

    VERIFIED = 0
    INTERNAL = 1
    USAGE = 2
    FALSIFIED = 10
    UNKNOWN = 11
    TIMEOUT = 12
    REJECTED = 13
    BAD_SIGNATURE = 14
    INTERRUPTED = 130
    TERMINATED = 143


class CannotWrite(ProvennError):
    """Results could not be saved: `path` says where. The verdict stands."""

    def __init__(self, path: str, cause: OSError) -> None:
        self.path = path
        reason = cause.strerror or str(cause)
        super().__init__(f"cannot write to {path}: {reason}. Free some space or give another folder with --out")


def unkept(folder: object | None) -> str:
    """Why something is not in the folder of --out."""
    return "not kept: give --out DIR" if folder is None else f"not kept: {folder} cannot be written"


def show(answer: Mapping[str, Any], view: RenderableType, as_json: bool) -> None:
    """The answer on stdout: one JSON object for programs, the view for people."""
    if as_json:
        sys.stdout.write(json.dumps(answer, allow_nan=False) + "\n")
        sys.stdout.flush()
    else:
        console().print(view)


def console(stderr: bool = False) -> Console:
    """Where tables and progress go: as wide as the terminal; in a log as wide as any table, so that no name is cut."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=max(found.width, 150))


def warn(warnings: Iterable[str]) -> None:
    """`warning: ...` on stderr, a line each."""
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")


def complain(error: Exception, as_json: bool) -> None:
    """`error: ...` on stderr; with --json also {"error": {...}} as the one object on stdout."""
    found = described(error)
    if not found["message"]:  # no command was given, and the help has been shown
        return
    sys.stderr.write(f"error: {found['message']}\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": found}) + "\n")


def described(error: Exception) -> dict[str, Any]:
    """Type, message, and whatever the error knows besides (node, line, limit, ...)."""
    if isinstance(error, TyperException):
        return {"type": "UsageError", "message": error.format_message()}
    members = {k: v for k, v in vars(error).items() if isinstance(v, str | int | float)}
    return {"type": type(error).__name__, "message": str(error), **members}


def internal(as_json: bool, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A sys.excepthook: our own mistake, with its traceback on stderr; Python then exits with 1."""
    message = f"internal error, not yours: {kind.__name__}: {error}"
    sys.__excepthook__(kind, error, trace)
    sys.stderr.write(f"error: {message}. Please report it with the lines above and `provenn version`\n")
    if as_json:
        sys.stdout.write(json.dumps({"error": {"type": "InternalError", "message": message}}) + "\n")
