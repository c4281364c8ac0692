"""How the database is opened: SQLite in write-ahead mode or PostgreSQL, brought to the newest schema, in sessions."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import ArgumentError
from sqlalchemy.orm import Session

from provenn.api import migrations
from provenn.api.tables import ModelRow
from provenn.verifier.errors import ProvennError

PRAGMAS = ("busy_timeout=10000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON")
CONNECTIONS = 50
"""To SQLite that are kept: as many as threads that answer requests, and those of the engine."""
DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "postgresql+psycopg": "postgresql+psycopg"}


class DataDirectoryInUse(ProvennError):
    """Another server holds the data directory."""


class UnusableDatabase(ProvennError):
    """The database's URL names nothing that can be opened."""


def database_url(text: str) -> URL:
    """The URL with the driver that is used here.   Raises: UnusableDatabase."""
    try:
        url = make_url(text)
        return url.set(drivername=DRIVERS[url.drivername])
    except (ArgumentError, KeyError):
        raise UnusableDatabase(
            "the database is to be sqlite:///PATH or postgresql://USER@HOST/NAME (PROVENN_DATABASE)"
        ) from None


def with_password(text: str, file: Path) -> str:
    """The URL with the password that the file holds.   Raises: UnusableDatabase."""
    try:
        password = file.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UnusableDatabase(
            f"the database's password cannot be read from {file} ({type(error).__name__}): "
            "PROVENN_DATABASE_PASSWORD_FILE"
        ) from error
    return database_url(text).set(password=password).render_as_string(hide_password=False)


class Database:
    """Sessions on one database. On SQLite a writing session takes the write lock at once: it never fails half-way."""

    def __init__(self, url: str, upgrade: bool = True) -> None:
        """Brings the schema to the newest, or with `upgrade` false takes no other.

        Raises: UnusableDatabase; OtherSchema; SQLAlchemyError if the database does not answer.
        """
        self._engine = opened(url)
        self._writer = writer(self._engine)
        self._turn: AbstractContextManager[object] = nullcontext() if self.shared else threading.Lock()
        with ExitStack() as stack:
            stack.callback(self.close)
            if upgrade:
                migrations.upgrade(self._writer)
            else:
                migrations.require_newest(self._engine)
            stack.pop_all()

    @property
    def shared(self) -> bool:
        """Whether supervisors on other machines may use it too."""
        return self._engine.dialect.name != "sqlite"

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A read-only session; rows stay readable after it."""
        with Session(self._engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """One transaction: committed at the end, rolled back on an exception.

        SQLite lets one write at a time, and whoever finds it taken sleeps longer and longer before looking again: so
        the threads of this process take turns. (Nobody writes within a transaction of another: there it would wait
        for itself in any case.)
        """
        with self._turn, Session(self._writer, expire_on_commit=False) as session, session.begin():
            yield session

    def probe(self) -> None:
        """Raises: SQLAlchemyError if the database does not answer for its tables."""
        with self.reading() as session:
            session.execute(select(ModelRow.id).limit(1))

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()


def writer(engine: Engine) -> Engine:
    """The same, whose transactions are the only writing ones from their beginning (SQLite)."""
    return engine.execution_options(immediate=True)


def opened(text: str) -> Engine:
    """Connections to the database of this URL, whatever its schema is.   Raises: UnusableDatabase."""
    url = database_url(text)
    if url.drivername != "sqlite":
        try:
            return create_engine(url, pool_pre_ping=True, pool_size=10, max_overflow=20)
        except ModuleNotFoundError:
            raise UnusableDatabase('PostgreSQL needs psycopg: pip install "provenn[postgres]"') from None
    engine = create_engine(url, pool_size=CONNECTIONS, max_overflow=-1)

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
