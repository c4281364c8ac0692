"""Jobs: refused at the door where possible, then queued, followed, cancelled."""

from __future__ import annotations

import asyncio
import math
import uuid
from collections.abc import AsyncIterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.sse import EventSourceResponse, ServerSentEvent

from provenn.api.database import JobRow, ModelRow
from provenn.api.jobs.inspection import InspectDerivatives, InspectSpecification
from provenn.api.jobs.model import State
from provenn.api.jobs.worker import question
from provenn.api.lipschitz import Options
from provenn.api.lipschitz_jacobian import METHODS as JACOBIAN_METHODS
from provenn.api.problems import invalid, not_found
from provenn.api.radius import LIPSCHITZ
from provenn.api.routes.paging import Cursor, Limit, next_cursor
from provenn.api.schemas import Inputs, Job, JobRequest, JobResult, Jobs, JobStatus, LipschitzRequest, Progress
from provenn.api.service import Parts, Service
from provenn.solvers.portfolio import backend
from provenn.verifier.errors import BackendError, ResourceLimit

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])
REREAD_SECONDS = 5.0
"""How long an event stream trusts that nobody changed the row without saying so."""
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
}


@router.post("", status_code=202, summary="Queue a job")
def submit(
    request: Annotated[JobRequest, Body(openapi_examples=EXAMPLES)],
    parts: Parts,
    response: Response,
) -> JobStatus:
    """Checks the request as far as that is possible without computing, then queues it."""
    model = parts.catalogue.model(request.model)
    if model is None:
        raise not_found("model", request.model)
    _check(request, model, parts)
    blob = parts.blobs.put(request.model_dump_json().encode())
    row = parts.jobs.add(
        JobRow(
            id=uuid.uuid4().hex,
            model_id=model.id,
            method=request.method,
            seconds=request.budget.seconds,
            seed=request.seed,
            certificates=request.certificates,
            items=request.items,
            request=blob,
        )
    )
    parts.engine.wake()
    response.headers["Location"] = f"/v1/jobs/{row.id}"
    return _status(row)


@router.get("", summary="List jobs")
def jobs(
    parts: Parts,
    limit: Limit = 20,
    cursor: Cursor = None,
    state: Annotated[State | None, Query(description="only jobs in this state")] = None,
) -> Jobs:
    """The newest jobs first, without their results."""
    rows = parts.jobs.page(limit, cursor, state)
    return Jobs(items=[_status(row) for row in rows], next=next_cursor(rows, limit))


def _existing(job: str, parts: Parts) -> JobRow:
    row = parts.jobs.get(job)
    if row is None:
        raise not_found("job", job)
    return row


Existing = Annotated[JobRow, Depends(_existing)]


@router.get("/{job}", summary="Follow a job")
def job(row: Existing, parts: Parts) -> Job:
    """State, progress, and the result once there is one."""
    result = None if row.result is None else JobResult.model_validate_json(parts.blobs.get(row.result))
    return Job(**vars(_status(row)), result=result)


@router.delete("/{job}", status_code=202, summary="Cancel a job")
def cancel(row: Existing, parts: Parts) -> JobStatus:
    """Cancels a queued or running job and kills its worker; 409 if the job is over."""
    cancelled = parts.jobs.cancel(row.id)
    parts.engine.interrupt(row.id)
    return _status(cancelled or row)


@router.get("/{job}/events", response_class=EventSourceResponse, summary="Stream a job's progress")
async def events(row: Existing, parts: Parts) -> AsyncIterable[ServerSentEvent]:
    """A `progress` event at every change, then one `end`; the data is the job without its result.

    A stream that closes without `end` means that the server stopped.
    """
    with parts.watch.listen(row.id) as change:
        while not parts.watch.closed:
            change.clear()
            current = await run_in_threadpool(parts.jobs.get, row.id) or row
            final = State(current.state).final
            yield ServerSentEvent(data=_status(current), event="end" if final else "progress")
            if final:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), REREAD_SECONDS)


def _check(request: JobRequest, model: ModelRow, parts: Service) -> None:
    """What can be refused now.   Raises: a problem, BackendError, ResourceLimit, InvalidSpecification."""
    inputs, outputs = math.prod(model.summary["input_shape"]), math.prod(model.summary["output_shape"])
    longest = parts.settings.job_seconds
    if request.budget.seconds > longest:
        raise invalid("/budget/seconds", f"{request.budget.seconds:g} is above the limit of {longest:g} seconds")
    if request.items > parts.settings.max_items:
        raise ResourceLimit(f"inputs times radii ({request.items})", str(parts.settings.max_items))
    if request.lipschitz is not None:
        _check_lipschitz(request.lipschitz, request.method, inputs, outputs)
        return
    if request.derivatives is not None:
        parts.engine.inspect(InspectDerivatives(request.model_dump_json(), inputs, outputs))
        return
    if request.method != LIPSCHITZ:
        backend(request.method)
    if request.inputs is not None:
        _check_inputs(request.inputs, inputs, outputs)
    else:
        parts.engine.inspect(InspectSpecification(request.specification_text(), inputs, outputs))


def _check_lipschitz(asked: LipschitzRequest, method: str, inputs: int, outputs: int) -> None:
    Options(method, asked.solver)
    about = question(asked)
    about.statement(inputs, outputs)
    if asked.norm == "1" and about.outward in ("1", "2") and method not in ("auto", *JACOBIAN_METHODS):
        raise BackendError(method, f"it has no bound from l1 to l{about.outward}: take auto or crown")


def _check_inputs(batch: Inputs, inputs: int, outputs: int) -> None:
    for index, values in enumerate(batch.inputs):
        if len(values) != inputs:
            raise invalid(f"/inputs/inputs/{index}", f"{len(values)} numbers, but the network has {inputs} inputs")
    for index, label in enumerate(batch.labels):
        if label >= outputs:
            raise invalid(f"/inputs/labels/{index}", f"label {label}, but the classes are 0 to {outputs - 1}")
    if batch.target is not None and (batch.target >= outputs or batch.target in batch.labels):
        raise invalid("/inputs/target", f"class {batch.target} is a label, or not among the {outputs} classes")
    if batch.clip is not None:
        low, high = batch.clip[0] - min(batch.epsilons), batch.clip[1] + min(batch.epsilons)
        for index, values in enumerate(batch.inputs):
            if min(values) < low or max(values) > high:
                raise invalid(f"/inputs/inputs/{index}", f"nothing within the radius lies in clip {list(batch.clip)}")


def _status(row: JobRow) -> JobStatus:
    return JobStatus(
        id=row.id,
        model=row.model_id,
        state=State(row.state),
        reason=row.reason,
        error=row.error,
        method=row.method,
        seconds=row.seconds,
        seed=row.seed,
        certificates=row.certificates,
        attempt=row.attempt,
        progress=Progress(done=row.done, total=row.total, phase=row.phase),
        created_at=_time(row.created_at),
        changed_at=_time(row.changed_at),
        started_at=None if row.started_at is None else _time(row.started_at),
        finished_at=None if row.finished_at is None else _time(row.finished_at),
    )


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
