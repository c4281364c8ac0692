"""Batches: a network, a dataset, radii; a verdict and a certificate for every input and radius."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from itertools import chain
from typing import Annotated, Any, BinaryIO, Literal

from fastapi import APIRouter, Body, Response
from fastapi import Path as PathNumber
from fastapi.responses import StreamingResponse
from fastapi_problem.error import Problem
from pydantic import Field

from provenn.api.auth import Reader, Submitter
from provenn.api.batch.bundle import MANIFEST, opened
from provenn.api.batch.results import BUNDLE
from provenn.api.batch_schemas import BatchRequest
from provenn.api.jobs.batch_rows import Taken, TakeRow
from provenn.api.jobs.child import Descriptor
from provenn.api.json_bodies import JsonRoute
from provenn.api.problems import INTERNAL, not_found, problem
from provenn.api.routes.attesting import called, envelope
from provenn.api.routes.jobs import AT_ONCE, MODEL_ID, IdempotencyKey, queued
from provenn.api.schemas import BudgetRequest, JobRequest, JobStatus
from provenn.api.service import Parts, Service
from provenn.api.signing_batch import statement
from provenn.api.signing_bundle import extended
from provenn.api.tables import FileRow, JobRow
from provenn.api.wire import Digest, Text
from provenn.verifier.check import CertificateRejected

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=JsonRoute)
log = logging.getLogger("provenn.api")
EXAMPLES = {
    "radii": {
        "summary": "A test split at three radii",
        "value": {"model": MODEL_ID, "dataset": MODEL_ID, "epsilons": [0.01, 0.03, "8/255"], "clip": [0, 1]},
    },
    "largest": {
        "summary": "Every input's largest certified radius",
        "value": {"model": MODEL_ID, "dataset": MODEL_ID, "largest": 0.3, "clip": [0, 1]},
    },
}
TYPES = {".jsonl": "application/x-ndjson", ".zip": "application/zip"}
SCHEMA = {"schema": {"type": "string", "format": "binary"}}
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": dict.fromkeys(TYPES.values(), SCHEMA), "description": "Its bytes"}
}
ROW: dict[int | str, dict[str, Any]] = {200: {"content": {TYPES[".zip"]: SCHEMA}, "description": "Its bytes"}}


class NewBatch(BatchRequest):
    """A batch, and how to answer it."""

    model: Digest = Field(description="the model's id, as POST /v1/models returned it")
    method: Text = Field("auto", description="a name of GET /v1/backends")
    budget: BudgetRequest = Field(default_factory=lambda: BudgetRequest(seconds=600.0))
    seed: Annotated[int, Field(strict=True, ge=0, lt=1 << 32)] = 0
    certificates: Annotated[bool, Field(strict=True)] = Field(True, description="make and check a certificate a row")
    semantics: Literal["real", "float32"] = "real"
    priority: Annotated[int, Field(strict=True, ge=-10, le=10)] = 0

    def request(self) -> JobRequest:
        """The same, as the job that it is."""
        about = {name: getattr(self, name) for name in BatchRequest.model_fields}
        how = {name: getattr(self, name) for name in NewBatch.model_fields if name not in about}
        return JobRequest.model_validate({**how, "batch": BatchRequest.model_validate(about)})


@router.post("", status_code=202, summary="Queue a batch", responses=AT_ONCE)
def submit(
    request: Annotated[NewBatch, Body(openapi_examples=EXAMPLES)],
    who: Submitter,
    parts: Parts,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobStatus:
    """A job of kind `batch`: it falls into parts, and what is done of it stays done. Follow it as any job."""
    return queued(request.request(), who, parts, response, idempotency_key)


@router.get("/{batch}/files/{name}", summary="Download a file", response_class=StreamingResponse, responses=BYTES)
def file(batch: str, name: str, who: Reader, parts: Parts) -> StreamingResponse:
    """What a batch has left: `rows.jsonl`, a line an input and radius; `batch.zip`, for `provenn check`, signed.

    The SHA-256 that the job names is that of `batch.zip` without `attestation.json`, its last file.
    """
    job, found = _left(batch, name, who, parts)
    pieces, size = parts.blobs.open(found.id), found.bytes
    if name == BUNDLE:
        with _local(found, parts) as source:
            kept, rest = extended(source, _signed(job, found, source, parts))
        pieces, size = chain(_first(pieces, kept), (rest,)), kept + len(rest)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}
    media = next((kind for suffix, kind in TYPES.items() if name.endswith(suffix)), "application/octet-stream")
    return StreamingResponse(pieces, headers=headers, media_type=media)


@router.get("/{batch}/rows/{row}", summary="Download one row's certificate", response_class=Response, responses=ROW)
def row(batch: str, row: Annotated[int, PathNumber(ge=0)], who: Reader, parts: Parts) -> Response:
    """A bundle of one row alone, counted from 0, with its certificate and its path to the root of all; signed.

    `provenn check` takes it without the others.
    """
    job, found = _left(batch, BUNDLE, who, parts)
    with _local(found, parts) as source, tempfile.TemporaryFile(dir=parts.engine.work) as made:
        task = TakeRow(Descriptor(source.fileno()), Descriptor(made.fileno()), row)
        taken = Taken.of(parts.engine.inspect(task))
        if not taken.there:
            raise not_found("row", str(row))
        if taken.broken is not None:
            raise _unsigned(batch, taken.broken)
        kept, rest = extended(made, _signed(job, found, made, parts))
        made.seek(0)
        data = made.read(kept) + rest
    headers = {"Content-Disposition": f'attachment; filename="row-{row}.zip"'}
    return Response(data, media_type="application/zip", headers=headers)


def _left(batch: str, name: str, who: Reader, parts: Service) -> tuple[JobRow, FileRow]:
    """A batch of the caller's project, and a file that it has left.   Raises: a problem."""
    job = parts.jobs.get(batch, who.project)
    if job is None:
        raise not_found("batch", batch)
    found = next((each for each in parts.jobs.files(batch) if each.name == name), None)
    if found is None:
        raise not_found("file", name)
    return job, found


def _local(found: FileRow, parts: Service) -> BinaryIO:
    return parts.blobs.local(found.id).open("rb")


def _first(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The first bytes of all pieces, each of which is asked for: their end says that they are sound."""
    for piece in pieces:
        yield piece[: max(0, size)]
        size -= len(piece)


def _signed(job: JobRow, found: FileRow, source: BinaryIO, parts: Service) -> bytes:
    """The attestation of a bundle of the whole batch, or of one row of it: its manifest is signed now.

    A worker computes on a stranger's network: what it has left about anything but what was asked is not signed.
    """
    try:
        with opened(source) as bundle:
            manifest, stated = bundle.manifest, bundle.signed()[MANIFEST]
    except CertificateRejected as refusal:
        raise _unsigned(job.id, refusal.reason) from refusal
    asked = JobRequest.model_validate_json(parts.blobs.get(job.request))
    known = asked.batch is not None and manifest.question.as_json() == asked.batch.question().as_json()
    if not known or (manifest.model_sha256, manifest.semantics) != (job.model_id, asked.semantics):
        raise _unsigned(job.id, "it is about another network or question than its job")
    return envelope(statement(stated, called(job.model_id, job.project_id, parts), found.id), parts)


def _unsigned(batch: str, why: str) -> Problem:
    log.error("the bundle of batch %s is not signed: %s", batch, why)
    return problem(INTERNAL, f"the bundle is not signed: {why}")
