"""The folder of one attempt: a child writes what it made there, and the supervisor keeps what the child names.

So a child needs no right to the blobs, and nothing half-written is ever stored.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from provenn.api.blobs import Blobs

LIMIT = 1 << 32
"""Bytes of all files of one answer that are kept."""


class Outbox:
    """The child's side: bytes in, their digest out."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes) -> str:
        """Leaves the bytes under their digest."""
        digest = hashlib.sha256(data).hexdigest()
        (self._folder / digest).write_bytes(data)
        return digest

    @contextmanager
    def file(self) -> Iterator[IO[bytes]]:
        """A file to write to, for `keep`."""
        with tempfile.NamedTemporaryFile(dir=self._folder, delete=False) as file:
            yield file

    def keep(self, name: str, file: IO[bytes]) -> dict[str, Any]:
        """Leaves a file that has been written under its digest, and says what the supervisor is told of it."""
        made = Path(file.name)
        with made.open("rb") as whole:
            digest = hashlib.file_digest(whole, "sha256").hexdigest()
        kept = made.rename(self._folder / digest)
        return {"name": name, "sha256": digest, "bytes": kept.stat().st_size}


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """A folder of its own below `root`, gone at the end."""
    folder = Path(tempfile.mkdtemp(dir=root))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def emptied(root: Path) -> Path:
    """The folder for workspaces, without those that a killed supervisor left; the caller holds the data directory."""
    if root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True)
    return root


def keep(folder: Path, names: Iterable[str], blobs: Blobs) -> None:
    """Stores the files that a child names, each under its digest, whatever the child says.

    Raises: OSError if one is not there, is a link or no plain file, or holds other bytes than its name promises; or if
    they are too large together.
    """
    size = 0
    for name in names:
        descriptor = os.open(folder / Path(name).name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            size += os.fstat(descriptor).st_size
            if size > LIMIT:
                raise OSError(f"a worker left more than {LIMIT >> 30} GiB: too much to be kept")
            found = blobs.put_file(file)
        if found != name:
            raise OSError(f"a worker left other bytes than {name}")
