"""What claims jobs and runs them, put together from the settings: within `provenn serve`, alone, or on a Ray node."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from provenn.api.blobs import Blobs
from provenn.api.database import Database, exclusive
from provenn.api.jobs.engine import Engine, nobody
from provenn.api.jobs.nodes import Nodes, nodes_of
from provenn.api.jobs.notices import Kind, Notice, Notices
from provenn.api.jobs.store import JobStore
from provenn.api.jobs.watch import Watch
from provenn.api.settings import Settings
from provenn.models import sandbox


@dataclass(frozen=True)
class Supervisor:
    """A running engine, and what it works with."""

    database: Database
    blobs: Blobs
    watch: Watch
    jobs: JobStore
    nodes: Nodes
    engine: Engine


@contextmanager
def supervisor(settings: Settings, upgrade: bool = True) -> Iterator[Supervisor]:
    """Holds the data directory and runs the engine; at the end it drains, and puts back what still runs.

    upgrade: whether the database's schema may be brought to the newest.
    Raises: SandboxUnavailable; DataDirectoryInUse; UnusableDatabase; OtherSchema; BlobsUnavailable; SQLAlchemyError.
    """
    sandbox.require(sandbox.demanded(settings.require_sandbox))
    with ExitStack() as stack:
        stack.enter_context(exclusive(settings.data_dir.resolve()))
        database = Database(settings.database_url, upgrade)
        stack.callback(database.close)
        watch, nodes, blobs = Watch(), nodes_of(database, settings), Blobs.of(settings)
        notices = Notices(settings.database_url) if database.shared else None
        tell = nobody if notices is None else notices.tell

        def changed(job: str) -> None:
            watch.changed(job)
            tell(Notice(Kind.CHANGED, job))

        def hear(notice: Notice) -> None:
            watch.changed(notice.job)
            engine.hear(notice)

        jobs = JobStore(database, changed)
        engine = Engine(jobs, blobs, nodes, settings, tell)
        if notices is not None:
            notices.start(hear)
            stack.callback(notices.stop)
        engine.start()
        stack.callback(engine.stop)
        yield Supervisor(database, blobs, watch, jobs, nodes, engine)
