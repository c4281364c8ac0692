"""`provenn signing`: the keys that a service signs certificates with."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.text import Text

from provenn.api.cli import outcome
from provenn.api.cli.arguments import Json
from provenn.api.cli.outcome import ExitCode

Folder = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="Folder of the keys; default: that of the service's settings (PROVENN_...)."),
]

commands = typer.Typer(
    name="signing",
    help="Show and change the keys that sign certificates.",
    epilog="Examples:\n\n  provenn signing list --json\n  provenn signing export --out keys.json",
    no_args_is_help=True,
)


@commands.command("list", epilog="Examples:\n\n  provenn signing list\n  provenn signing list --folder keys --json")
def list_keys(folder: Folder = None, json: Json = False) -> int:
    """List the keys that sign, or have signed, the newest first."""
    from provenn.api.cli import listings

    found = _published(folder)
    shown = ("keyid", "algorithm", "created_at", "retired_at")
    rows = [{name: key[name] or "" for name in shown} for key in found["keys"]]
    outcome.show(found, listings.table(rows) if rows else Text("no keys yet"), json)
    return ExitCode.VERIFIED


@commands.command(epilog="Examples:\n\n  provenn signing rotate\n  provenn signing rotate --folder keys")
def rotate(folder: Folder = None, json: Json = False) -> int:
    """Make a new key that signs from now on, also in a running service; destroy the private part of the old one.

    What the old one has signed stays valid: its public part stays in the list.
    """
    from provenn.api import signing_keys

    file = _settings().signing_key_file
    if folder is None and file is not None:
        raise signing_keys.SigningKeyError(file, "it signs, not the folder: put another key there to rotate")
    key = signing_keys.rotate(_folder(folder))
    outcome.show(key.model_dump(mode="json"), Text(f"{key.keyid} signs from now on"), json)
    return ExitCode.VERIFIED


@commands.command(epilog="Examples:\n\n  provenn signing export --out keys.json\n  provenn signing export")
def export(
    folder: Folder = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the list there.")] = None,
    json: Json = False,
) -> int:
    """Print or write the public keys as GET /v1/keys answers them, for `provenn check --keys`."""
    found = _published(folder)
    text = json_module.dumps(found, indent=2)
    if out is not None:
        try:
            out.write_text(text + "\n")
        except OSError as error:
            raise outcome.CannotWrite(str(out), error) from error
        text = f"{len(found['keys'])} public keys in {out}"
    outcome.show(found, Text(text, no_wrap=True, overflow="ignore"), json)
    return ExitCode.VERIFIED


def _published(folder: Path | None) -> dict[str, Any]:
    from provenn.api.signing_keys import published

    return published(_folder(folder)).model_dump(mode="json")


def _folder(given: Path | None) -> Path:
    from provenn.api.signing_keys import folder_of

    return folder_of(_settings()) if given is None else given


def _settings() -> Any:
    """Those of the environment.   Raises: BadParameter naming what is wrong there."""
    from provenn.api.settings import Settings

    try:
        return Settings()  # type: ignore[call-arg]  # fields come from the environment
    except ValidationError as error:
        first = error.errors()[0]
        raise typer.BadParameter(first["msg"], param_hint="PROVENN_" + str(first["loc"][0]).upper()) from None
