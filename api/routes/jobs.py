"""Jobs: refused at the door where possible, then queued, listed, followed, cancelled, tried again."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Header, Query, Response
from fastapi.concurrency import run_in_threadpool
from pydantic import AwareDatetime, BeforeValidator

from provenn.api.auth import FORBIDDEN, Caller, Reader, Submitter
from provenn.api.batch_schemas import File
from provenn.api.jobs.model import State
from provenn.api.jobs.questions import question
from provenn.api.jobs.store import Which
from provenn.api.json_bodies import JsonRoute
from provenn.api.keys import Scope, allows
from provenn.api.problems import CONFLICT, not_found, problem
from provenn.api.routes.admission import check
from provenn.api.routes.documents import resolved, restricted
from provenn.api.routes.paging import Cursor, Limit, next_cursor, unknown_cursor
from provenn.api.routes.shown import status, transition
from provenn.api.routes.waiting import LONGEST, over
from provenn.api.schemas import Job, JobRequest, JobResult, Jobs, JobStatus
from provenn.api.service import Parts, Service
from provenn.api.tables import DatasetRow, JobRow, ModelRow
from provenn.api.wire import Digest, Text

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)
MODEL_ID = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
EXAMPLES = {
    "images": {
        "summary": "Robustness of inputs at several radii",
        "value": {
            "model": MODEL_ID,
            "inputs": {"inputs": [[0.0, 0.5], [1.0, 0.25]], "labels": [1, 0], "epsilons": [0.01, 0.1], "clip": [0, 1]},
            "budget": {"seconds": 60},
        },
    },
    "vnnlib": {
        "summary": "A VNN-LIB property",
        "value": {
            "model": MODEL_ID,
            "specification": "(declare-const X_0 Real)\n(declare-const Y_0 Real)\n(assert (>= X_0 -1.0))\n"
            "(assert (<= X_0 1.0))\n(assert (>= Y_0 2.0))\n",
            "method": "crown",
        },
    },
    "lipschitz": {
        "summary": "A Lipschitz constant",
        "value": {
            "model": MODEL_ID,
            "lipschitz": {"norm": "2", "rows": "pairs:3"},
            "method": "lipsdp-neuron",
            "budget": {"seconds": 60},
        },
    },
    "monotonicity": {
        "summary": "Monotonicity in a feature, over a whole domain",
        "value": {
            "model": MODEL_ID,
            "monotonicity": {
                "features": ["income"],
                "domain": {"features": [{"name": "income", "range": [0, 10]}, {"name": "colour", "one_hot": 3}]},
            },
            "budget": {"seconds": 60},
        },
    },
    "jacobian": {
        "summary": "Bounds of derivatives around an input",
        "value": {
            "model": MODEL_ID,
            "jacobian": {"rows": "0", "region": {"input": [0.0, 0.5], "epsilon": 0.1}},
            "method": "crown",
        },
    },
    "tightness": {
        "summary": "Propagation tightness at inputs",
        "value": {"model": MODEL_ID, "tightness": {"inputs": [[0.0, 0.5]], "labels": [1], "epsilon": 0.1}},
    },
    "patterns": {
        "summary": "Activation patterns of the classes of a dataset",
        "value": {"model": MODEL_ID, "patterns": {"dataset": MODEL_ID, "delta": 0.95, "share": 0.2}},
    },
    "radius": {
        "summary": "The largest certified radius around an input",
        "value": {"model": MODEL_ID, "radius": {"input": [0.0, 0.5], "label": 1, "clip": [0, 1]}},
    },
}
AT_ONCE: dict[int | str, dict[str, Any]] = {
    200: {"model": JobStatus, "description": "Nothing is left to do: an earlier job, or its answer"}
}
ASKED: dict[int | str, dict[str, Any]] = {200: {"model": JobRequest, "description": "The request"}}
AGAIN = (
    "project_id", "model_id", "dataset_id", "kind", "method", "seconds", "seed", "certificates", "items", "request",
    "bytes", "question",
)  # fmt: skip
"""What a job that is tried again has in common with the first."""
URGENT = 0
"""The largest priority that needs no scope but submit."""
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern="^[ -~]+$",
        description="any text: the same request with it again is the same job",
    ),
]


@router.post("", status_code=202, summary="Queue a job", responses=AT_ONCE)
def submit(
    request: Annotated[JobRequest, Body(openapi_examples=EXAMPLES)],
    who: Submitter,
    parts: Parts,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobStatus:
    """Checks the request as far as that is possible without computing, then queues it.

    Where the project has checked certificates that answer the same question the job has succeeded at once.
    """
    return queued(request, who, parts, response, idempotency_key)


def queued(request: JobRequest, who: Caller, parts: Service, response: Response, key: str | None) -> JobStatus:
    """The new job, or the one that it is the same as.   Raises: a problem; all that `check` raises."""
    model = parts.catalogue.model(who.project, request.model)
    if model is None:
        raise not_found("model", request.model)
    dataset = _dataset(request.dataset, who, parts)
    held_out = _dataset(None if request.patterns is None else request.patterns.held_out, who, parts)
    if request.priority > _most_urgent(who):
        raise problem(FORBIDDEN, f"a priority above {URGENT} needs the scope {Scope.ADMIN}", scope=Scope.ADMIN)
    request, model = resolved(request, model, who, parts)
    check(request, model, (dataset, held_out), parts)
    model = restricted(request, model, who, parts)
    return _submitted(_row(request, model, who, dataset, parts), parts, response, key)


def _dataset(name: str | None, who: Caller, parts: Service) -> DatasetRow | None:
    """The one that is named, if one is.   Raises: a problem if the project has none of this id."""
    found = None if name is None else parts.catalogue.dataset(who.project, name)
    if name is not None and found is None:
        raise not_found("dataset", name)
    return found


def _row(request: JobRequest, model: ModelRow, who: Caller, dataset: DatasetRow | None, parts: Service) -> JobRow:
    body, batch = request.model_dump_json().encode(), request.batch
    rows = request.items if batch is None or dataset is None else len(batch.span(dataset.count)) * batch.radii
    return JobRow(
        id=uuid.uuid4().hex,
        project_id=who.project,
        key_id=who.key,
        kind=request.kind,
        bytes=len(body),
        model_id=model.id,
        dataset_id=None if dataset is None else dataset.id,
        method=request.method,
        seconds=request.budget.seconds,
        seed=request.seed,
        certificates=request.certificates,
        items=rows,
        priority=request.priority,
        question=question(request) if request.cache and batch is None else None,
        request=parts.blobs.put(body),
    )


def _most_urgent(who: Caller) -> int:
    return 10 if allows(who.scopes, Scope.ADMIN) else URGENT


def _submitted(new: JobRow, parts: Service, response: Response, key: str | None = None) -> JobStatus:
    row = parts.submissions.submit(new, key)
    if row.id != new.id:
        response.headers["Idempotency-Replayed"] = "true"
        response.status_code = 200
    elif row.state == State.QUEUED:
        parts.engine.wake()
    else:
        response.status_code = 200
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return status(row)


def _written(given: object) -> object:
    """A time begins with a year: a plain number would be read as seconds."""
    if isinstance(given, str) and not re.match(r"\d{4}-", given, re.ASCII):
        raise ValueError("give a date and a time, as 2026-03-01T12:00:00Z")
    return given


Moment = Annotated[AwareDatetime, BeforeValidator(_written)]


@dataclass(frozen=True)
class Filters:
    """Which jobs a list has."""

    state: Annotated[
        tuple[State, ...], Query(description="only jobs in this state; several times: in any of these")
    ] = ()
    model: Annotated[Digest | None, Query(description="only jobs about this model")] = None
    kind: Annotated[Text | None, Query(max_length=32, description="inputs, specification, lipschitz, ...")] = None
    method: Annotated[Text | None, Query(max_length=64, description="as the jobs asked for it")] = None
    verdict: Annotated[
        Text | None, Query(max_length=32, description="verified, falsified, unknown, timeout or measured")
    ] = None
    parked: Annotated[bool | None, Query(description="whether too many workers died of it")] = None
    parent: Annotated[
        str | None, Query(pattern="^[0-9a-f]{32}$", description="only the parts of this job, which no other list has")
    ] = None
    created_after: Annotated[Moment | None, Query(description="only jobs from this time on")] = None
    created_before: Annotated[Moment | None, Query(description="only jobs from before this time")] = None

    def of(self, project: str, cursor: str | None) -> Which:
        """The same, as the store has it."""
        after, before = self.created_after, self.created_before
        return Which(
            project,
            self.state,
            self.model,
            self.kind,
            self.method,
            self.verdict,
            self.parked,
            since=None if after is None else after.timestamp(),
            until=None if before is None else before.timestamp(),
            parent=self.parent,
            before=cursor,
        )


@router.get("", summary="List jobs")
def jobs(
    who: Reader, parts: Parts, filters: Annotated[Filters, Depends()], limit: Limit = 20, cursor: Cursor = None
) -> Jobs:
    """The newest jobs first, without their results; parts only where their parent is given."""
    if cursor is not None and parts.jobs.get(cursor, who.project) is None:
        raise unknown_cursor(cursor)
    rows = parts.jobs.page(limit, filters.of(who.project, cursor))
    return Jobs(items=[status(row) for row in rows], next=next_cursor(rows, limit))


def _existing(job: str, who: Reader, parts: Parts) -> JobRow:
    row = parts.jobs.get(job, who.project)
    if row is None:
        raise not_found("job", job)
    return row


Existing = Annotated[JobRow, Depends(_existing)]


Patience = Annotated[
    float, Query(ge=0, le=LONGEST, description="seconds to wait for a job that is not over: less if it ends sooner")
]


@router.get("/{job}", summary="Follow a job")
async def job(row: Existing, parts: Parts, wait: Patience = 0) -> Job:
    """State, progress, every state before it, its parts, and the result once there is one."""
    if wait and not State(row.state).final:
        await over(parts, row.id, wait)
    return await run_in_threadpool(_described, row, parts, again=wait > 0)


def _described(row: JobRow, parts: Service, again: bool) -> Job:
    row = (parts.jobs.get(row.id) if again else None) or row
    result = None if row.result is None else JobResult.model_validate_json(parts.blobs.get(row.result))
    history = [transition(state) for state in parts.jobs.transitions(row.id)]
    tally = {} if row.parent_id else parts.jobs.tally(row.id)
    left = parts.jobs.files(row.id) if row.dataset_id else ()
    files = [File(name=file.name, sha256=file.id, bytes=file.bytes) for file in left]
    return Job(**vars(status(row)), history=history, parts=tally, files=files, result=result)


@router.get("/{job}/request", summary="Read what a job was asked", response_class=Response, responses=ASKED)
def asked(row: Existing, parts: Parts) -> Response:
    """The request as it was accepted, with every default: it may be sent again, about this network or another."""
    return Response(parts.blobs.get(row.request), media_type="application/json")


@router.delete("/{job}", status_code=202, summary="Cancel a job")
def cancel(row: Existing, who: Submitter, parts: Parts) -> JobStatus:
    """Cancels a queued or running job and kills its worker; 409 if the job is over."""
    cancelled = parts.jobs.cancel(row.id)
    parts.engine.interrupt(row.id)
    return status(cancelled or row)


@router.post("/{job}/retry", status_code=202, summary="Try a job again", responses=AT_ONCE)
def retry(row: Existing, who: Submitter, parts: Parts, response: Response) -> JobStatus:
    """A new job with the same request; 409 unless this one is over and has not succeeded, or if it is a part."""
    if row.parent_id is not None:
        raise problem(CONFLICT, f"this is a part: try the whole job {row.parent_id} again", state=row.state)
    if not State(row.state).final or row.state == State.SUCCEEDED:
        raise problem(CONFLICT, f"a job that is {row.state} cannot be tried again", state=row.state)
    same = {name: getattr(row, name) for name in AGAIN}
    priority = min(row.priority, _most_urgent(who))
    return _submitted(JobRow(id=uuid.uuid4().hex, key_id=who.key, priority=priority, **same), parts, response)
