"""What processes on one PostgreSQL tell each other by LISTEN and NOTIFY: hints that the tables are worth reading now.

A notice that gets lost costs the time until the next poll and nothing else, so there is no retry, and what waits to be
told is lost with the connection. Telling never blocks: one thread sends, all that has gathered at a time in one go.
"""

from __future__ import annotations

import logging
import os
import select
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from provenn.api.database import database_url

if TYPE_CHECKING:
    from psycopg import Connection

CHANNEL = "provenn"
RETRY_SECONDS = 1.0
HEARTBEAT_SECONDS = 30.0
"""Between two looks at whether the connection still exists."""
log = logging.getLogger("provenn.api")


class Kind(StrEnum):
    """What has happened."""

    QUEUED = "queued"
    CANCELLED = "cancelled"
    CHANGED = "changed"


@dataclass(frozen=True)
class Notice:
    """job: only of a change."""

    kind: Kind
    job: str = ""


class Notices:
    """Tells the others, and hears them; what this process has told, it does not hear."""

    def __init__(self, url: str) -> None:
        """Of a PostgreSQL database.   Raises: UnusableDatabase."""
        self._url = database_url(url)
        self._waiting: dict[Notice, None] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._bell, self._ring = os.pipe()
        os.set_blocking(self._ring, False)
        self._thread: threading.Thread | None = None

    def start(self, hear: Callable[[Notice], None]) -> None:
        """From now on notices come and go.   hear: called from a thread of this object's own; must not raise."""
        self._thread = threading.Thread(target=self._run, args=[hear], name="notices", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more do; the last ones are sent if the database answers."""
        self._stopping.set()
        self._wake()
        if self._thread is not None:
            self._thread.join()
        os.close(self._bell)
        os.close(self._ring)

    def tell(self, notice: Notice) -> None:
        """Soon; the same notice twice counts once."""
        with self._lock:
            self._waiting[notice] = None
        self._wake()

    def _wake(self) -> None:
        try:
            os.write(self._ring, b".")
        except BlockingIOError:
            return  # a full pipe wakes as well

    def _run(self, hear: Callable[[Notice], None]) -> None:
        import psycopg

        arguments, options = self._url.get_dialect()().create_connect_args(self._url)
        while not self._stopping.is_set():
            try:
                with psycopg.connect(*arguments, **options, autocommit=True) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    hear(Notice(Kind.QUEUED))  # there may have been some meanwhile
                    hear(Notice(Kind.CANCELLED))
                    self._converse(connection, hear)
            except psycopg.Error as error:
                log.warning("notices of other processes are not heard now: %s", type(error).__name__)
                self._stopping.wait(RETRY_SECONDS)

    def _converse(self, connection: Connection, hear: Callable[[Notice], None]) -> None:
        """Until it is to stop.   Raises: psycopg.Error once the connection is gone."""
        while True:
            told = self._taken()
            connection.execute("SELECT pg_notify(%s, one) FROM unnest(%s::text[]) AS one", (CHANNEL, told))
            for heard in connection.notifies(timeout=0):
                notice = _read(heard.payload)
                if notice is not None and heard.pid != connection.info.backend_pid:
                    hear(notice)
            if self._stopping.is_set():
                return
            ready, _, _ = select.select([connection.fileno(), self._bell], [], [], HEARTBEAT_SECONDS)
            if self._bell in ready:
                os.read(self._bell, 1 << 16)

    def _taken(self) -> list[str]:
        with self._lock:
            waiting, self._waiting = self._waiting, {}
        return [f"{notice.kind} {notice.job}".rstrip() for notice in waiting]


def _read(text: str) -> Notice | None:
    """None: of another version, or not ours."""
    kind, _, job = text.partition(" ")
    return Notice(Kind(kind), job) if kind in tuple(Kind) else None
