"""Server-sent events of a job, read line by line, and taken up again where a stream breaks off."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from provenn.api.client.errors import ServiceUnreachable, UnexpectedAnswer

RECONNECTIONS, RECONNECT_SECONDS = 5, 1.0
CUT = "the stream ended before the job"
END = "end"


@dataclass(frozen=True)
class JobEvent:
    """kind: state, progress or end; data: as the service sent it; id: what a later stream may begin after, if any."""

    kind: str
    data: dict[str, Any]
    id: int | None


class EventReader:
    """The events in the lines of one stream; comments, and an event that is cut off, are left out."""

    def __init__(self) -> None:
        self._fields: dict[str, str] = {}

    def event(self, line: str) -> JobEvent | None:
        """The event that ends with this line, if one does.   Raises: UnexpectedAnswer if its data are no object."""
        if line:
            name, _, value = line.partition(": ")
            self._fields[name] = value
            return None
        fields, self._fields = self._fields, {}
        if not ("event" in fields and "data" in fields):
            return None
        try:
            data = json.loads(fields["data"])
        except ValueError:
            data = None
        if not isinstance(data, dict):
            raise UnexpectedAnswer(f"an event of the stream has no object in it: {fields['data'][:100]}")
        number = fields.get("id", "")
        known = number.isascii() and number.isdecimal()
        return JobEvent(fields["event"], data, int(number) if known else None)


@dataclass
class Following:
    """How far a listener has come; after: the id of the last event seen; failures: streams in a row that told nothing.

    over: whether the last event was the end.
    """

    url: str
    job: str
    after: int | None
    failures: int = 0
    over: bool = False
    reader: EventReader = field(default_factory=EventReader)

    @property
    def path(self) -> str:
        """Of the stream."""
        return f"/v1/jobs/{self.job}/events"

    @property
    def headers(self) -> dict[str, str]:
        """What asks for the events after the last one."""
        return {} if self.after is None else {"Last-Event-ID": str(self.after)}

    def took(self, line: str) -> JobEvent | None:
        """The event that ends with this line."""
        event = self.reader.event(line)
        if event is not None:
            self.failures, self.after = 0, self.after if event.id is None else event.id
            self.over = event.kind == END
        return event

    def broke(self, cause: str) -> float:
        """How long to wait for another try.   Raises: ServiceUnreachable after RECONNECTIONS that told nothing."""
        self.failures += 1
        self.reader = EventReader()
        if self.failures > RECONNECTIONS:
            raise ServiceUnreachable(self.url, cause)
        return RECONNECT_SECONDS
