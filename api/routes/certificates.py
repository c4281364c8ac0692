"""Certificates: the manifest, the bundle to check at home, and who says that it holds."""

from __future__ import annotations

import io
import json
import logging
import zipfile
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from provenn.api.auth import Reader
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.rechecking import CheckCertificate, Rechecked
from provenn.api.problems import INTERNAL, not_found, problem
from provenn.api.routes.attesting import called, envelope
from provenn.api.service import Parts, Service
from provenn.api.signing import statement
from provenn.api.signing_bundle import attach
from provenn.api.tables import CertificateRow
from provenn.verifier.check.claims import MANIFEST
from provenn.verifier.version import provenn_version

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])
log = logging.getLogger("provenn.api")


def _answers(media_type: str, schema: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": schema}}, "description": "Its bytes"}}


OBJECT = _answers("application/json", {"type": "object"})
BUNDLE = _answers("application/zip", {"type": "string", "format": "binary"})


@dataclass(frozen=True)
class Stored:
    """A certificate of the caller's project: its row, and the zip as it was made."""

    row: CertificateRow
    data: bytes

    @property
    def manifest(self) -> bytes:
        """The manifest's own bytes."""
        with zipfile.ZipFile(io.BytesIO(self.data)) as archive:
            return archive.read(MANIFEST)


def _stored(certificate: str, who: Reader, parts: Parts) -> Stored:
    row = parts.catalogue.certificate(who.project, certificate)
    if row is None:
        raise not_found("certificate", certificate)
    return Stored(row, parts.blobs.get(row.id))


Existing = Annotated[Stored, Depends(_stored)]


@router.get("/{certificate}", summary="Read a certificate's manifest", response_class=Response, responses=OBJECT)
def manifest(stored: Existing) -> Response:
    """The manifest's own bytes: claims, digests of model and specification, verdict."""
    return Response(stored.manifest, media_type="application/json")


@router.get("/{certificate}/bundle", summary="Download a certificate", response_class=Response, responses=BUNDLE)
def bundle(stored: Existing, parts: Parts) -> Response:
    """The zip that `provenn check` reads, signed: without `attestation.json`, its last file, its SHA-256 is the id."""
    headers = {"Content-Disposition": f'attachment; filename="{stored.row.id}.zip"'}
    signed = attach(stored.data, _signed(stored, parts))
    return Response(signed, media_type="application/zip", headers=headers)


@router.get("/{certificate}/attestation", summary="Read who signs it", response_class=Response, responses=OBJECT)
def attestation(stored: Existing, parts: Parts) -> Response:
    """A DSSE envelope around an in-toto statement: this service says that the claims hold. The bundle has it too."""
    return Response(_signed(stored, parts), media_type="application/json")


@router.post("/{certificate}/check", summary="Check a certificate again")
def check(stored: Existing, parts: Parts) -> Rechecked:
    """Has the trusted kernel prove every claim again, in a sandbox. Whoever doubts the service runs `provenn check`."""
    bundle, model = (parts.blobs.local(digest) for digest in (stored.row.id, stored.row.model_id))
    with bundle.open("rb") as proof, model.open("rb") as network:
        task = CheckCertificate(Descriptor(proof.fileno()), Descriptor(network.fileno()))
        found = Rechecked.of(parts.engine.inspect(task))
    return found.model_copy(update={"versions": {"provenn": provenn_version(), **(found.versions or {})}})


def _signed(stored: Stored, parts: Service) -> bytes:
    """The envelope, signed now: the private key is in this process alone.

    A worker computes on a stranger's network: what it has left about another one than its job's is not signed.
    """
    row, manifest = stored.row, stored.manifest
    if json.loads(manifest)["model"]["sha256_file"] != row.model_id:
        log.error("certificate %s is about another network than its job: it is not signed", row.id)
        raise problem(INTERNAL, "the certificate is about another network than its job: it is not signed")
    return envelope(statement(manifest, called(row.model_id, row.project_id, parts), row.id), parts)
