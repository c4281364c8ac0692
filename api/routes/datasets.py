"""Data: inputs with their classes, uploaded once, named by their canonical file's digest."""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Response, UploadFile
from pydantic import Field

from provenn.api.auth import Reader, Submitter
from provenn.api.batch_schemas import Dataset, Datasets
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspecting_data import InspectData, InspectedData
from provenn.api.jobs.quotas import require_bytes
from provenn.api.problems import not_found
from provenn.api.routes.models import filename
from provenn.api.routes.paging import Cursor, Limit, next_cursor, unknown_cursor
from provenn.api.routes.shown import moment
from provenn.api.service import Parts
from provenn.api.tables import DatasetRow
from provenn.api.wire import Request

router = APIRouter(prefix="/v1/datasets", tags=["batches"])
EXAMPLE = {"requestBody": {"content": {"multipart/form-data": {"example": {"file": "test-split.npz"}}}}}


class DataUpload(Request):
    """Inputs with their classes."""

    file: UploadFile = Field(
        description="an .npz file of numpy: x [n, ...], the classes y [n], and names [n] if there are"
    )


@router.post(
    "",
    status_code=201,
    summary="Upload a dataset",
    responses={200: {"model": Dataset, "description": "The same data were uploaded before"}},
    openapi_extra=EXAMPLE,
    form_limits={"max_files": 1, "max_fields": 0},
)
def upload(
    given: Annotated[DataUpload, Form(media_type="multipart/form-data")],
    who: Submitter,
    parts: Parts,
    response: Response,
) -> Dataset:
    """Keeps the data under the SHA-256 of their canonical file. They are read in a sandboxed process, within limits."""
    uploaded, name = given.file.file, filename(given.file)
    uploaded.seek(0)  # writes what is buffered
    with (
        Path(f"/dev/fd/{uploaded.fileno()}").open("rb") as source,
        tempfile.TemporaryFile(dir=parts.engine.work) as made,
    ):
        task = InspectData(Descriptor(source.fileno()), Descriptor(made.fileno()), name)
        found = InspectedData.of(parts.engine.inspect(task))
        digest = parts.blobs.put_file(made)
        size = made.seek(0, os.SEEK_END)
    row = DatasetRow(project_id=who.project, key_id=who.key, id=digest, filename=name, bytes=size, **found.model_dump())
    if not parts.catalogue.add(row, partial(require_bytes, row=row, settings=parts.settings)):
        row = parts.catalogue.dataset(who.project, digest) or row
        response.status_code = 200
    response.headers["Location"] = f"/v1/datasets/{row.id}"
    return _shown(row)


@router.get("", summary="List datasets")
def datasets(who: Reader, parts: Parts, limit: Limit = 20, cursor: Cursor = None) -> Datasets:
    """The newest first."""
    if cursor is not None and parts.catalogue.dataset(who.project, cursor) is None:
        raise unknown_cursor(cursor)
    rows = parts.catalogue.datasets(who.project, limit, cursor)
    return Datasets(items=[_shown(row) for row in rows], next=next_cursor(rows, limit))


@router.get("/{dataset}", summary="Describe a dataset")
def dataset(dataset: str, who: Reader, parts: Parts) -> Dataset:
    """How many inputs, how wide, how many classes."""
    row = parts.catalogue.dataset(who.project, dataset)
    if row is None:
        raise not_found("dataset", dataset)
    return _shown(row)


def _shown(row: DatasetRow) -> Dataset:
    facts = {name: getattr(row, name) for name in ("id", "filename", "bytes", "count", "width", "classes")}
    return Dataset(**facts, created_at=moment(row.created_at))
