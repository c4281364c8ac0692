"""Files of this machine with the bytes of blobs that are kept elsewhere; the least recently used go first."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

RECENT_SECONDS = 600.0
"""A file is not removed so soon after it was asked for: whoever has its path may not have opened it yet."""
UNFINISHED = "incoming-"


class Cache:
    """One file a digest, in one folder; any number of threads and processes may use it at once.

    What was asked for within RECENT_SECONDS stays even where that is more than `limit` bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self._folder, self._limit = folder, limit

    def file(self, digest: str, pieces: Callable[[], Iterable[bytes]]) -> Path:
        """A file with the blob's bytes, made of `pieces` if there is none.   Raises: as `pieces`; OSError.

        It gets its name once `pieces` has ended without an error, which therefore has to have checked the digest.
        A file that has rotted since is made anew.
        """
        path = self._folder / digest
        with suppress(FileNotFoundError):
            os.utime(path)
            if digest_of(path) == digest:
                return path
        self._folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=self._folder, prefix=UNFINISHED, delete=False) as made:
            try:
                made.writelines(pieces())
                made.flush()
                Path(made.name).replace(path)
            finally:
                Path(made.name).unlink(missing_ok=True)
        self._shrink()
        return path

    def forget(self, digest: str) -> None:
        """Removes its file, if there is one."""
        (self._folder / digest).unlink(missing_ok=True)

    def unfinished(self) -> Iterator[Path]:
        """Files that are being written, or whose writer was killed."""
        yield from self._folder.glob(f"{UNFINISHED}*")

    def _shrink(self) -> None:
        """Removes the least recently used files until the rest is within the limit."""
        found = []
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                status = path.stat()
                found.append((status.st_mtime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if total <= self._limit or used > time.time() - RECENT_SECONDS:
                return
            path.unlink(missing_ok=True)
            total -= size


def digest_of(path: Path) -> str:
    """SHA-256 of a file.   Raises: OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
