"""`provenn batch-item`: one row of a batch, with its path to the root, in a bundle of its own."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text
from typer import BadParameter

from provenn.api.batch.bundle import SIGNED, batch_item, opened
from provenn.api.batch.checking import read_row
from provenn.api.cli import artifacts, outcome
from provenn.api.cli.outcome import ExitCode
from provenn.api.cli.served import asking
from provenn.api.files import InvalidFile

TOLD = ("index", "name", "label", "epsilon", "verdict", "margin", "certified", "attacked", "assurance", "certificate")


@dataclass(frozen=True)
class Request:
    """The arguments as given."""

    batch: str
    row: int
    out: Path
    server: str | None


def run(request: Request, as_json: bool) -> int:
    """Writes the bundle, and says what its row says.   Raises: InvalidFile; CannotWrite; BadParameter; ServiceError."""
    return asking(lambda: _taken(request, as_json), as_json)


def _taken(request: Request, as_json: bool) -> int:
    data = _data(request)
    with opened(io.BytesIO(data)) as bundle:
        (leaf,) = bundle.leaves()
        row, signed = read_row(leaf, request.row), len(bundle.signed()) == len(SIGNED)
    said: dict[str, Any] = {"row": request.row} | {name: getattr(row, name) for name in TOLD}
    said |= {"root": bundle.manifest.root, "signed": signed, "file": artifacts.write(request.out, data)}
    table = Table.grid(padding=(0, 3))
    for name, value in said.items():
        if value is not None:
            table.add_row(name, Text(str(value)))
    outcome.show(said, table, as_json)
    return ExitCode.VERIFIED


def _data(request: Request) -> bytes:
    if request.server is not None:
        from provenn.api.client import Client

        with Client(request.server) as client:
            return client.batch_item(request.batch, request.row)
    path = Path(request.batch)
    try:
        return batch_item(path, request.row)
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
    except IndexError as error:
        raise BadParameter(str(error), param_hint="K") from None
