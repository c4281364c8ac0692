"""A certificate that is known by hand, keys, and every change of a JSON document."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from cli_kit import PLAIN
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from securesystemslib.signer import CryptoSigner

from provenn.api.signing import sign, statement
from provenn.api.signing_bundle import attach
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import read_network
from provenn.verifier.check.claims import ATTESTATION, MANIFEST
from provenn.verifier.check.manifest import sealed
from provenn.verifier.spec_json import robustness

SIGNER = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


@cache
def _proved() -> tuple[tuple[str, bytes], ...]:
    specification = robustness([1.0, 0.0], label=0, epsilon="0.25", norm="inf", outputs=2)
    return tuple(emit(read_network(PLAIN), specification, "ibp", {"provenn": "0.1.0"}).items())


def proved() -> dict[str, bytes]:
    """The files of a certificate about PLAIN, unsigned."""
    return dict(_proved())


def signed(files: Mapping[str, bytes], signer: CryptoSigner = SIGNER) -> dict[str, bytes]:
    """The same with an attestation."""
    certificate = hashlib.sha256(to_zip(files)).hexdigest()
    return {**files, ATTESTATION: sign(statement(files[MANIFEST], "plain.onnx", certificate), signer)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    """The bundle as the service sends it."""
    inner = {name: data for name, data in files.items() if name != ATTESTATION}
    return attach(to_zip(inner), files[ATTESTATION]) if ATTESTATION in files else to_zip(inner)


def changed(document: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy with one place changed."""
    found = copy.deepcopy(document)
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return found


def places(document: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every leaf of a document, and its value."""
    steps: Any = document.items() if isinstance(document, dict) else enumerate(document)
    for step, value in steps:
        if isinstance(value, dict | list) and value:
            yield from places(value, (*path, step))
        else:
            yield (*path, step), value


def altered(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, str):
        return value[:-1] + ("0" if value[-1:] != "0" else "1")
    return value + 1 if isinstance(value, int) else [7]


def resealed(manifest: bytes, path: tuple[str | int, ...], value: Any) -> bytes:
    """The manifest with one place changed, sealed again."""
    content = changed(json.loads(manifest), path, value)
    content.pop("sha256", None)
    return sealed(content)
