"""A conversation with the service as data: what is sent, waited for and computed, without doing any of it.

A verb is a generator, a `Flow`: it yields steps and is sent what came of each, so that it reads like a function and is
written once. Two drivers perform steps, one blocking, one asynchronous; retries are steps like all others.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Generic, TypeAlias, TypeVar

import httpx

from provenn.api.client.errors import RequestRefused, ServiceError, ServiceUnreachable

T = TypeVar("T")
FIRST_PAUSE, LONGEST_PAUSE, GROWTH = 0.1, 5.0, 2.0
"""Seconds before the second try, before any later one, and the factor between two; each is shortened at random, by half
at most, so that many clients do not come back together."""
BUSY = (429, 503)
"""Statuses that say: not now. The request has had no effect."""
HOPELESS = (httpx.UnsupportedProtocol, httpx.LocalProtocolError)
"""Failures of requests that will fail again."""


@dataclass(frozen=True)
class Exchange:
    """One request; what comes of it is an httpx.Response, or an httpx.RequestError is raised where it is yielded.

    repeatable: sending it twice has no more effect than sending it once; patience: seconds that the answer may take
    beyond what answers usually may.
    """

    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    files: Mapping[str, tuple[str | None, bytes]] | None = None
    repeatable: bool = False
    patience: float = 0.0


@dataclass(frozen=True)
class Pause:
    """Nothing, for so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Work(Generic[T]):
    """A computation that may take long: an event loop has it done in a thread. What it raises ends the conversation."""

    call: Callable[[], T]


Step: TypeAlias = Exchange | Pause | Work[Any]
Flow: TypeAlias = Generator[Step, Any, T]


def done(call: Callable[[], T]) -> Flow[T]:
    """What the computation returns."""
    found: T = yield Work(call)
    return found


def answered(asked: Exchange, url: str, seconds: float) -> Flow[httpx.Response]:
    """The service's answer, once it succeeds; what is repeatable is tried again for `seconds` in all, later and later.

    A Retry-After is honoured, and where it lies beyond that time the wait is not begun.
    Raises: ServiceUnreachable, RequestRefused, as it was the last time.
    """
    end, tries = time.monotonic() + seconds, 0
    while True:
        failure: ServiceError
        cause: httpx.RequestError | None = None
        try:
            answer: httpx.Response = yield asked
        except httpx.RequestError as error:
            failure, cause = ServiceUnreachable(url, str(error) or type(error).__name__), error
            again, least = not isinstance(error, HOPELESS), 0.0
        else:
            if answer.is_success:
                return answer
            failure = refusal(answer)
            again, least = answer.status_code in BUSY, failure.retry_after or 0.0
        pause = least + _backoff(tries)
        if not (again and asked.repeatable) or time.monotonic() + pause > end:
            raise failure from cause
        yield Pause(pause)
        tries += 1


def refusal(answer: httpx.Response) -> RequestRefused:
    """The problem in an answer that is no success; what a proxy answers may not be JSON."""
    try:
        found = answer.json()
    except ValueError:
        found = {"detail": answer.text[:500]}
    problem = found if isinstance(found, dict) else {}
    return RequestRefused(answer.status_code, problem, _retry_after(answer.headers.get("Retry-After", "")))


def _backoff(tries: int) -> float:
    return min(LONGEST_PAUSE, FIRST_PAUSE * GROWTH**tries) * random.uniform(0.5, 1.0)


def _retry_after(text: str) -> float | None:
    """Seconds, or a date of RFC 9110; None if it is neither."""
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    left = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)
    return max(0.0, left.total_seconds())
