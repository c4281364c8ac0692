"""Networks: uploaded once, named by their canonical file's digest, read only in a sandboxed process."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import APIRouter, Form, Response, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import Field

from provenn.api.auth import Reader, Submitter
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import IMPLICIT, Inspected, InspectModel, Summary
from provenn.api.jobs.quotas import require_bytes
from provenn.api.problems import not_found
from provenn.api.routes.paging import Cursor, Limit, next_cursor, unknown_cursor
from provenn.api.schemas import Model, ModelDetail, Models
from provenn.api.service import Parts, Service
from provenn.api.tables import ModelRow
from provenn.api.wire import Request

router = APIRouter(prefix="/v1/models", tags=["models"])
BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
FILE: dict[int | str, dict[str, Any]] = {200: {"content": BINARY, "description": "Its bytes"}}
EXAMPLE = {"requestBody": {"content": {"multipart/form-data": {"example": {"file": "network.onnx"}}}}}


class Upload(Request):
    """A network, in any format that is read."""

    file: UploadFile = Field(
        description="an ONNX file, self-contained, or a zip or tar of one and its data; a provenn-network/1; a .pt2 of "
        "torch.export; or weights (safetensors, or a state dict)"
    )
    architecture: str | None = Field(None, description="the layers that weights belong to, JSON; for weights alone")
    preprocessing: str | None = Field(
        None,
        description="what is done to an input first, JSON with any of divide, mean, std, layout: (x / divide - mean) / "
        "std becomes a part of the network, and all that is asked and answered is about x",
    )


@router.post(
    "",
    status_code=201,
    summary="Upload a network",
    responses={200: {"model": ModelDetail, "description": "The same network was uploaded before"}},
    openapi_extra=EXAMPLE,
    form_limits={"max_files": 1, "max_fields": 2},
)
def upload(
    given: Annotated[Upload, Form(media_type="multipart/form-data")], who: Submitter, parts: Parts, response: Response
) -> ModelDetail:
    """Admits a network under the SHA-256 of its canonical file. It is read in a sandboxed process, within limits."""
    file = given.file
    source = hashlib.file_digest(file.file, "sha256").hexdigest()  # type: ignore[arg-type]
    plain = given.architecture is None and given.preprocessing is None
    row = parts.catalogue.model(who.project, source) if plain else None
    if row is None:
        found = _admitted(given, parts)
        row = ModelRow(
            project_id=who.project,
            key_id=who.key,
            id=found.digest,
            filename=filename(file),
            format=found.format,
            source=source,
            bytes=found.bytes,
            summary=found.summary.model_dump(),
        )
        if not parts.catalogue.add(row, partial(require_bytes, row=row, settings=parts.settings)):
            row = parts.catalogue.model(who.project, found.digest) or row
            response.status_code = 200
    else:
        response.status_code = 200
    response.headers["Location"] = f"/v1/models/{row.id}"
    return ModelDetail(**_members(row))


@dataclass(frozen=True)
class _Admitted:
    """digest, bytes: of the canonical file, which is a blob now."""

    digest: str
    bytes: int
    format: str
    summary: Summary


def _admitted(given: Upload, parts: Service) -> _Admitted:
    """Has the upload read, and keeps its canonical file.   Raises: as `Inspector.inspect`, and InvalidModel."""
    uploaded = given.file.file
    uploaded.seek(0)  # writes what is buffered
    architecture, preprocessing = (
        None if text is None else text.encode() for text in (given.architecture, given.preprocessing)
    )
    read_only = Path(f"/dev/fd/{uploaded.fileno()}")
    with read_only.open("rb") as upload, tempfile.TemporaryFile(dir=parts.engine.work) as made:
        task = InspectModel(Descriptor(upload.fileno()), Descriptor(made.fileno()), architecture, preprocessing)
        found = Inspected.of(parts.engine.inspect(task))
        canonical = upload if found.as_is else made
        digest = parts.blobs.put_file(canonical)
        size = canonical.seek(0, os.SEEK_END)
    return _Admitted(digest, size, found.format, found.summary)


@router.get("", summary="List networks")
def models(who: Reader, parts: Parts, limit: Limit = 20, cursor: Cursor = None) -> Models:
    """The newest networks first."""
    if cursor is not None and parts.catalogue.model(who.project, cursor) is None:
        raise unknown_cursor(cursor)
    rows = parts.catalogue.models(who.project, limit, cursor)
    return Models(items=[Model(**_members(row)) for row in rows], next=next_cursor(rows, limit))


@router.get("/{model}", summary="Describe a network")
def model(model: str, who: Reader, parts: Parts) -> ModelDetail:
    """What was admitted under this digest."""
    row = parts.catalogue.model(who.project, model)
    if row is None:
        raise not_found("model", model)
    return ModelDetail(**_members(row))


@router.get("/{model}/file", summary="Download a network", response_class=StreamingResponse, responses=FILE)
def file(model: str, who: Reader, parts: Parts) -> StreamingResponse:
    """The canonical file that certificates are about: its SHA-256 is the model's id."""
    row = parts.catalogue.model(who.project, model)
    if row is None:
        raise not_found("model", model)
    suffix = "safetensors" if row.format == IMPLICIT else "onnx"
    headers = {
        "Content-Disposition": f'attachment; filename="{row.id}.{suffix}"',
        "Content-Length": str(row.bytes),
    }
    return StreamingResponse(parts.blobs.open(row.id), headers=headers, media_type="application/octet-stream")


def _members(row: ModelRow) -> dict[str, Any]:
    facts = ("id", "filename", "bytes", "format", "created_at")
    return row.summary | {name: getattr(row, name) for name in facts} | {"source_digest": row.source}


def filename(file: UploadFile) -> str:
    """Its own name for the file, as far as it can be printed: neither NUL, which no database keeps, nor escapes."""
    return "".join(filter(str.isprintable, PurePath(file.filename or "").name))[:200] or "unnamed.onnx"
