"""The tables, and how they are opened: SQLite in write-ahead mode, typed declarative SQLAlchemy."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, Connection, Engine, ForeignKey, create_engine, event, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from provenn.verifier.errors import ProvennError

PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=10000")


class DataDirectoryInUse(ProvennError):
    """Another server holds the data directory."""


class Base(DeclarativeBase):
    """Times are seconds since the epoch; digests are SHA-256 in hexadecimal."""

    type_annotation_map = {dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy reads the plain attribute


class ModelRow(Base):
    """An uploaded network: `id` is its digest, and the blob's."""

    __tablename__ = "models"

    sequence: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    filename: Mapped[str]
    bytes: Mapped[int]
    summary: Mapped[dict[str, Any]]
    created_at: Mapped[float] = mapped_column(default=time.time)


class JobRow(Base):
    """A job: the row is the truth, the engine only executes. `attempt` fences off every earlier worker."""

    __tablename__ = "jobs"

    sequence: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    method: Mapped[str]
    seconds: Mapped[float]
    seed: Mapped[int]
    certificates: Mapped[bool]
    items: Mapped[int]
    request: Mapped[str]
    """Blob of the request as it was accepted."""
    state: Mapped[str] = mapped_column(index=True)
    reason: Mapped[str | None] = mapped_column(default=None)
    error: Mapped[dict[str, Any] | None] = mapped_column(default=None)
    attempt: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    owner: Mapped[str | None] = mapped_column(default=None)
    lease_until: Mapped[float | None] = mapped_column(default=None)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int] = mapped_column(default=0)
    phase: Mapped[str] = mapped_column(default="")
    result: Mapped[str | None] = mapped_column(default=None)
    """Blob of the result."""
    created_at: Mapped[float] = mapped_column(default=time.time)
    changed_at: Mapped[float] = mapped_column(default=time.time)
    started_at: Mapped[float | None] = mapped_column(default=None)
    finished_at: Mapped[float | None] = mapped_column(default=None)


class CertificateRow(Base):
    """A certificate: `id` is the digest of its zip, and the blob's; `job_id` the first job that made it."""

    __tablename__ = "certificates"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"))
    model_id: Mapped[str] = mapped_column(ForeignKey("models.id"))
    created_at: Mapped[float] = mapped_column(default=time.time)


class Database:
    """Sessions on one database. A writing session takes the write lock at once, so it never fails half-way."""

    def __init__(self, path: Path) -> None:
        self._engine = _open(path)
        self._writer = self._engine.execution_options(immediate=True)
        Base.metadata.create_all(self._writer)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A read-only session; rows stay readable after it."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception."""
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def probe(self) -> None:
        """Raises: SQLAlchemyError if the database does not answer for its tables."""
        with self.reading() as session:
            session.execute(select(ModelRow.id).limit(1))

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()


def _open(path: Path) -> Engine:
    engine = create_engine(f"sqlite:///{path}")

    @event.listens_for(engine, "connect")
    def configure(connection: DBAPIConnection, _: object) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says, not where the driver guesses
        cursor = connection.cursor()
        for pragma in PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        immediate = connection.get_execution_options().get("immediate", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")

    return engine


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the data directory: whatever another server left there as running is therefore abandoned.

    Raises: DataDirectoryInUse.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataDirectoryInUse(
                f"the data directory {folder} is in use by another server: stop it, or set PROVENN_DATA_DIR"
            ) from error
        yield
