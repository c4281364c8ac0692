"""Certificates: the manifest, and the bundle to check at home."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from provenn.api.problems import not_found
from provenn.api.service import Parts, Service
from provenn.verifier.certificate.bundle import load_zip

router = APIRouter(prefix="/v1/certificates", tags=["certificates"])


def _answers(media_type: str, schema: dict[str, str]) -> dict[int | str, dict[str, Any]]:
    return {200: {"content": {media_type: {"schema": schema}}, "description": "The bytes that were stored"}}


MANIFEST = _answers("application/json", {"type": "object"})
BUNDLE = _answers("application/zip", {"type": "string", "format": "binary"})


@router.get("/{certificate}", summary="Read a certificate's manifest", response_class=Response, responses=MANIFEST)
def manifest(certificate: str, parts: Parts) -> Response:
    """The manifest's own bytes: claims, digests of model and specification, verdict."""
    return Response(load_zip(_bundle(certificate, parts))["manifest.json"], media_type="application/json")


@router.get("/{certificate}/bundle", summary="Download a certificate", response_class=Response, responses=BUNDLE)
def bundle(certificate: str, parts: Parts) -> Response:
    """The zip that `provenn check` reads; its SHA-256 is the certificate's id."""
    headers = {"Content-Disposition": f'attachment; filename="{certificate}.zip"'}
    return Response(_bundle(certificate, parts), media_type="application/zip", headers=headers)


def _bundle(certificate: str, parts: Service) -> bytes:
    row = parts.catalogue.certificate(certificate)
    if row is None:
        raise not_found("certificate", certificate)
    return parts.blobs.get(row.id)
