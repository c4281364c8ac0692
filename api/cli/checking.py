"""`provenn check`: is a certificate true, which the trusted checker decides; and who said it, which a signature does.

Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from provenn.api.cli.outcome import ExitCode
from provenn.api.files import InvalidFile, read_file
from provenn.api.specifications import Claimed, beside, claimed
from provenn.api.statements import stated
from provenn.verifier.certificate.bundle import load
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.claims import ATTESTATION
from provenn.verifier.errors import ProvennError, in_file

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


ABSENT: dict[str, Any] = {"status": "absent", "keyid": None, "reason": None, "certificate": None, "retired_at": None}


def examine(certificate: Path, model: Path, specification: Path | None, keys: Path | None = None) -> dict[str, Any]:
    """`accepted`, what it `proves` and the report; or the rejected `claim` and the `reason`. And the `signature`.

    keys: a file of public keys, as `GET /v1/keys` answers.   Raises: InvalidFile, ResourceLimit.
    """
    about = _asked(model, specification)
    known = b"" if keys is None else read_file(keys)
    signature = ABSENT
    try:
        files = _bundle(certificate)
        signature = signed(files, about.model, keys, known)
        report = about.checked(files).as_dict()
        executed = "; in every float32 execution" if report["semantics"] == "float32" else ""
        return {"accepted": True, **report, "proves": (about.words or stated(files)) + executed, "signature": signature}
    except CertificateRejected as refusal:
        return {"accepted": False, "claim": refusal.claim, "reason": refusal.reason, "signature": signature}
    except MemoryError:
        full = {"accepted": False, "claim": "environment", "reason": "the memory does not suffice for it"}
        return full | {"signature": signature}


def _asked(model: Path, specification: Path | None) -> Claimed:
    """What it has to be about.   Raises: InvalidFile, InvalidSpecification naming the file."""
    network = read_file(model)
    if specification is None:
        return Claimed(network)
    data = read_file(specification)
    try:
        return claimed(data, network, beside(specification))
    except ProvennError as error:
        raise in_file(specification, error) from None


def signed(
    files: Mapping[str, bytes], model: bytes, path: Path | None, keys: bytes, batch: bool = False
) -> dict[str, Any]:
    """What is known of the signature, on its own; batch: of a batch's manifest.

    Raises: InvalidFile if the file of public keys is not one.
    """
    if path is None and ATTESTATION not in files:
        return ABSENT
    from provenn.api.signing import CERTIFICATE
    from provenn.api.signing import examine as said
    from provenn.api.signing_batch import BATCH
    from provenn.api.signing_keys import PublicKeys

    try:
        known = PublicKeys() if path is None else PublicKeys.model_validate_json(keys)
    except ValidationError as error:
        first = error.errors()[0]
        where = "/".join(map(str, first["loc"]))
        reason = f"is not a list of public keys, as GET /v1/keys answers: {where}: {first['msg']}"
        raise InvalidFile(path or Path(), reason) from error
    return said(files, model, known, BATCH if batch else CERTIFICATE).as_dict()


def code(found: Mapping[str, Any], keys: Path | None, required: bool) -> ExitCode:
    """A rejected proof first, then the signature.

    One that is invalid never passes; one by an unknown key not where keys are given; only a valid one if required.
    """
    status = found["signature"]["status"]
    bad = status == "invalid" or (status == "unknown-key" and keys is not None) or (required and status != "valid")
    return ExitCode.REJECTED if not found["accepted"] else ExitCode.BAD_SIGNATURE if bad else ExitCode.VERIFIED


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
    show_signature(found["signature"], table)
    return table


def show_signature(said: Mapping[str, Any], table: Table) -> None:
    """Adds what is known of a signature."""
    style = {"valid": "bold green", "invalid": "bold red", "unknown-key": "bold yellow"}
    table.add_row("signature", Text(said["status"].replace("-", " "), style=style.get(said["status"], "")))
    told = {"by key": said["keyid"], "since retired": said["retired_at"], "because": said["reason"]}
    for name, value in told.items():
        if value is not None:
            table.add_row(name, Text(value))


def _bundle(path: Path) -> dict[str, bytes]:
    try:
        return dict(load(path))
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
