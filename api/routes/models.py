"""Networks: uploaded once, named by their digest, read only in a child process."""

from __future__ import annotations

import hashlib
from pathlib import PurePath
from typing import Annotated, Any

from fastapi import APIRouter, File, Response, UploadFile

from provenn.api.database import ModelRow
from provenn.api.jobs.inspection import InspectModel
from provenn.api.problems import not_found
from provenn.api.routes.paging import Cursor, Limit, next_cursor
from provenn.api.schemas import Model, ModelDetail, Models
from provenn.api.service import Parts

router = APIRouter(prefix="/v1/models", tags=["models"])
EXAMPLE = {"requestBody": {"content": {"multipart/form-data": {"example": {"file": "network.onnx"}}}}}


@router.post(
    "",
    status_code=201,
    summary="Upload a network",
    responses={200: {"model": ModelDetail, "description": "The same bytes were uploaded before"}},
    openapi_extra=EXAMPLE,
    form_limits={"max_files": 1, "max_fields": 0},
)
def upload(
    file: Annotated[UploadFile, File(description="an ONNX file, self-contained, or a provenn-network/1")],
    parts: Parts,
    response: Response,
) -> ModelDetail:
    """Admits a file under its SHA-256. It is read in a process of its own, within limits."""
    digest = hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]
    response.headers["Location"] = f"/v1/models/{digest}"
    row = parts.catalogue.model(digest)
    if row is None:
        with parts.blobs.staged(file.file) as name:
            summary = parts.engine.inspect(InspectModel(parts.engine.blobs, name))
            parts.blobs.keep(name, digest)
        row = ModelRow(id=digest, filename=_filename(file), bytes=file.size or 0, summary=summary)
        if parts.catalogue.add_model(row):
            return ModelDetail(**_members(row))
    response.status_code = 200
    return ModelDetail(**_members(row))


@router.get("", summary="List networks")
def models(parts: Parts, limit: Limit = 20, cursor: Cursor = None) -> Models:
    """The newest networks first."""
    rows = parts.catalogue.models(limit, cursor)
    return Models(items=[Model(**_members(row)) for row in rows], next=next_cursor(rows, limit))


@router.get("/{model}", summary="Describe a network")
def model(model: str, parts: Parts) -> ModelDetail:
    """What was admitted under this digest."""
    row = parts.catalogue.model(model)
    if row is None:
        raise not_found("model", model)
    return ModelDetail(**_members(row))


def _members(row: ModelRow) -> dict[str, Any]:
    return row.summary | {"id": row.id, "filename": row.filename, "bytes": row.bytes, "created_at": row.created_at}


def _filename(file: UploadFile) -> str:
    return PurePath(file.filename or "unnamed.onnx").name[:200]
