"""Who says that a certificate holds: an in-toto statement in a DSSE envelope, signed with ed25519.

Whether it is true is another question, which `provenn.verifier.check` answers; it reads none of this.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, Field, ValidationError
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]  # it does not declare it

from provenn.api.signing_keys import PublicKeys
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.claims import ATTESTATION, MANIFEST
from provenn.verifier.check.manifest import ASSURANCES, canonical, parsed, read_manifest

PAYLOAD = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:provenn:predicate:certificate:1"
CHECKER = "provenn.verifier.check"


class Status(StrEnum):
    """What is known of a signature."""

    VALID = "valid"
    INVALID = "invalid"
    UNKNOWN_KEY = "unknown-key"
    ABSENT = "absent"


@dataclass(frozen=True)
class Signature:
    """Who said it: the key of a valid or invalid signature, why it is not valid, and the id of what was signed.

    retired_at: since when the service signs with another key; a signature says nothing of its own time.
    """

    status: Status
    keyid: str | None = None
    reason: str | None = None
    certificate: str | None = None
    retired_at: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class _Digest(BaseModel):
    sha256: str


class _Resource(BaseModel):
    name: str
    digest: _Digest


class _Predicate(BaseModel):
    certificate: _Resource
    manifest: _Resource


class _Statement(BaseModel):
    predicateType: str  # noqa: N815 - in-toto's name
    subject: list[_Resource] = Field(min_length=1, max_length=1)
    predicate: _Predicate


class _Signed(BaseModel):
    keyid: str
    sig: str


class _Envelope(BaseModel):
    payload: str
    payloadType: str  # noqa: N815 - DSSE's name
    signatures: list[_Signed] = Field(min_length=1, max_length=16)


def statement(manifest: bytes, name: str, certificate: str) -> bytes:
    """What is signed: the manifest's claims about the model's file `name`, as canonical JSON.

    A function of these three alone, so whoever has them can compare. certificate: the id, SHA-256 of the zip. Real
    numbers are text, hexadecimal floats or rationals, as in the manifest, which has no others. The checker is that of
    the version that made the certificate, whose worker says that it was accepted: nobody else has checked it.
    Raises: CertificateRejected if this is not a manifest.
    """
    content, claims = read_manifest(manifest), parsed("manifest", manifest, int)["claims"]
    about, prover = content["specification"], content["produced_by"]
    predicate = {
        "certificate": resource("certificate.zip", certificate),
        "manifest": resource(MANIFEST, hashlib.sha256(manifest).hexdigest()),
        "specification": resource(about["file"], about["sha256_file"]),
        "verdict": content["verdict"],
        "semantics": content["semantics"],
        "assurance": ASSURANCES[content["semantics"]],
        "claims": claims,
        "prover": prover,
        "checker": {CHECKER: prover.get("provenn", "")},
    }
    return stated(PREDICATE, resource(name, content["model"]["sha256_file"]), predicate)


def stated(kind: str, subject: Mapping[str, Any], predicate: Mapping[str, Any]) -> bytes:
    """The in-toto statement, canonical JSON; kind: the predicate's type."""
    return canonical({"_type": STATEMENT, "subject": [subject], "predicateType": kind, "predicate": predicate})


def resource(name: str, sha256: str) -> dict[str, Any]:
    """A file, as in-toto names it."""
    return {"name": name, "digest": {"sha256": sha256}}


def sign(payload: bytes, signer: CryptoSigner) -> bytes:
    """The DSSE envelope of a statement, as JSON. The same key signs the same statement with the same bytes."""
    envelope = Envelope(payload, PAYLOAD, {})
    envelope.sign(signer)
    return canonical(envelope.to_dict())


@dataclass(frozen=True)
class Kind:
    """What is signed: the type of the predicate, the file that is its manifest, and how it is stated."""

    predicate: str
    manifest: str
    statement: Callable[[bytes, str, str], bytes]


CERTIFICATE = Kind(PREDICATE, MANIFEST, statement)


def examine(files: Mapping[str, bytes], model: bytes, keys: PublicKeys, kind: Kind = CERTIFICATE) -> Signature:
    """Whether one of `keys` has signed what these files state of this model (unpacked, if it was gzipped).

    The statement names the manifest's digest, and the manifest those of all other files: that they have them, and that
    the claims are true, is what the checker decides.
    """
    if ATTESTATION not in files:
        return Signature(Status.ABSENT)
    try:
        told = _Envelope.model_validate_json(files[ATTESTATION])
        envelope = Envelope.from_dict(told.model_dump())
    except ValueError:
        return Signature(Status.INVALID, reason="its envelope is not understood")
    known = {key.keyid: key for key in keys.keys if key.keyid in envelope.signatures}
    keyid = next(iter(known or envelope.signatures))
    if envelope.payload_type != PAYLOAD:
        return Signature(Status.INVALID, keyid, f"it is over {envelope.payload_type!r}, not {PAYLOAD}")
    if known:
        try:
            keyid = next(iter(envelope.verify([key.key for key in known.values()], 1)))
        except VerificationError:
            return Signature(Status.INVALID, keyid, "this key has not signed this statement")
    manifest = files.get(kind.manifest, b"")
    certificate, wrong = _compared(envelope.payload, manifest, hashlib.sha256(model).hexdigest(), kind)
    if wrong:
        return Signature(Status.INVALID, keyid, wrong, certificate)
    if not known:
        return Signature(Status.UNKNOWN_KEY, keyid, "no key with this id was given", certificate)
    retired = known[keyid].retired_at
    return Signature(Status.VALID, keyid, None, certificate, retired.isoformat() if retired else None)


def _compared(payload: bytes, manifest: bytes, model: str, kind: Kind) -> tuple[str | None, str | None]:
    """The id of the certificate that a statement is about, and what it says otherwise than the manifest and model."""
    try:
        told = _Statement.model_validate_json(payload)
    except ValidationError:
        return None, "it is not over a statement about a certificate"
    about, subject = told.predicate.certificate.digest.sha256, told.subject[0]
    if told.predicateType != kind.predicate:
        return about, f"it is over a statement of another kind, {told.predicateType}"
    if subject.digest.sha256 != model:
        return about, f"it signed something else: a statement about the model with sha256 {subject.digest.sha256}"
    signed = told.predicate.manifest.digest.sha256
    if signed != hashlib.sha256(manifest).hexdigest():
        return about, f"it signed something else: the manifest with sha256 {signed}"
    try:
        same = kind.statement(manifest, subject.name, about) == payload
    except CertificateRejected as refusal:
        return about, f"it signed what is no manifest: {refusal}"
    return about, None if same else "it signed something else: a statement that differs from the manifest"
