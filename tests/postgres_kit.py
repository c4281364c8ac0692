"""A PostgreSQL server of the tests' own: from the system's package, in a folder and on a socket of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

QUICK = ["fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200"]


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest version's."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda p: int(p.parts[-3]))
    named = shutil.which("initdb")
    return found[-1].parent if found else Path(named).parent if named else None


class Cluster:
    """A running server. `database()` makes an empty database and gives its URL."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes]) -> None:
        self.folder, self.process = folder, process

    def url(self, name: str) -> str:
        return f"postgresql://provenn@/{name}?host={self.folder}"

    def database(self) -> str:
        import psycopg

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)


def _user() -> dict[str, str]:
    """PostgreSQL refuses to run as root: its package's own user does."""
    if os.geteuid() != 0:
        return {}
    try:
        pwd.getpwnam("postgres")
    except KeyError:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    return {"user": "postgres", "group": "postgres"}


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Skips where PostgreSQL is not installed."""
    bin = binaries()
    if bin is None:
        pytest.skip("PostgreSQL is not installed")
    pytest.importorskip("psycopg")
    who = _user()
    with tempfile.TemporaryDirectory(prefix="pg") as name:
        folder = Path(name)
        if who:
            shutil.chown(folder, **who)
        data = folder / "data"
        command = [bin / "initdb", "-D", data, "-U", "provenn", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/", **who)  # type: ignore[call-overload]
        options = [word for setting in QUICK for word in ("-c", setting)]
        command = [bin / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", *options]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL, cwd="/", **who) as process:  # type: ignore[call-overload]
            try:
                _await(folder)
                yield Cluster(folder, process)
            finally:
                process.send_signal(signal.SIGINT)


def _await(folder: Path) -> None:
    import psycopg

    end = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(f"postgresql://provenn@/postgres?host={folder}").close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.02)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Callable[[], str]]:
    """Makes URLs of new databases. Tests that use it share one worker: mark them xdist_group("postgresql")."""
    with cluster() as running:
        yield running.database
