"""The supervisor: claims rows, runs each job in its own child, writes down what became of it.

One thread a slot, blocked on its child's pipe; whoever wants a child gone (wall clock, cancellation, shutdown) kills
it from outside and the slot sees the pipe close. Leases are renewed from a thread of their own.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from provenn.api import problems
from provenn.api.database import JobRow
from provenn.api.jobs.child import Child
from provenn.api.jobs.inspection import Inspection
from provenn.api.jobs.store import JobStore, Ticket
from provenn.api.jobs.task import Limits, Nothing, main
from provenn.api.jobs.worker import Certify
from provenn.api.settings import Settings
from provenn.verifier.errors import ProvennError, ResourceLimit

INSPECTIONS = 2
"""Uploaded files that are read at the same time; others wait."""
TIME, SHUTDOWN, CANCELLED, LOST = "time", "shutdown", "cancelled", "lost"
log = logging.getLogger("provenn.api")


class Engine:
    """Runs queued jobs until stopped.   blobs: the folder that children read and write."""

    def __init__(self, store: JobStore, blobs: Path, settings: Settings) -> None:
        self._store, self.blobs, self._settings = store, blobs, settings
        self._owner = uuid.uuid4().hex
        self._running: dict[Ticket, Child] = {}
        self._generation = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._warm = threading.Event()
        self._inspections = threading.BoundedSemaphore(INSPECTIONS)
        targets = [self._slot] * settings.workers + [self._keep_leases]
        self._threads = [threading.Thread(target=t, name=f"engine-{i}", daemon=True) for i, t in enumerate(targets)]

    def start(self) -> None:
        """Queues again what a dead server left running, then warms the forkserver and begins to claim."""
        self._store.requeue_abandoned(self._owner)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Kills the children, puts their jobs back into the queue, waits for the threads."""
        self._stopping.set()
        self.wake()
        with self._changed:
            for child in self._running.values():
                child.kill(SHUTDOWN)
        for thread in self._threads:
            thread.join()

    def wake(self) -> None:
        """A job has been queued."""
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    def interrupt(self, job: str) -> None:
        """Kills the child of a job that has just been cancelled."""
        with self._changed:
            for ticket, child in self._running.items():
                if ticket.job == job:
                    child.kill(CANCELLED)

    @property
    def status(self) -> str:
        """`ready`, or what is wrong."""
        if self._stopping.is_set():
            return "stopped"
        dead = sum(not thread.is_alive() for thread in self._threads)
        if dead:
            return f"{dead} of {len(self._threads)} threads have ended: see the log and restart"
        return "ready" if self._warm.is_set() else "starting"

    def worker_pids(self, job: str) -> list[int]:
        """The processes that work on a job now."""
        with self._changed:
            return [child.pid for ticket, child in self._running.items() if ticket.job == job]

    def inspect(self, task: Inspection) -> dict[str, Any]:
        """A short task's answer, from a child.

        Raises: the child's problem; the task's `refusal` if the child died of it; ResourceLimit if it took too long.
        """
        with self._inspections:
            child = Child(main, self._limits(), task)
            with _alarm(child, self._settings.inspect_seconds):
                said = next(child.messages(), {})
            code = child.close()
        if "answer" in said:
            return dict(said["answer"])
        if "problem" in said:
            raise problems.restored(said["problem"])
        raise self._unread(task, child.why, code)

    def _unread(self, task: Inspection, why: str | None, code: int) -> ProvennError:
        if why == TIME:
            return ResourceLimit("time to read the file", f"{self._settings.inspect_seconds:g} s")
        memory = self._settings.memory_limit_mb
        limit = f"; its memory limit is {memory} MiB" if memory else ""
        return task.refusal(f"the reader could not take it ({_ending(code)}{limit})")

    def _limits(self) -> Limits:
        memory = self._settings.memory_limit_mb if self._settings.device == "cpu" else None
        return Limits(self._settings.threads, memory)

    def _slot(self) -> None:
        """Claims and runs, one job after another."""
        self._warm_up()
        while not self._stopping.is_set():
            seen = self._generation
            try:
                job = self._store.claim(self._owner, self._settings.lease_seconds)
                if job is not None:
                    self._run(job)
                    continue
            except (SQLAlchemyError, OSError):
                log.exception("the engine could not claim or record a job; its lease will expire")
                self._stopping.wait(1.0)
            self._sleep(seen)

    def _sleep(self, seen: int) -> None:
        """Until something has been queued since generation `seen`, or a lease may have expired."""
        with self._changed:
            self._changed.wait_for(lambda: self._generation != seen, self._settings.lease_seconds)

    def _warm_up(self) -> None:
        child = Child(main, self._limits(), Nothing())
        said = next(child.messages(), {})
        code = child.close()
        if "answer" not in said:
            raise RuntimeError(f"no worker process can be started ({_ending(code)})")
        self._warm.set()

    def _run(self, job: JobRow) -> None:
        """One attempt, from the child's start to the row."""
        ticket = Ticket(job.id, job.attempt)
        child = Child(main, self._limits(), Certify(self.blobs, job.model_id, job.request, self._settings.device))
        with self._registered(ticket, child), _alarm(child, job.seconds + self._settings.grace_seconds):
            self._note(ticket, child, (0, job.items, "starting"))  # it may have been cancelled since it was claimed
            said = self._follow(ticket, child)
        if "answer" in said:
            self._store.finish(ticket, said["answer"]["result"], said["answer"]["certificates"])
            child.close()
        else:
            self._record_failure(ticket, said, child.why, child.close())

    def _follow(self, ticket: Ticket, child: Child) -> dict[str, Any]:
        """Notes progress until the child's last message, which it returns (empty if there was none)."""
        for said in child.messages():
            if "progress" not in said:
                return said
            done, total, phase = said["progress"]
            self._note(ticket, child, (int(done), int(total), str(phase)))
        return {}

    def _note(self, ticket: Ticket, child: Child, progress: tuple[int, int, str]) -> None:
        """Writes progress down; a child whose ticket is void is killed."""
        if not self._store.progress(ticket, *progress):
            child.kill(LOST)

    def _record_failure(self, ticket: Ticket, said: dict[str, Any], why: str | None, code: int) -> None:
        if "problem" in said:
            self._store.fail(ticket, said["problem"]["detail"], said["problem"])
        elif why == TIME:
            self._store.time_out(ticket, "the wall-clock limit was reached before the worker answered")
        elif why == SHUTDOWN:
            self._store.release(ticket, "the server was shut down")
        elif why in (CANCELLED, LOST):
            log.info("job %s: attempt %d ended: %s", ticket.job, ticket.attempt, why)
        elif code < 0:
            self._store.died(ticket, f"worker died ({_ending(code)})")
        else:
            self._store.fail(ticket, f"internal error in the worker ({_ending(code)}); the server's log says more")

    @contextmanager
    def _registered(self, ticket: Ticket, child: Child) -> Iterator[None]:
        """While it lasts the child can be found, and its lease is renewed."""
        with self._changed:
            self._running[ticket] = child
            if self._stopping.is_set():
                child.kill(SHUTDOWN)
        try:
            yield
        finally:
            with self._changed:
                del self._running[ticket]

    def _keep_leases(self) -> None:
        while not self._stopping.wait(self._settings.lease_seconds / 4):
            with self._changed:
                tickets = list(self._running)
            try:
                self._store.renew(tickets, self._settings.lease_seconds)
                if self._store.requeue_expired():
                    self.wake()
            except SQLAlchemyError:
                log.exception("the leases could not be renewed")


@contextmanager
def _alarm(child: Child, seconds: float) -> Iterator[None]:
    """Kills the child when the time is up."""
    timer = threading.Timer(seconds, child.kill, [TIME])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
