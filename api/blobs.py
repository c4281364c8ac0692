"""Immutable bytes under their SHA-256: what is there never changes, and a row is written only after its blob."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import obstore
from obstore.store import LocalStore


class Blobs:
    """A content-addressed folder (`obstore`: another store takes the folder's place without a change here)."""

    def __init__(self, folder: Path) -> None:
        self._store = LocalStore(prefix=folder, mkdir=True)

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their digest."""
        digest = hashlib.sha256(data).hexdigest()
        obstore.put(self._store, _path(digest), data)
        return digest

    @contextmanager
    def staged(self, file: BinaryIO) -> Iterator[str]:
        """A copy of an open file under a name of its own, gone at the end unless `keep` has moved it."""
        name = f"incoming/{uuid.uuid4().hex}"
        file.seek(0)
        obstore.put(self._store, name, file)
        try:
            yield name
        finally:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, name)

    def keep(self, name: str, digest: str) -> None:
        """Moves a staged file, whose SHA-256 is `digest`, to its place."""
        obstore.rename(self._store, name, _path(digest))

    def get(self, digest: str) -> bytes:
        """The bytes.   Raises: FileNotFoundError if there are none of that digest."""
        return bytes(obstore.get(self._store, _path(digest)).bytes())

    def read_staged(self, name: str) -> bytes:
        """The bytes of a staged file."""
        return bytes(obstore.get(self._store, name).bytes())

    def probe(self) -> None:
        """Writes and reads one blob.   Raises: OSError or obstore's BaseError if the folder cannot be used."""
        if self.get(self.put(b"probe")) != b"probe":
            raise OSError("the blob folder returns other bytes than were written")


def _path(digest: str) -> str:
    return f"{digest[:2]}/{digest}"
