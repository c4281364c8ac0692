"""Jobs that come in at the service's door, for tests of what happens in transactions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from provenn.api.blobs import Blobs
from provenn.api.database import Database
from provenn.api.jobs.store import JobStore
from provenn.api.jobs.submissions import Submissions
from provenn.api.settings import Settings
from provenn.api.tables import DEFAULT_PROJECT, JobRow

MODEL = "0" * 64
OTHER = "other"
"""Another project, with a model of the same digest."""
T = TypeVar("T")


def door(database: Database, folder: Path, **settings: Any) -> Submissions:
    """Where jobs come in."""
    chosen = Settings(data_dir=folder, **settings)
    return Submissions(database, JobStore(database), Blobs.of(chosen), chosen)


def new(name: str, project: str = DEFAULT_PROJECT, **changes: Any) -> JobRow:
    """A job that nobody has seen yet."""
    about = {"model_id": MODEL, "method": "auto", "seconds": 1.0, "seed": 0, "certificates": True, "items": 1}
    return JobRow(id=name, project_id=project, **(about | {"request": "r" * 64, "bytes": 10} | changes))


def at_once(calls: list[Callable[[], T]]) -> list[T | Exception]:
    """What each returns or raises, all begun together."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
