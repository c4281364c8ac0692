"""What the service can be asked, route by route: each verb is a conversation (`Flow`), whoever drives it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from provenn.api.batch_schemas import BatchRequest, Dataset
from provenn.api.client.errors import JobFailed, RequestRefused, ServiceError, UnexpectedAnswer
from provenn.api.client.flow import Exchange, Flow, Pause, answered, done
from provenn.api.jobs.model import State
from provenn.api.pattern_schemas import PatternsRequest, RadiusRequest
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
from provenn.api.tightness_schemas import TightnessRequest
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import CertificateRejected
from provenn.verifier.errors import InvalidSpecification

if TYPE_CHECKING:
    from provenn.api.batch.data import Data
    from provenn.api.signing import Signature
    from provenn.api.signing_keys import PublicKeys

LONGEST_POLL = 20.0
"""Seconds that the service is asked to keep a question open where nobody wants to hear of progress."""
LEAST_POLL = 0.2
"""Seconds between two looks at a job, where the service does not keep the question open."""
CONFLICT = 409

Progress: TypeAlias = Callable[[int, int, str], None]
"""progress(done, total, phase)"""
Question: TypeAlias = (
    str
    | Inputs
    | BatchRequest
    | LipschitzRequest
    | MonotonicityRequest
    | JacobianRequest
    | TightnessRequest
    | PatternsRequest
    | RadiusRequest
)
B = TypeVar("B", bound=BaseModel)
KINDS: dict[type, str] = {
    str: "specification",
    Inputs: "inputs",
    BatchRequest: "batch",
    LipschitzRequest: "lipschitz",
    MonotonicityRequest: "monotonicity",
    JacobianRequest: "jacobian",
    TightnessRequest: "tightness",
    PatternsRequest: "patterns",
    RadiusRequest: "radius",
}


class Verbs:
    """The routes of the service at `url`. Every verb raises ServiceUnreachable, RequestRefused and UnexpectedAnswer.

    retry_seconds: for how long, in all, a request is tried again that may be sent twice.
    """

    def __init__(self, url: str, retry_seconds: float) -> None:
        self.url, self.retry_seconds = url, retry_seconds

    def ready(self) -> Flow[bool]:
        """Whether the service can take work; False too where nothing answers."""
        try:
            answer: httpx.Response = yield Exchange("GET", "/readyz")
        except httpx.RequestError:
            return False
        return answer.status_code == 200

    def upload(self, model: str | Path | bytes, architecture: str | None = None) -> Flow[Model]:
        """Sends a network in any format that is read; `id` of the answer is the SHA-256 of its canonical file.

        The same bytes twice are one model. architecture: the layers that weights belong to, JSON.
        """
        data = model if isinstance(model, bytes) else (yield from done(Path(model).read_bytes))
        name = "model.onnx" if isinstance(model, bytes) else Path(model).name
        return (yield from self.send(data, name, architecture))

    def send(self, data: bytes, name: str, architecture: str | None = None) -> Flow[Model]:
        """As `upload`, of a file of this name."""
        parts: dict[str, tuple[str | None, bytes]] = {"file": (name, data)}
        parts |= {} if architecture is None else {"architecture": (None, architecture.encode())}
        answer = yield from self._sent(Exchange("POST", route("models"), files=parts, repeatable=True))
        return understood(Model, answer)

    def upload_data(self, data: Path | bytes | Data) -> Flow[Dataset]:
        """Sends inputs with their classes, for batches: an .npz file, its bytes, or what `read_data` has read."""
        name = data.name if isinstance(data, Path) else "data.npz"
        content = data if isinstance(data, bytes) else (yield from done(lambda: _archived(data)))
        asked = Exchange("POST", route("datasets"), files={"file": (name, content)}, repeatable=True)
        return understood(Dataset, (yield from self._sent(asked)))

    def batch_file(self, batch: str, name: str) -> Flow[bytes]:
        """What a batch has left: `rows.jsonl` or `batch.zip`, which `provenn check` takes; nothing is proved before.

        Raises: UnexpectedAnswer if the bytes, without a signature, are not those that the job names.
        """
        job = yield from self.job(batch)
        promised = next((file.sha256 for file in job.files if file.name == name), None)
        data = (yield from self._get(route("batches", batch, "files", name))).content
        if hashlib.sha256(detach(data)).hexdigest() != promised:
            raise UnexpectedAnswer(f"the service sent other bytes than those of {name} of batch {batch}")
        return data

    def batch_item(self, batch: str, row: int) -> Flow[bytes]:
        """A bundle of one row alone, for `provenn check`; it is joined to the root of all, but not proved before.

        Raises: UnexpectedAnswer if it is another row's, or under another root than the one that the job names.
        """
        job = yield from self.job(batch)
        data = (yield from self._get(route("batches", batch, "rows", str(row)))).content
        told = None if job.result is None or job.result.batch is None else job.result.batch.root
        if (yield from done(lambda: _joined(data))) != (row, told):
            raise UnexpectedAnswer(f"the service sent something else than row {row} of batch {batch}")
        return data

    def model(self, model: str) -> Flow[Model]:
        """What the service knows of the network with this id."""
        return understood(Model, (yield from self._get(route("models", model))))

    def file(self, model: str) -> Flow[bytes]:
        """The canonical file of a network: what certificates are about, and its id is the SHA-256 of."""
        data = (yield from self._get(route("models", model, "file"))).content
        if hashlib.sha256(data).hexdigest() != model:
            raise UnexpectedAnswer(f"the service sent other bytes than those of model {model}")
        return data

    def submit(self, request: JobRequest, idempotency_key: str | None = None) -> Flow[JobStatus]:
        """Queues a job. The same request with the same key is the same job; unless given, every call has its own."""
        headers = {"Content-Type": "application/json", "Idempotency-Key": idempotency_key or uuid.uuid4().hex}
        body = request.model_dump_json(exclude_none=True).encode()
        asked = Exchange("POST", route("jobs"), headers=headers, content=body, repeatable=True)
        return understood(JobStatus, (yield from self._sent(asked)))

    def certify(
        self, model: str, question: Question, seconds: float = 60.0, method: str = "auto", seed: int = 0
    ) -> Flow[JobStatus]:
        """Queues a job about an uploaded model, by its id, and returns at once; `wait` has its result.

        question: robustness of many inputs or a dataset, a property's text (VNN-LIB or JSON), or another request of
        provenn.api.schemas.
        """
        kind = next(name for kind, name in KINDS.items() if isinstance(question, kind))
        return (yield from self.submit(requested(seconds, model=model, method=method, seed=seed, **{kind: question})))

    def job(self, job: str, wait: float = 0) -> Flow[Job]:
        """The job with its result once there is one: as it is now, or when it is over, after `wait` seconds at most."""
        return understood(Job, (yield from self._get(route("jobs", job), {"wait": wait}, wait)))

    def wait(self, job: str, progress: Progress | None = None, poll_seconds: float = 1.0) -> Flow[JobResult]:
        """Returns as soon as the job is over; until then progress is told every `poll_seconds`, 30 at most.

        Raises: JobFailed if it ended without a result.
        """
        seconds = LONGEST_POLL if progress is None else poll_seconds
        while True:
            asked = time.monotonic()
            found = yield from self.job(job, seconds)
            if progress is not None:
                progress(found.progress.done, found.progress.total, found.progress.phase)
            if found.state == State.SUCCEEDED and found.result is not None:
                return found.result
            if found.state.final:
                problem = found.error or {}
                raise JobFailed(job, found.state, found.reason or str(problem.get("detail", "no reason was given")))
            early = min(seconds, LEAST_POLL) - (time.monotonic() - asked)
            if early > 0:
                yield Pause(early)

    def outcome(self, job: str, progress: Progress | None = None) -> Flow[JobResult]:
        """As `wait`, for a job that is the caller's alone: it is cancelled where the wait is interrupted."""
        try:
            return (yield from self.wait(job, progress))
        except (KeyboardInterrupt, asyncio.CancelledError):
            with suppress(ServiceError):
                yield from self.cancel(job)
            raise

    def page(self, filters: Mapping[str, Any]) -> Flow[Jobs]:
        """One page of the jobs that pass the filters of GET /v1/jobs, newest first."""
        return understood(Jobs, (yield from self._get(route("jobs"), filters)))

    def retry(self, job: str) -> Flow[JobStatus]:
        """Queues a new job with the request of one that is over and has not succeeded."""
        return understood(JobStatus, (yield from self._sent(Exchange("POST", route("jobs", job, "retry")))))

    def cancel(self, job: str) -> Flow[JobStatus]:
        """Cancels a queued or running job; one that is cancelled stays so."""
        asked = Exchange("DELETE", route("jobs", job), repeatable=True)
        try:
            return understood(JobStatus, (yield from self._sent(asked)))
        except RequestRefused as refused:
            if refused.status != CONFLICT:
                raise
            found = yield from self.job(job)
            if found.state != State.CANCELLED:
                raise
            return found

    def bundle(self, certificate: str) -> Flow[bytes]:
        """The certificate's zip, signed.   Raises: UnexpectedAnswer if the bytes are not those that the id names."""
        data = (yield from self._get(route("certificates", certificate, "bundle"))).content
        if hashlib.sha256(detach(data)).hexdigest() != certificate:
            raise UnexpectedAnswer(f"the service sent other bytes than those of certificate {certificate}")
        return data

    def certificate(self, certificate: str) -> Flow[dict[str, bytes]]:
        """The certificate's files, as `provenn.check` takes them; nothing is proved before it accepts them."""
        data = yield from self.bundle(certificate)
        return dict((yield from done(lambda: load_zip(data))))

    def attestation(self, certificate: str) -> Flow[bytes]:
        """Who says that a certificate holds: its DSSE envelope, which the bundle has too."""
        return (yield from self._get(route("certificates", certificate, "attestation"))).content

    def keys(self) -> Flow[PublicKeys]:
        """The public keys that certificates are signed with: fetch them once, keep them, give them to `signature`."""
        from provenn.api.signing_keys import PublicKeys

        return understood(PublicKeys, (yield from self._get(route("keys"))))

    def signature(self, certificate: str, model: bytes, keys: PublicKeys) -> Flow[Signature]:
        """Whether one of `keys` has signed what the certificate states of this ONNX file, proved or not."""
        from provenn.api.signing import examine

        return examine((yield from self.certificate(certificate)), model, keys)

    def _get(self, path: str, params: Mapping[str, Any] | None = None, patience: float = 0.0) -> Flow[httpx.Response]:
        asked = Exchange("GET", path, params or {}, repeatable=True, patience=patience)
        return (yield from self._sent(asked))

    def _sent(self, asked: Exchange) -> Flow[httpx.Response]:
        return (yield from answered(asked, self.url, self.retry_seconds))


def _joined(item: bytes) -> tuple[int, str] | None:
    """The number of the row in a bundle of one, and the root that its path leads to; None if it is no such bundle."""
    from provenn.api.batch.bundle import opened
    from provenn.api.batch.merkle import leaf_hash, root_by_path

    try:
        with opened(io.BytesIO(item)) as bundle:
            manifest = bundle.manifest
            (leaf,) = bundle.leaves()
    except (CertificateRejected, ValueError):
        return None
    if bundle.item is None:
        return None
    row, path = bundle.item
    top = root_by_path(leaf_hash(leaf), row, manifest.rows, path)
    return None if top is None else (row, manifest.over(top).root)


def _archived(data: Path | Data) -> bytes:
    if isinstance(data, Path):
        return data.read_bytes()
    from provenn.api.batch.canonical import packed

    return packed(data)


def route(*names: str) -> str:
    """The path of a route, whatever characters are in an id."""
    return "/".join(["/v1", *(quote(name, safe="") for name in names)])


def requested(seconds: float, **members: Any) -> JobRequest:
    """A job with this budget.   Raises: InvalidSpecification naming the member that makes no sense."""
    try:
        return JobRequest(**members, budget=BudgetRequest(seconds=seconds))
    except ValidationError as error:
        raise InvalidSpecification(said(error)) from None


def said(error: ValidationError) -> str:
    """The first thing that is wrong."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]


def understood(kind: type[B], answer: httpx.Response) -> B:
    """The answer's body.   Raises: UnexpectedAnswer if it is another thing."""
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        what = f"the service answered {answer.url.path} with no {kind.__name__}: {said(error)}"
        raise UnexpectedAnswer(what) from error
