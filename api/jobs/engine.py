"""The supervisor: claims rows, runs each job in its own child, as many at a time as it has slots.

One thread a slot, blocked on its child's pipe; whoever wants a child gone (wall clock, memory, cancellation, shutdown)
kills it from outside and the slot sees the pipe close. Leases are renewed from a thread of their own.
"""

from __future__ import annotations

import logging
import resource
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from obstore.exceptions import BaseError
from sqlalchemy.exc import SQLAlchemyError
from structlog.contextvars import bound_contextvars

from provenn.api import tracing
from provenn.api.blobs import Blobs
from provenn.api.jobs.attempt import CANCELLED, LOST, MEMORY, SHUTDOWN, Attempt, Means, Splitting, alarm
from provenn.api.jobs.child import NURSERY, Child
from provenn.api.jobs.gpus import memory
from provenn.api.jobs.inspection import Inspection
from provenn.api.jobs.inspector import Inspector
from provenn.api.jobs.nodes import Node, Nodes
from provenn.api.jobs.notices import Kind, Notice
from provenn.api.jobs.slot import Slot, slots_of
from provenn.api.jobs.store import JobStore, Ticket
from provenn.api.jobs.task import Limits, Order, Task
from provenn.api.jobs.tasks import Certify
from provenn.api.jobs.workspace import emptied, workspace
from provenn.api.settings import Settings
from provenn.api.tables import JobRow

PATIENCE = 2.0
"""Leases for which writing an outcome down is tried: the row may be somebody else's after one."""
log = logging.getLogger("provenn.api")


def nobody(notice: Notice) -> None:
    """Tells nobody: this process is the only one."""


class Engine:
    """Runs queued jobs until stopped. The caller holds the data directory: what is left in `work` is nobody's."""

    def __init__(
        self,
        store: JobStore,
        blobs: Blobs,
        nodes: Nodes,
        settings: Settings,
        tell: Callable[[Notice], None] = nobody,
    ) -> None:
        """tell: how other supervisors get to know what has happened here."""
        self._store, self._nodes, self._settings, self._tell = store, nodes, settings, tell
        self.id = uuid.uuid4().hex
        self.work = emptied(settings.data_dir.resolve() / "work")
        self._means = Means(store, blobs, settings.job_device, PATIENCE * settings.lease_seconds)
        self.slots = slots_of(settings)
        self._node = Node(self.id, len(self.slots), settings.job_device)
        self._running: dict[Ticket, Child] = {}
        self._generation = self._busy = 0
        self._changed = threading.Condition()
        self._draining = threading.Event()
        self._stopping = threading.Event()
        self._warm = threading.Event()
        self._doubt = threading.Event()
        self._hurried = False
        self._inspector = Inspector(settings)
        serve: list[Callable[[], None]] = [partial(self._serve, slot) for slot in self.slots] or [self._stay_warm]
        targets = [*serve, self._keep_leases, self._look_around]
        self._threads = [threading.Thread(target=t, name=f"engine-{i}", daemon=True) for i, t in enumerate(targets)]

    def start(self) -> None:
        """Queues again what a dead server left running, then warms the forkserver and begins to claim."""
        if not self._nodes.shared:
            self._store.requeue_abandoned(self.id)
        self._nodes.join(self._node)
        for thread in self._threads:
            thread.start()

    def drain(self) -> None:
        """Claims nothing more, and returns once what runs is over, or after `drain_seconds`."""
        self._draining.set()
        self._rouse()
        with self._changed:
            self._changed.wait_for(lambda: self._hurried or not self._busy, self._settings.drain_seconds)

    def hurry(self) -> None:
        """Draining, begun or not, waits for nothing any more."""
        with self._changed:
            self._hurried = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Drains; kills what still runs and puts it back into the queue; waits for the threads."""
        self.drain()
        self._stopping.set()
        self._doubt.set()
        self._rouse()
        with self._changed:
            for child in self._running.values():
                child.kill(SHUTDOWN)
        for thread in self._threads:
            thread.join()
        try:
            self._nodes.leave(self._node)
        except SQLAlchemyError as error:
            log.warning("the database was not told that this supervisor has stopped: %s", type(error).__name__)

    def wake(self) -> None:
        """A job has been queued."""
        self._rouse()
        self._tell(Notice(Kind.QUEUED))

    def interrupt(self, job: str) -> None:
        """Kills the child of a job that has just been cancelled, here or elsewhere."""
        self._kill({ticket for ticket in self.running if ticket.job == job}, CANCELLED)
        self._tell(Notice(Kind.CANCELLED))

    def hear(self, notice: Notice) -> None:
        """Another process has queued or cancelled something."""
        if notice.kind is Kind.QUEUED:
            self._rouse()
        elif notice.kind is Kind.CANCELLED:
            self._doubt.set()

    def _rouse(self) -> None:
        with self._changed:
            self._generation += 1
            self._changed.notify_all()

    @property
    def running(self) -> list[Ticket]:
        """What runs here."""
        with self._changed:
            return list(self._running)

    @property
    def status(self) -> str:
        """`ready`, or what is wrong."""
        if self._stopping.is_set():
            return "stopped"
        if self._draining.is_set():
            return "draining"
        dead = sum(not thread.is_alive() for thread in self._threads)
        if dead:
            return f"{dead} of {len(self._threads)} threads have ended: see the log and restart"
        return "ready" if self._warm.is_set() else "starting"

    def worker_pids(self, job: str) -> list[int]:
        """The processes that work on a job now."""
        with self._changed:
            return [child.pid for ticket, child in self._running.items() if ticket.job == job]

    def inspect(self, task: Inspection) -> dict[str, Any]:
        """A short task's answer, from a sandboxed child.   Raises: as `Inspector.inspect`."""
        return self._inspector.inspect(task)

    def ask(self, task: Task) -> dict[str, Any]:
        """A short task's answer, from a child of its own.   Raises: as `Inspector.ask`."""
        return self._inspector.ask(task)

    def _serve(self, slot: Slot) -> None:
        """Claims and runs, one job after another."""
        self._warm_up(slot)
        while not self._draining.is_set():
            seen = self._generation
            try:
                if not self._worked(slot):
                    self._sleep(seen)
            except (SQLAlchemyError, BaseError, OSError):
                log.exception("the engine could not claim or record a job; its lease will expire")
                self._stopping.wait(1.0)
        slot.close()

    def _worked(self, slot: Slot) -> bool:
        """Whether there was a job to run. Whoever drains waits for a job from its claim on, not from its child on."""
        with self._changed:
            self._busy += 1
        try:
            job = None if self._draining.is_set() else self._store.claim(self.id, self._settings.lease_seconds)
            if job is not None:
                self._run(job, slot)
            return job is not None
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def _sleep(self, seen: int) -> None:
        """Until something has been queued since generation `seen`, may have been elsewhere, or may be tried again."""
        longest = self._settings.poll_seconds if self._nodes.shared else self._settings.lease_seconds
        due = self._store.next_at()
        seconds = longest if due is None else max(0.01, min(longest, due - time.time()))
        with self._changed:
            self._changed.wait_for(lambda: self._generation != seen, seconds)

    def _stay_warm(self) -> None:
        """Instead of slots, where there are none: files are read here all the same."""
        self._warm_up(Slot(NURSERY, Limits(1, None)))
        self._stopping.wait()

    def _warm_up(self, slot: Slot) -> None:
        slot.warm_up()
        self._warm.set()

    def _run(self, job: JobRow, slot: Slot) -> None:
        """One attempt, from the child's start to the row."""
        about: dict[str, str | int] = {"job": job.id, "attempt": job.attempt}
        with workspace(self.work) as folder, bound_contextvars(**about), tracing.span("job", **about):
            log.info("the attempt begins")
            attempt = Attempt(job, self._means, folder)
            task = attempt.task(self._splitting(job))
            if task is None:
                return
            allowed = job.seconds + self._settings.grace_seconds
            child, clean = slot.start(job, Order(task, allowed)), False
            try:
                with self._registered(attempt.ticket, child), alarm(child, allowed):
                    clean = attempt.follow(child)
            finally:
                slot.release(clean and child.why is None)
                log.info("the attempt is over")
        if job.parent_id is not None or not isinstance(task, Certify):
            self.wake()  # it may have left parts, or have been the last of them

    def _splitting(self, job: JobRow) -> Splitting:
        """No more parts than slots that there are, nor smaller ones than are worth it."""
        least, seconds = self._settings.part_items, self._settings.part_seconds
        if job.kind == "inputs":
            parts = job.items // least if least else 1
            return Splitting(min(parts, self._nodes.slots()) if parts > 1 else 1, seconds, least)
        return Splitting(self._nodes.slots() if seconds or job.dataset_id else 1, seconds, least or job.items)

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
        """Says that this supervisor is alive, and queues again what belongs to others that are not."""
        while not self._stopping.wait(self._settings.lease_seconds / 4):
            try:
                self._kill(set(self._store.renew(self.running, self._settings.lease_seconds)), LOST)
                gpus = memory() if self._settings.job_device != "cpu" else None
                self._nodes.beat(self._node, self._draining.is_set(), gpus)
                if self._store.requeue_expired():
                    self.wake()
            except SQLAlchemyError as error:
                log.warning("the leases could not be renewed: %s", type(error).__name__)

    def _look_around(self) -> None:
        """Kills children whose jobs were cancelled elsewhere, and those that have outgrown their memory."""
        while not self._stopping.is_set():
            self._doubt.wait(self._settings.poll_seconds)
            self._doubt.clear()
            running = self.running
            if not running:
                continue
            try:
                self._kill(set(self._store.void(running)), LOST)
            except SQLAlchemyError as error:
                log.warning("whether jobs were cancelled is not known: %s", type(error).__name__)
            if self._settings.job_device != "cpu" and self._settings.memory_limit_mb is not None:
                self._kill({ticket for ticket in running if self._outgrown(ticket)}, MEMORY)

    def _outgrown(self, ticket: Ticket) -> bool:
        with self._changed:
            child = self._running.get(ticket)
        limit = self._settings.memory_limit_mb
        return child is not None and limit is not None and _resident_bytes(child.pid) > limit << 20

    def _kill(self, tickets: set[Ticket], why: str) -> None:
        with self._changed:
            for ticket, child in self._running.items():
                if ticket in tickets:
                    child.kill(why)


def _resident_bytes(pid: int) -> int:
    """What a process holds in memory; 0 once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
    except (FileNotFoundError, ProcessLookupError):
        return 0
