"""A batch in parts, which are jobs of their own: on as many workers, and machines, as there are.

Each part has the whole budget: parts that find a worker at once answer when the whole job would have to.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from provenn.api.jobs.results import answered
from provenn.api.jobs.tasks import JoinInputs, SplitInputs
from provenn.api.jobs.workspace import Outbox
from provenn.api.report import joined
from provenn.api.schemas import Inputs, Item, JobRequest, JobResult
from provenn.solvers.base import Verdict


def split(task: SplitInputs) -> dict[str, Any]:
    """Each part's request, written and named, with how many items it has."""
    out = Outbox(task.folder)
    request = JobRequest.model_validate_json(task.request.read_bytes())
    assert request.inputs is not None
    return {"parts": [_left(out, request, inputs) for inputs in blocks(request.inputs, task.parts)]}


def join(task: JoinInputs) -> dict[str, Any]:
    """The answer of the whole job: items of a part that was killed for its time are timeouts."""
    request = JobRequest.model_validate_json(task.request.read_bytes())
    inputs, radii = request.inputs, request.inputs.epsilons if request.inputs else []
    assert inputs is not None
    items: list[Item] = []
    stats: dict[str, float] = {"parts": len(task.parts)}
    for part in task.parts:
        first = len(items)
        if part.result is None:
            items += [_unanswered(first + k, (first + k) // len(radii), radii[k % len(radii)], request.method)
                      for k in range(part.items)]  # fmt: skip
            continue
        found = JobResult.model_validate_json(part.result.read_bytes())
        shift = first // len(radii)
        items += [
            item.model_copy(update={"index": first + k, "input": shift + (item.input or 0)})
            for k, item in enumerate(found.items)
        ]
        for name, value in found.stats.items():
            stats[name] = stats.get(name, 0.0) + value
    return answered(Outbox(task.folder), joined(items, stats)) | {"certificates": []}  # the parts have left them


def blocks(inputs: Inputs, parts: int) -> list[Inputs]:
    """Consecutive blocks of inputs, all radii each; none is empty."""
    count = len(inputs.inputs)
    ends = sorted({count * k // parts for k in range(parts + 1)})
    return [
        inputs.model_copy(update={"inputs": inputs.inputs[first:last], "labels": inputs.labels[first:last]})
        for first, last in pairwise(ends)
    ]


def _left(out: Outbox, request: JobRequest, inputs: Inputs) -> dict[str, Any]:
    part = request.model_copy(update={"inputs": inputs})
    body = part.model_dump_json().encode()
    return {"request": out.put(body), "items": part.items, "bytes": len(body)}


def _unanswered(index: int, number: int, epsilon: float, method: str) -> Item:
    reason = "its part of the job was killed for the time it took"
    told = {"verdict": Verdict.TIMEOUT, "method": method, "seconds": 0.0, "assurance": None, "reason": reason}
    nothing = {"certificate": None, "counterexample": None}
    return Item.model_validate({"index": index, "input": number, "epsilon": epsilon, **told, **nothing})
