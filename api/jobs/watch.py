"""Wakes whoever waits for a job to change; the row stays the truth, a wake-up only says that it is worth reading."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Watch:
    """Listeners by job; `changed` may be called from any thread."""

    def __init__(self) -> None:
        self.closed = False
        self._lock = threading.Lock()
        self._listeners: dict[str, list[tuple[asyncio.AbstractEventLoop, asyncio.Event]]] = {}

    def changed(self, job: str) -> None:
        """Sets the events of everybody who listens to this job."""
        with self._lock:
            for loop, event in self._listeners.get(job, ()):
                loop.call_soon_threadsafe(event.set)

    def close(self) -> None:
        """Wakes everybody for the last time: the server is about to stop."""
        self.closed = True
        with self._lock:
            jobs = list(self._listeners)
        for job in jobs:
            self.changed(job)

    @contextmanager
    def listen(self, job: str) -> Iterator[asyncio.Event]:
        """An event of the running loop, set at every change until the block ends."""
        entry = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:
            self._listeners.setdefault(job, []).append(entry)
        try:
            yield entry[1]
        finally:
            with self._lock:
                self._listeners[job].remove(entry)
                if not self._listeners[job]:
                    del self._listeners[job]
