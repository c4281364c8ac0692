"""`provenn check`: the trusted checker on files from disk. Nothing here loads torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.cli.files import InvalidFile, read_file
from provenn.verifier.certificate.bundle import load
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check import check as recheck

SHOWN = ("claim", "reason", "margin", "claims", "semantics", "model_sha256", "specification_sha256", "seconds")
"""What people see of a report; --json has everything."""


def examine(certificate: Path, model: Path, specification: Path | None) -> dict[str, Any]:
    """`accepted`, then the report, or the rejected `claim` and the `reason`.   Raises: InvalidFile, ResourceLimit."""
    network = read_file(model)
    text = None if specification is None else read_file(specification)
    try:
        return {"accepted": True, **recheck(_bundle(certificate), network, text).as_dict()}
    except CertificateRejected as refusal:
        return {"accepted": False, "claim": refusal.claim, "reason": refusal.reason}


def as_view(found: dict[str, Any]) -> RenderableType:
    """The decision first, then what is known."""
    table = Table.grid(padding=(0, 3))
    decision = Text("accepted", style="bold green") if found["accepted"] else Text("rejected", style="bold red")
    table.add_row("certificate", decision)
    for name in SHOWN:
        if name in found:
            table.add_row(name.replace("_", " "), Text(str(found[name])))
    return table


def _bundle(path: Path) -> dict[str, bytes]:
    try:
        return dict(load(path))
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
