"""One attempt at a job: the child, what it says, and what is written down of it."""

from __future__ import annotations

import logging
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from obstore.exceptions import BaseError
from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from provenn.api import problems
from provenn.api.blobs import BlobCorrupted, BlobMissing, Blobs
from provenn.api.jobs import tasks
from provenn.api.jobs.child import Child
from provenn.api.jobs.rows import failed
from provenn.api.jobs.said import Found, Said, Split
from provenn.api.jobs.store import Answer, JobStore, Spent, Step, Ticket
from provenn.api.jobs.task import Task
from provenn.api.jobs.workspace import keep
from provenn.api.schemas import JobRequest
from provenn.api.tables import JobRow

TIME, SHUTDOWN, CANCELLED, LOST, MEMORY, NONSENSE = "time", "shutdown", "cancelled", "lost", "memory", "nonsense"
"""Why a child is killed."""
INTERNAL = "internal error in the worker"
RETRY_SECONDS = 0.5
log = logging.getLogger("provenn.api")


@dataclass(frozen=True)
class Means:
    """What an attempt works with. patience: seconds for which writing the outcome down is tried again and again."""

    store: JobStore
    blobs: Blobs
    device: str
    patience: float


@dataclass(frozen=True)
class Splitting:
    """Into how many parts a job may fall; a search only after some seconds, a batch into parts of some inputs."""

    parts: int
    seconds: float
    inputs: int


class Attempt:
    """Of one claimed row, in one workspace."""

    def __init__(self, job: JobRow, means: Means, folder: Path) -> None:
        self.ticket = Ticket(job.id, job.attempt)
        self._job, self._means, self._folder = job, means, folder

    def task(self, splitting: Splitting) -> Task | None:
        """What the child is to do; None if the job is over: a part of it has failed, or a blob is broken.

        Raises: BlobsUnavailable, OSError.
        """
        try:
            return self._task(splitting)
        except (BlobCorrupted, BlobMissing) as error:
            found = problems.document(problems.of(error))
            reason = str(error)
            self._surely(lambda: self._means.store.fail(self.ticket, reason, found))
            return None

    def _task(self, splitting: Splitting) -> Task | None:
        job, local, folder, device = self._job, self._means.blobs.local, self._folder, self._means.device
        model, request = local(job.model_id), local(job.request)
        if job.dataset_id is not None and job.kind == tasks.PATTERNS:
            return self._mine(model, request, local(job.dataset_id))
        if job.dataset_id is not None:
            return self._batch(model, request, local(job.dataset_id), splitting)
        if job.parts:
            return self._whole(model, request)
        if job.parent_id is not None and job.start is not None:
            return tasks.GoOn(model, request, local(job.start), folder, device)
        if splitting.parts > 1 and job.parent_id is None:
            if job.kind == "inputs" and job.method != tasks.LIPSCHITZ:
                return tasks.SplitInputs(request, folder, splitting.parts)
            if job.kind == "specification" and job.method in tasks.DIVISIBLE:
                return tasks.BeginSearch(model, request, folder, device, splitting.parts, splitting.seconds)
        return tasks.Certify(model, request, folder, device)

    def _mine(self, model: Path, request: Path, dataset: Path) -> Task:
        """Of a job that mines patterns. What is held out may be another dataset of the project, and may be gone."""
        asked = JobRequest.model_validate_json(request.read_bytes()).patterns
        name = None if asked is None else asked.held_out
        held = None if name is None else self._means.blobs.local(name)
        return tasks.Mine(model, request, dataset, held, self._folder)

    def _batch(self, model: Path, request: Path, dataset: Path, splitting: Splitting) -> Task | None:
        """Of a batch: its parts, one of them, or what they make together."""
        job, store, local, folder = self._job, self._means.store, self._means.blobs.local, self._folder
        if job.parent_id is not None:
            seconds = share(job.seconds, store.spent(job.parent_id), splitting.parts)
            return tasks.CertifyPart(model, request, dataset, folder, self._means.device, seconds)
        if not job.parts:
            return tasks.SplitBatch(request, dataset, folder, splitting.inputs)
        rows = store.parts(job.id)
        reason = failed(rows)
        if reason is not None:
            self._surely(lambda: store.fail(self.ticket, reason))
            return None
        left_by = [{file.name: local(file.id) for file in store.files(row.id)} for row in rows]
        found = [
            tasks.BatchPart(local(row.request), files.get(tasks.ROWS), files.get(tasks.CERTIFICATES))
            for row, files in zip(rows, left_by, strict=True)
        ]
        return tasks.JoinBatch(model, job.model_id, request, dataset, tuple(found), folder)

    def _whole(self, model: Path, request: Path) -> Task | None:
        """The parts put together."""
        rows, local, folder = self._means.store.parts(self._job.id), self._means.blobs.local, self._folder
        results = [None if row.result is None else local(row.result) for row in rows]
        reason = failed(rows)
        if reason is not None:
            self._surely(lambda: self._means.store.fail(self.ticket, reason))
            return None
        if self._job.start is None:
            items = [tasks.InputsPart(row.items, result) for row, result in zip(rows, results, strict=True)]
            return tasks.JoinInputs(request, folder, tuple(items))
        found = [
            tasks.Searched(result, row.verdict, local(row.start or self._job.start))
            for row, result in zip(rows, results, strict=True)
        ]
        start = local(self._job.start)
        return tasks.Conclude(model, request, start, tuple(found), folder, self._means.device)

    def follow(self, child: Child) -> bool:
        """Notes progress until the child's last message, then writes the outcome down; whether there was an answer."""
        self._look(child)
        try:
            for message in child.messages():
                said = Said.model_validate(message)
                if said.progress is not None:
                    self._note(child, Step(**said.progress.model_dump()))
                    continue
                self._over(said)
                return said.answer is not None and child.why is None
        except ValidationError as error:
            log.error("job %s: the worker said what no worker says: %s", self.ticket.job, error.error_count())
            child.kill(NONSENSE)
        code = child.close()
        self._died(child.why, code)
        return False

    def _over(self, said: Said) -> None:
        """What the last message says is written down."""
        store, ticket = self._means.store, self.ticket
        if isinstance(said.answer, Found):
            found = Answer(**said.answer.model_dump())
            left = [str(file["sha256"]) for file in found.files]
            self._keep([*found.certificates, *left, found.result, found.start])
            self._surely(lambda: store.finish(ticket, found))
        elif isinstance(said.answer, Split):
            self._split(said.answer)
        elif said.problem is not None:
            trouble = said.problem.document()
            self._surely(lambda: store.fail(ticket, trouble["detail"], trouble))
        else:
            self._surely(lambda: store.fail(ticket, f"{INTERNAL} (it said nothing)"))

    def _split(self, found: Split) -> None:
        self._keep([found.start, *(name for part in found.parts for name in (part.request, part.start))])
        same = (
            "project_id", "key_id", "model_id", "dataset_id", "kind", "method", "seconds", "seed", "certificates",
            "priority",
        )  # fmt: skip
        shared = {name: getattr(self._job, name) for name in same} | {"parent_id": self._job.id}
        if self._job.dataset_id is not None:  # there may be thousands: what is asked meanwhile need not wait for all
            shared["priority"] = self._job.priority - 1
        rows = [
            JobRow(id=uuid.uuid4().hex, part=number, **shared, **part.model_dump())
            for number, part in enumerate(found.parts)
        ]
        self._surely(lambda: self._means.store.split(self.ticket, rows, found.start))

    def _keep(self, names: Sequence[str | None]) -> None:
        made = {name for name in names if name is not None}
        self._surely(lambda: keep(self._folder, made, self._means.blobs))

    def _look(self, child: Child) -> None:
        """It may have been cancelled since it was claimed, when there was no child to kill."""
        try:
            if self._means.store.void([self.ticket]):
                child.kill(LOST)
        except SQLAlchemyError as error:
            log.warning("job %s: whether it was cancelled is not known: %s", self.ticket.job, type(error).__name__)

    def _note(self, child: Child, step: Step) -> None:
        """Writes progress down; a child whose ticket is void is killed. What cannot be written is not missed."""
        try:
            if not self._means.store.progress(self.ticket, step):
                child.kill(LOST)
        except SQLAlchemyError as error:
            log.warning("job %s: progress could not be noted: %s", self.ticket.job, type(error).__name__)

    def _died(self, why: str | None, code: int) -> None:
        """It ended without a last message."""
        store, ticket = self._means.store, self.ticket
        if why == TIME:
            reason = "the wall-clock limit was reached before the worker answered"
            self._surely(lambda: store.time_out(ticket, reason))
        elif why == MEMORY:
            self._surely(lambda: store.fail(ticket, "the worker needed more memory than it may have"))
        elif why == SHUTDOWN:
            self._surely(lambda: store.release(ticket, "the server was shut down"))
        elif why in (CANCELLED, LOST):
            log.info("job %s: attempt %d ended: %s", ticket.job, ticket.attempt, why)
        elif code == -signal.SIGXCPU:
            self._surely(lambda: store.time_out(ticket, "the limit of CPU time was reached"))
        elif code < 0 and why != NONSENSE:
            self._surely(lambda: store.died(ticket, f"worker died ({ending(code)})"))
        else:
            reason = f"{INTERNAL} ({ending(code)}); the server's log says more"
            self._surely(lambda: store.fail(ticket, reason))

    def _surely(self, write: Callable[[], None]) -> None:
        """Tries again while the database or the blobs are away, as long as patience lasts.

        Writing twice is harmless: blobs are named by their content, and a ticket is void once its row has moved.
        Raises: what the last try raised.
        """
        end = time.monotonic() + self._means.patience
        while True:
            try:
                return write()
            except (SQLAlchemyError, BaseError) as error:
                if time.monotonic() >= end:
                    raise
                log.warning("job %s: %s: trying again", self.ticket.job, type(error).__name__)
                time.sleep(RETRY_SECONDS)


def share(budget: float, spent: Spent, slots: int) -> float:
    """Seconds for the next part: an even share of what is left of the budget, on all workers that there can be.

    Time in the queue does not count, and what a part leaves is there for the others.
    """
    allowed = budget * max(1, min(slots, spent.parts))
    return max(0.0, min(budget, (allowed - spent.seconds) / max(1, spent.waiting)))


@contextmanager
def alarm(child: Child, seconds: float) -> Iterator[None]:
    """Kills the child when the time is up."""
    timer = threading.Timer(seconds, child.kill, [TIME])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it kills nobody afterwards


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"signal {-code}" if code < 0 else f"exit code {code}"
