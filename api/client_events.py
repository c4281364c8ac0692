"""Server-sent events of a job, read line by line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class JobEvent:
    """kind: state, progress or end; data: as the service sent it; id: what a later stream may begin after, if any."""

    kind: str
    data: dict[str, Any]
    id: int | None


def parsed(lines: Iterable[str]) -> Iterator[JobEvent]:
    """The events in the lines of a stream; comments, and an event that is cut off, are left out."""
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(": ")
            fields[name] = value
            continue
        if "event" in fields and "data" in fields:
            number = fields.get("id", "")
            yield JobEvent(fields["event"], json.loads(fields["data"]), int(number) if number.isdigit() else None)
        fields = {}
