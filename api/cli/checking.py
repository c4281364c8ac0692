"""`provenn check`: the trusted checker on files from disk. Nothing here loads torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.cli.files import InvalidFile, read_file
from provenn.api.cli.statements import jacobian, lipschitz
from provenn.verifier.certificate.bundle import load
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check import check as recheck

SHOWN = (
    "proves",
    "claim",
    "reason",
    "margin",
    "uppers",
    "entries",
    "claims",
    "semantics",
    "assurance",
    "model_sha256",
    "specification_sha256",
    "seconds",
)
"""What people see of a report; --json has everything."""


def examine(certificate: Path, model: Path, specification: Path | None) -> dict[str, Any]:
    """`accepted`, what it `proves` and the report; or the rejected `claim` and the `reason`.

    Raises: InvalidFile, ResourceLimit.
    """
    network = read_file(model)
    text = None if specification is None else read_file(specification)
    try:
        files = _bundle(certificate)
        report = recheck(files, network, text).as_dict()
        executed = "; in every float32 execution" if report["semantics"] == "float32" else ""
        return {"accepted": True, **report, "proves": stated(files) + executed}
    except CertificateRejected as refusal:
        return {"accepted": False, "claim": refusal.claim, "reason": refusal.reason}
    except MemoryError:
        return {"accepted": False, "claim": "environment", "reason": "the memory does not suffice for it"}


def stated(files: dict[str, bytes]) -> str:
    """What an accepted certificate proves, in a sentence; `files` have been checked."""
    name = json.loads(files["manifest.json"])["specification"]["file"]
    what = json.loads(files[name], parse_float=str, parse_int=str) if name.endswith(".json") else {}
    if what.get("kind") == "lipschitz":
        return lipschitz(what, name)
    if what.get("kind") == "jacobian":
        return jacobian(what, name)
    if what.get("kind") != "robustness":
        return f"no input of the sets in its {name} has an unsafe output"
    within = f" with values in [{', '.join(what['clip'])}]" if what.get("clip") else ""
    norm = {"inf": "l-infinity", "2": "l2", "1": "l1"}[what.get("norm", "inf")]
    wins = f"class {what['label']} wins" + (f" over class {what['target']}" if what.get("target") else "")
    return f"{wins} for every input within {norm} distance {what['epsilon']} of the one in its {name}{within}"


def as_view(found: dict[str, Any]) -> RenderableType:
    """The decision first, then what is known."""
    table = Table.grid(padding=(0, 3))
    decision = Text("accepted", style="bold green") if found["accepted"] else Text("rejected", style="bold red")
    table.add_row("certificate", decision)
    derivatives = bool(found.get("uppers") or found.get("entries"))
    for name in SHOWN:
        told = found.get(name)
        if told is None or told == () or (name == "margin" and derivatives):
            continue
        table.add_row(name.replace("_", " "), Text(f"{len(told)} bounded" if name == "entries" else str(told)))
    return table


def _bundle(path: Path) -> dict[str, bytes]:
    try:
        return dict(load(path))
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
