"""A batch in parts, which are jobs of their own: on as many workers, and machines, as there are.

Each part has the whole budget: parts that find a worker at once answer when the whole job would have to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from provenn.api.jobs.child import Reporter
from provenn.api.jobs.model import State
from provenn.api.jobs.results import answered
from provenn.api.jobs.workspace import Outbox
from provenn.api.report import joined
from provenn.api.schemas import Inputs, Item, JobRequest, JobResult
from provenn.solvers.base import Verdict


@dataclass(frozen=True)
class Split:
    """Cuts a job's inputs into `parts` consecutive blocks, as even as they can be."""

    request: Path
    folder: Path
    parts: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """Each part's request, written and named, with how many items it has."""
        out = Outbox(self.folder)
        request = JobRequest.model_validate_json(self.request.read_bytes())
        assert request.inputs is not None
        return {"parts": [_left(out, request, inputs) for inputs in blocks(request.inputs, self.parts)]}


@dataclass(frozen=True)
class Part:
    """What became of a part."""

    items: int
    result: Path | None


@dataclass(frozen=True)
class Join:
    """Puts the results of parts together again."""

    request: Path
    folder: Path
    parts: tuple[Part, ...]

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The answer of the whole job: items of a part that was killed for its time are timeouts."""
        request = JobRequest.model_validate_json(self.request.read_bytes())
        inputs, radii = request.inputs, request.inputs.epsilons if request.inputs else []
        assert inputs is not None
        items: list[Item] = []
        stats: dict[str, float] = {"parts": len(self.parts)}
        for part in self.parts:
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
        return answered(Outbox(self.folder), joined(items, stats)) | {"certificates": []}  # the parts have left them


def blocks(inputs: Inputs, parts: int) -> list[Inputs]:
    """Consecutive blocks of inputs, all radii each; none is empty."""
    count = len(inputs.inputs)
    ends = sorted({count * k // parts for k in range(parts + 1)})
    return [
        inputs.model_copy(update={"inputs": inputs.inputs[first:last], "labels": inputs.labels[first:last]})
        for first, last in pairwise(ends)
    ]


def failed(parts: Sequence[Any]) -> str | None:
    """Why the whole job fails, if a part has failed: rows of parts, in order."""
    if any(part.verdict == Verdict.FALSIFIED and part.kind == "specification" for part in parts):
        return None
    lost = [part for part in parts if part.state not in (State.SUCCEEDED, State.TIMED_OUT)]
    lost.sort(key=lambda part: part.state != State.FAILED)  # the others were cancelled because of it
    return f"part {lost[0].part + 1} of {len(parts)} {lost[0].state}: {lost[0].reason}" if lost else None


def _left(out: Outbox, request: JobRequest, inputs: Inputs) -> dict[str, Any]:
    part = request.model_copy(update={"inputs": inputs})
    body = part.model_dump_json().encode()
    return {"request": out.put(body), "items": part.items, "bytes": len(body)}


def _unanswered(index: int, number: int, epsilon: float, method: str) -> Item:
    reason = "its part of the job was killed for the time it took"
    told = {"verdict": Verdict.TIMEOUT, "method": method, "seconds": 0.0, "assurance": None, "reason": reason}
    nothing = {"certificate": None, "counterexample": None}
    return Item.model_validate({"index": index, "input": number, "epsilon": epsilon, **told, **nothing})
