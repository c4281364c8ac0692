"""Batches: a network, a dataset, radii; a verdict and a certificate for every input and radius."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Response
from fastapi.responses import StreamingResponse
from pydantic import Field

from provenn.api.auth import Reader, Submitter
from provenn.api.batch_schemas import BatchRequest
from provenn.api.problems import not_found
from provenn.api.routes.jobs import AT_ONCE, MODEL_ID, IdempotencyKey, queued
from provenn.api.schemas import BudgetRequest, JobRequest, JobStatus
from provenn.api.service import Parts
from provenn.api.wire import Digest, Text

router = APIRouter(prefix="/v1/batches", tags=["batches"])
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
    """What a batch has left: `rows.jsonl`, a line an input and radius; `batch.zip`, for `provenn check`."""
    if parts.jobs.get(batch, who.project) is None:
        raise not_found("batch", batch)
    found = next((each for each in parts.jobs.files(batch) if each.name == name), None)
    if found is None:
        raise not_found("file", name)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(found.bytes)}
    media = next((kind for suffix, kind in TYPES.items() if name.endswith(suffix)), "application/octet-stream")
    return StreamingResponse(parts.blobs.open(found.id), headers=headers, media_type=media)
