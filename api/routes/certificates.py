"""Certificates: the manifest, the bundle to check at home, and who says that it holds."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from typing import Any

from fastapi import APIRouter, Response

from provenn.api.auth import Caller, Reader
from provenn.api.problems import INTERNAL, UNAVAILABLE, not_found, problem
from provenn.api.service import Parts, Service
from provenn.api.signing import sign, statement
from provenn.api.signing_bundle import attach
from provenn.api.signing_keys import SigningKeyError
from provenn.verifier.check.claims import MANIFEST

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])
log = logging.getLogger("provenn.api")


def _answers(media_type: str, schema: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": schema}}, "description": "Its bytes"}}


OBJECT = _answers("application/json", {"type": "object"})
BUNDLE = _answers("application/zip", {"type": "string", "format": "binary"})


@router.get("/{certificate}", summary="Read a certificate's manifest", response_class=Response, responses=OBJECT)
def manifest(certificate: str, who: Reader, parts: Parts) -> Response:
    """The manifest's own bytes: claims, digests of model and specification, verdict."""
    return Response(_manifest(_bundle(certificate, who, parts)), media_type="application/json")


@router.get("/{certificate}/bundle", summary="Download a certificate", response_class=Response, responses=BUNDLE)
def bundle(certificate: str, who: Reader, parts: Parts) -> Response:
    """The zip that `provenn check` reads, signed: without `attestation.json`, its last file, its SHA-256 is the id."""
    stored = _bundle(certificate, who, parts)
    headers = {"Content-Disposition": f'attachment; filename="{certificate}.zip"'}
    signed = attach(stored, _signed(certificate, _manifest(stored), who, parts))
    return Response(signed, media_type="application/zip", headers=headers)


@router.get("/{certificate}/attestation", summary="Read who signs it", response_class=Response, responses=OBJECT)
def attestation(certificate: str, who: Reader, parts: Parts) -> Response:
    """A DSSE envelope around an in-toto statement: this service says that the claims hold. The bundle has it too."""
    stored = _bundle(certificate, who, parts)
    return Response(_signed(certificate, _manifest(stored), who, parts), media_type="application/json")


def _signed(certificate: str, manifest: bytes, who: Caller, parts: Service) -> bytes:
    """The envelope, signed now: the private key is in this process alone."""
    digest = json.loads(manifest)["model"]["sha256_file"]
    known = parts.catalogue.certificate(who.project, certificate)
    if known is None or known.model_id != digest:
        log.error("certificate %s is about another network than its job was: it is not signed", certificate)
        raise problem(INTERNAL, "the certificate is about another network than its job was: it is not signed")
    row = parts.catalogue.model(who.project, digest)
    name = row.filename if row is not None else digest
    try:
        return sign(statement(manifest, name, certificate), parts.keyring.signer())
    except SigningKeyError as error:
        log.error("%s", error)
        raise problem(UNAVAILABLE, "certificates cannot be signed now; the server's log has the reason") from error


def _manifest(stored: bytes) -> bytes:
    with zipfile.ZipFile(io.BytesIO(stored)) as archive:
        return archive.read(MANIFEST)


def _bundle(certificate: str, who: Caller, parts: Service) -> bytes:
    row = parts.catalogue.certificate(who.project, certificate)
    if row is None:
        raise not_found("certificate", certificate)
    return parts.blobs.get(row.id)
