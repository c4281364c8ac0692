"""A typed client of the REST service, synchronous; whatever goes wrong carries the service's own words.

ServiceError
├── ServiceUnreachable      nothing answers, or not in time
├── RequestRefused          the service answered with a problem (RFC 9457)
└── JobFailed               the job ended without a result
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from provenn.api.client_events import JobEvent, parsed
from provenn.api.jobs.model import State
from provenn.api.schemas import (
    BudgetRequest,
    Inputs,
    JacobianRequest,
    Job,
    JobRequest,
    JobResult,
    Jobs,
    JobStatus,
    LipschitzRequest,
    Model,
    MonotonicityRequest,
)
from provenn.api.signing_bundle import detach
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.errors import ProvennError

if TYPE_CHECKING:
    from provenn.api.signing import Signature
    from provenn.api.signing_keys import PublicKeys

KEY_VARIABLE = "PROVENN_API_KEY"
VISIBLE = re.compile(r"[!-~]+")
RECONNECTIONS, RECONNECT_SECONDS = 5, 1.0
Progress = Callable[[int, int, str], None]
"""progress(done, total, phase)"""


class ServiceError(ProvennError):
    """Base of what can go wrong between client and service."""


class ServiceUnreachable(ServiceError):
    """Nothing answers at `url`, or not in time."""

    def __init__(self, url: str, cause: str) -> None:
        self.url = url
        super().__init__(f"no answer from {url}: {cause}. Is `provenn serve` running there?")


class RequestRefused(ServiceError):
    """The service answered with a problem: `status`, `type`, `detail`, and all of it as `problem`."""

    def __init__(self, status: int, problem: Mapping[str, Any]) -> None:
        self.status = status
        self.type = str(problem.get("type", "about:blank"))
        self.detail = str(problem.get("detail") or problem.get("title") or f"HTTP status {status}")
        self.problem = dict(problem)
        super().__init__(f"{self.detail} (HTTP {status})")


class JobFailed(ServiceError):
    """Job `job` ended in `state` (failed, cancelled or timed_out) without a result."""

    def __init__(self, job: str, state: str, why: str) -> None:
        self.job, self.state = job, state
        super().__init__(f"job {job} is {state}: {why}")


class Client:
    """Verbs of the service at `url`. A context manager; safe to use from one thread at a time.

    key: an API key, for a service that asks for one; unless given, PROVENN_API_KEY of the environment.
    timeout: seconds one request may take. Every method raises ServiceUnreachable and RequestRefused.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        timeout: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        """Raises: ServiceError if the key cannot be one."""
        self.url = url.rstrip("/")
        self._http = httpx.Client(base_url=self.url, timeout=timeout, transport=transport, headers=_authorization(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections."""
        self._http.close()

    def ready(self) -> bool:
        """Whether the service can take work; False too where nothing answers."""
        try:
            return self._http.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def upload(self, model: str | Path | bytes) -> Model:
        """Sends an ONNX or safetensors file; `id` of the answer is its SHA-256. The same bytes twice are one model."""
        data = model if isinstance(model, bytes) else Path(model).read_bytes()
        name = "model.onnx" if isinstance(model, bytes) else Path(model).name
        answer = self._send("POST", "/v1/models", files={"file": (name, data, "application/octet-stream")})
        return Model.model_validate_json(answer.content)

    def submit(self, request: JobRequest, idempotency_key: str | None = None) -> JobStatus:
        """Queues a job. The same request with the same key, sent again for want of an answer, is the same job."""
        body = request.model_dump_json(exclude_none=True)
        headers = {"Content-Type": "application/json"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        return JobStatus.model_validate_json(self._send("POST", "/v1/jobs", content=body, headers=headers).content)

    def certify(
        self, model: str, question: Inputs | str, seconds: float = 60.0, method: str = "auto", seed: int = 0
    ) -> JobStatus:
        """Queues a job about an uploaded model: robustness of inputs, or a property's text (VNN-LIB or JSON)."""
        asked = {"inputs": question} if isinstance(question, Inputs) else {"specification": question}
        return self._queue(asked, model, seconds, method, seed)

    def lipschitz(
        self,
        model: str,
        question: LipschitzRequest | None = None,
        seconds: float = 60.0,
        method: str = "auto",
        seed: int = 0,
    ) -> JobStatus:
        """Queues a job about an uploaded model's Lipschitz constant; without a question, of all outputs, l2 to l2."""
        asked = {"lipschitz": question or LipschitzRequest.model_validate({})}
        return self._queue(asked, model, seconds, method, seed)

    def monotonicity(
        self, model: str, question: MonotonicityRequest, seconds: float = 60.0, method: str = "auto", seed: int = 0
    ) -> JobStatus:
        """Queues a job about an uploaded model: whether outputs only rise, or only fall, with some features."""
        return self._queue({"monotonicity": question}, model, seconds, method, seed)

    def jacobian(
        self, model: str, question: JacobianRequest, seconds: float = 60.0, method: str = "auto", seed: int = 0
    ) -> JobStatus:
        """Queues a job about an uploaded model: between which numbers its derivatives lie over a region."""
        return self._queue({"jacobian": question}, model, seconds, method, seed)

    def job(self, job: str, wait: float = 0) -> Job:
        """The job with its result once there is one: as it is now, or when it is over, after `wait` seconds at most."""
        return Job.model_validate_json(self._send("GET", f"/v1/jobs/{job}", params={"wait": wait}).content)

    def wait(self, job: str, progress: Progress | None = None, poll_seconds: float = 1.0) -> JobResult:
        """Returns when the job is over; until then progress is told every `poll_seconds`, 30 at most.

        Raises: JobFailed if it ended without a result.
        """
        while True:
            found = self.job(job, poll_seconds)
            if progress is not None:
                progress(found.progress.done, found.progress.total, found.progress.phase)
            if found.state == State.SUCCEEDED and found.result is not None:
                return found.result
            if found.state.final:
                problem = found.error or {}
                raise JobFailed(job, found.state, found.reason or str(problem.get("detail", "no reason was given")))

    def jobs(self, **filters: Any) -> Iterator[JobStatus]:
        """All jobs that pass the filters of GET /v1/jobs (state, model, kind, ...), newest first, page by page."""
        while True:
            page = Jobs.model_validate_json(self._send("GET", "/v1/jobs", params=filters).content)
            yield from page.items
            if page.next is None:
                return
            filters["cursor"] = page.next

    def events(self, job: str, after: int | None = None) -> Iterator[JobEvent]:
        """Every state of a job, after the event `after` where given, and progress between them, until its end.

        A stream that breaks off is taken up again; ServiceUnreachable is raised if that fails RECONNECTIONS times.
        """
        failures = 0
        while True:
            headers = {} if after is None else {"Last-Event-ID": str(after)}
            try:
                with self._http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as answer:
                    if not answer.is_success:
                        answer.read()
                        raise RequestRefused(answer.status_code, _problem(answer))
                    for event in parsed(answer.iter_lines()):
                        failures, after = 0, after if event.id is None else event.id
                        yield event
                        if event.kind == "end":
                            return
                cause = "the stream ended before the job"
            except httpx.TransportError as error:
                cause = str(error) or type(error).__name__
            failures += 1
            if failures > RECONNECTIONS:
                raise ServiceUnreachable(self.url, cause)
            time.sleep(RECONNECT_SECONDS)

    def retry(self, job: str) -> JobStatus:
        """Queues a new job with the request of one that is over and has not succeeded."""
        return JobStatus.model_validate_json(self._send("POST", f"/v1/jobs/{job}/retry").content)

    def cancel(self, job: str) -> JobStatus:
        """Cancels a queued or running job."""
        return JobStatus.model_validate_json(self._send("DELETE", f"/v1/jobs/{job}").content)

    def bundle(self, certificate: str) -> bytes:
        """The certificate's zip, signed.   Raises: ServiceError if the bytes are not those that the id names."""
        data = self._send("GET", f"/v1/certificates/{certificate}/bundle").content
        if hashlib.sha256(detach(data)).hexdigest() != certificate:
            raise ServiceError(f"the service sent other bytes than those of certificate {certificate}")
        return data

    def attestation(self, certificate: str) -> bytes:
        """Who says that a certificate holds: its DSSE envelope, which the bundle has too."""
        return self._send("GET", f"/v1/certificates/{certificate}/attestation").content

    def keys(self) -> PublicKeys:
        """The public keys that certificates are signed with: fetch them once, keep them, give them to `signature`."""
        from provenn.api.signing_keys import PublicKeys

        return PublicKeys.model_validate_json(self._send("GET", "/v1/keys").content)

    def signature(self, certificate: str, model: bytes, keys: PublicKeys) -> Signature:
        """Whether one of `keys` has signed what the certificate states of this ONNX file, proved or not."""
        from provenn.api.signing import examine

        return examine(self.certificate(certificate), model, keys)

    def certificate(self, certificate: str) -> dict[str, bytes]:
        """The certificate's files, as `provenn.check` takes them; nothing is proved before it accepts them."""
        return dict(load_zip(self.bundle(certificate)))

    def _queue(self, asked: Mapping[str, Any], model: str, seconds: float, method: str, seed: int) -> JobStatus:
        budget = BudgetRequest(seconds=seconds)
        return self.submit(JobRequest(model=model, method=method, seed=seed, budget=budget, **asked))

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TransportError as error:
            raise ServiceUnreachable(self.url, str(error) or type(error).__name__) from error
        if answer.is_success:
            return answer
        raise RequestRefused(answer.status_code, _problem(answer))


def _authorization(given: str | None) -> dict[str, str]:
    key = (os.environ.get(KEY_VARIABLE, "") if given is None else given).strip()
    if not key:
        return {}
    if not VISIBLE.fullmatch(key):
        raise ServiceError(f"the API key (or {KEY_VARIABLE}) has characters that no key has")
    return {"Authorization": f"Bearer {key}"}


def _problem(answer: httpx.Response) -> Mapping[str, Any]:
    """What a proxy answers may not be JSON."""
    try:
        found = answer.json()
    except ValueError:
        return {"detail": answer.text[:500]}
    return found if isinstance(found, dict) else {}
