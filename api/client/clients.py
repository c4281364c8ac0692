"""Two drivers of the same conversations: one blocks, one is for an event loop. What a verb does is said in `asking`."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import wraps
from inspect import signature
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from provenn.api.client.asking import Asking
from provenn.api.client.errors import ServiceError
from provenn.api.client.events import CUT, Following, JobEvent
from provenn.api.client.flow import Exchange, Flow, Pause, Step, refusal
from provenn.api.schemas import JobStatus

KEY_VARIABLE = "PROVENN_API_KEY"
VISIBLE = re.compile(r"[!-~]+")
URL, TIMEOUT, RETRY_SECONDS = "http://127.0.0.1:8000", 60.0, 20.0
P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def _blocking(verb: Callable[Concatenate[Asking, P], Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(verb)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.drive(verb(self.asking, *args, **kwargs))

    return _signed(call, verb)


def _awaited(verb: Callable[Concatenate[Asking, P], Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Awaitable[T]]:
    @wraps(verb)
    async def call(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.drive(verb(self.asking, *args, **kwargs))

    return _signed(call, verb)


def _signed(call: F, verb: Callable[..., Any]) -> F:
    """The same, whose signature returns what the conversation comes to, for whoever asks for help."""
    result = str(verb.__annotations__["return"]).removeprefix("Flow[").removesuffix("]")
    call.__signature__ = signature(verb).replace(return_annotation=result)  # type: ignore[attr-defined]
    return call


class Client:
    """The service at `url`, for programs that wait. A context manager; safe to use from one thread at a time.

    key: an API key, for a service that asks for one; unless given, PROVENN_API_KEY of the environment.
    timeout: seconds one request may take. retry_seconds: for how long, in all, a request is tried again where nothing
    answers or the service is busy, if sending it twice does no harm. Every verb raises ServiceError in its kinds.
    """

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        timeout: float = TIMEOUT,
        retry_seconds: float = RETRY_SECONDS,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises: ServiceError if the key cannot be one."""
        self.url = url.rstrip("/")
        self.asking = Asking(self.url, retry_seconds)
        headers = _authorization(key)
        self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=transport, headers=headers)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    verify = _blocking(Asking.verify)
    prove = _blocking(Asking.prove)
    lipschitz = _blocking(Asking.lipschitz)
    monotonicity = _blocking(Asking.monotonicity)
    jacobian = _blocking(Asking.jacobian)
    tightness = _blocking(Asking.tightness)
    patterns = _blocking(Asking.patterns)
    radius = _blocking(Asking.radius)
    batch = _blocking(Asking.batch)

    ready = _blocking(Asking.ready)
    upload = _blocking(Asking.upload)
    model = _blocking(Asking.model)
    file = _blocking(Asking.file)
    upload_data = _blocking(Asking.upload_data)
    batch_file = _blocking(Asking.batch_file)
    batch_item = _blocking(Asking.batch_item)
    submit = _blocking(Asking.submit)
    certify = _blocking(Asking.certify)
    job = _blocking(Asking.job)
    wait = _blocking(Asking.wait)
    retry = _blocking(Asking.retry)
    cancel = _blocking(Asking.cancel)
    bundle = _blocking(Asking.bundle)
    certificate = _blocking(Asking.certificate)
    attestation = _blocking(Asking.attestation)
    keys = _blocking(Asking.keys)
    signature = _blocking(Asking.signature)

    def jobs(self, **filters: Any) -> Iterator[JobStatus]:
        """All jobs that pass the filters of GET /v1/jobs (state, model, kind, ...), newest first, page by page."""
        while True:
            page = self.drive(self.asking.page(filters))
            yield from page.items
            if page.next is None:
                return
            filters["cursor"] = page.next

    def events(self, job: str, after: int | None = None) -> Iterator[JobEvent]:
        """Every state of a job, after the event `after` where given, and progress between them, until its end.

        A stream that breaks off is taken up again; ServiceUnreachable is raised where that fails again and again.
        """
        following = Following(self.url, job, after)
        while True:
            cause = CUT
            try:
                with self._http.stream("GET", following.path, headers=following.headers) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise refusal(answer)
                    for line in answer.iter_lines():
                        if (event := following.took(line)) is not None:
                            yield event
                        if following.over:
                            return
            except httpx.RequestError as error:
                cause = str(error) or type(error).__name__
            time.sleep(following.broke(cause))

    def drive(self, flow: Flow[T]) -> T:
        """Performs every step of a conversation: what it comes to."""
        value: Any = None
        error: httpx.RequestError | KeyboardInterrupt | None = None
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as end:
                found: T = end.value
                return found
            value = error = None
            try:
                value = self._performed(step)
            except (httpx.RequestError, KeyboardInterrupt) as failure:
                error = failure

    def _performed(self, step: Step) -> Any:
        if isinstance(step, Exchange):
            return self._http.request(**_request(step, self._http.timeout))
        return time.sleep(step.seconds) if isinstance(step, Pause) else step.call()


class AsyncClient:
    """The same for asyncio: every verb of `Client` is to be awaited, `jobs` and `events` are asynchronous iterators.

    Certificates are checked in threads, so the event loop goes on. Safe to use from many tasks of one event loop.
    """

    def __init__(
        self,
        url: str = URL,
        key: str | None = None,
        timeout: float = TIMEOUT,
        retry_seconds: float = RETRY_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        """Raises: ServiceError if the key cannot be one."""
        self.url = url.rstrip("/")
        self.asking = Asking(self.url, retry_seconds)
        headers = _authorization(key)
        self._http = httpx.AsyncClient(base_url=self.url, timeout=timeout, transport=transport, headers=headers)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connections."""
        await self._http.aclose()

    verify = _awaited(Asking.verify)
    prove = _awaited(Asking.prove)
    lipschitz = _awaited(Asking.lipschitz)
    monotonicity = _awaited(Asking.monotonicity)
    jacobian = _awaited(Asking.jacobian)
    tightness = _awaited(Asking.tightness)
    patterns = _awaited(Asking.patterns)
    radius = _awaited(Asking.radius)
    batch = _awaited(Asking.batch)

    ready = _awaited(Asking.ready)
    upload = _awaited(Asking.upload)
    model = _awaited(Asking.model)
    file = _awaited(Asking.file)
    upload_data = _awaited(Asking.upload_data)
    batch_file = _awaited(Asking.batch_file)
    batch_item = _awaited(Asking.batch_item)
    submit = _awaited(Asking.submit)
    certify = _awaited(Asking.certify)
    job = _awaited(Asking.job)
    wait = _awaited(Asking.wait)
    retry = _awaited(Asking.retry)
    cancel = _awaited(Asking.cancel)
    bundle = _awaited(Asking.bundle)
    certificate = _awaited(Asking.certificate)
    attestation = _awaited(Asking.attestation)
    keys = _awaited(Asking.keys)
    signature = _awaited(Asking.signature)

    async def jobs(self, **filters: Any) -> AsyncIterator[JobStatus]:
        """As `Client.jobs`."""
        while True:
            page = await self.drive(self.asking.page(filters))
            for status in page.items:
                yield status
            if page.next is None:
                return
            filters["cursor"] = page.next

    async def events(self, job: str, after: int | None = None) -> AsyncIterator[JobEvent]:
        """As `Client.events`."""
        following = Following(self.url, job, after)
        while True:
            cause = CUT
            try:
                async with self._http.stream("GET", following.path, headers=following.headers) as answer:
                    if not answer.is_success:
                        await answer.aread()
                        raise refusal(answer)
                    async for line in answer.aiter_lines():
                        if (event := following.took(line)) is not None:
                            yield event
                        if following.over:
                            return
            except httpx.RequestError as error:
                cause = str(error) or type(error).__name__
            await asyncio.sleep(following.broke(cause))

    async def drive(self, flow: Flow[T]) -> T:
        """Performs every step of a conversation: what it comes to."""
        value: Any = None
        error: httpx.RequestError | asyncio.CancelledError | None = None
        while True:
            try:
                step = flow.send(value) if error is None else flow.throw(error)
            except StopIteration as end:
                found: T = end.value
                return found
            value = error = None
            try:
                value = await self._performed(step)
            except (httpx.RequestError, asyncio.CancelledError) as failure:
                error = failure

    async def _performed(self, step: Step) -> Any:
        if isinstance(step, Exchange):
            return await self._http.request(**_request(step, self._http.timeout))
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        return await asyncio.to_thread(step.call)


def _request(asked: Exchange, usual: httpx.Timeout) -> dict[str, Any]:
    """What httpx takes."""
    read = None if usual.read is None else usual.read + asked.patience
    timeout = httpx.Timeout(connect=usual.connect, read=read, write=usual.write, pool=usual.pool)
    about = {"params": dict(asked.params), "headers": dict(asked.headers), "timeout": timeout}
    return {"method": asked.method, "url": asked.path, "content": asked.content, "files": asked.files, **about}


def _authorization(given: str | None) -> dict[str, str]:
    key = (os.environ.get(KEY_VARIABLE, "") if given is None else given).strip()
    if not key:
        return {}
    if not VISIBLE.fullmatch(key):
        raise ServiceError(f"the API key (or {KEY_VARIABLE}) has characters that no key has")
    return {"Authorization": f"Bearer {key}"}
