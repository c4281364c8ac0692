"""Immutable bytes under their SHA-256: what is there never changes, and a row is written only after its blob.

Whatever is read has the digest it was asked for by, or is an error (`blob_errors`). No write is conditional:
two writers of one digest write the same bytes. Layout: `ab/abcd...` for the digest abcd...; `aside/abcd...` for a blob
that `gc` believes nobody needs, which comes back by itself if somebody does.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

import obstore

from provenn.api.blob_cache import Cache
from provenn.api.blob_errors import BlobCorrupted, BlobMissing, BlobsUnavailable, told
from provenn.api.blob_places import Bucket, Directory, Place
from provenn.api.settings import MIB, Settings

if TYPE_CHECKING:
    from obstore import GetResult

PIECE = 5 * MIB
"""Bytes read, sent and held at once: the least that S3 takes as a part of a larger object."""
AT_ONCE = 2
"""Pieces on their way at the same time."""
KEPT = re.compile(r"(?P<start>[0-9a-f]{2})/(?P<digest>(?P=start)[0-9a-f]{62})")
ASIDE = re.compile(r"aside/(?P<digest>[0-9a-f]{64})")
T = TypeVar("T")


@dataclass(frozen=True)
class Stored:
    """A blob that is there; modified: when it was last put, or set aside, in seconds since the epoch."""

    digest: str
    bytes: int
    modified: float


class Blobs:
    """A content-addressed store. Every method may raise BlobsUnavailable."""

    def __init__(self, place: Place) -> None:
        self._place, self._store = place, place.store

    @classmethod
    def of(cls, settings: Settings) -> Blobs:
        """Where the settings say.   Raises: BlobsUnavailable if they name no place that could be used."""
        folder = settings.data_dir.resolve()
        if settings.blobs is None:
            return cls(Directory(folder / "blobs"))
        if settings.blobs.startswith("file:///"):
            return cls(Directory(Path(settings.blobs.removeprefix("file://"))))
        cache = Cache(folder / "cache", settings.cache_mb * MIB)
        return cls(Bucket(settings.blobs, settings.blob_endpoint, settings.blob_region, cache))

    def put(self, data: bytes) -> str:
        """Stores the bytes and returns their digest. If they are there already they are as young as new ones."""
        digest = hashlib.sha256(data).hexdigest()
        self._put(digest, data)
        return digest

    def put_file(self, file: BinaryIO) -> str:
        """Stores an open file, piece by piece, and returns its digest.   Raises: OSError if it changes meanwhile."""
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size <= PIECE:
            return self.put(file.read(PIECE))
        digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        file.seek(0)
        self._put(digest, _promised(file, digest))
        return digest

    def get(self, digest: str) -> bytes:
        """The bytes.   Raises: BlobMissing; BlobCorrupted."""
        data = self._found(digest, lambda: bytes(obstore.get(self._store, _path(digest)).bytes()))
        _require(hashlib.sha256(data).hexdigest(), digest)
        return data

    def open(self, digest: str) -> Iterator[bytes]:
        """The bytes in pieces, the last of which comes only if all of them have the digest: a sound end proves them.

        Raises: BlobMissing, now; BlobCorrupted, instead of the last piece.
        """
        return self._pieces(digest, self._found(digest, lambda: obstore.get(self._store, _path(digest))))

    def local(self, digest: str) -> Path:
        """A file of this machine with the bytes, to be read alone, soon.   Raises: BlobMissing; BlobCorrupted; OSError.

        In a directory it is the blob itself; of a bucket it is a copy in the cache.
        """
        return self._found(digest, lambda: self._place.file(digest, _path(digest), lambda: self.open(digest)))

    def exists(self, digest: str) -> bool:
        """Whether it can be had, sound or not."""
        try:
            self._found(digest, lambda: obstore.head(self._store, _path(digest)))
        except BlobMissing:
            return False
        return True

    def probe(self) -> None:
        """Writes and reads one blob.   Raises: BlobsUnavailable; OSError."""
        self.get(self.put(b"probe"))

    def digests(self) -> Iterator[Stored]:
        """All that is kept, less what is set aside."""
        return self._listed(None, KEPT)

    def aside(self) -> Iterator[Stored]:
        """All that is set aside."""
        return self._listed("aside", ASIDE)

    def withdraw(self, digest: str) -> None:
        """Sets the blob aside: it is not listed any more, but whoever asks for it gets it back."""
        with suppress(BlobMissing), told(self._place.name, digest):
            self._place.forget(digest, _path(digest))
            obstore.rename(self._store, _path(digest), _aside(digest))

    def restore(self, digest: str) -> bool:
        """Brings it back if it was set aside; says whether it is there."""
        with suppress(BlobMissing), told(self._place.name, digest):
            obstore.rename(self._store, _aside(digest), _path(digest))
            self._place.settle(_path(digest))
        with suppress(BlobMissing), told(self._place.name, digest):
            obstore.head(self._store, _path(digest))
            return True
        return False

    def discard(self, digest: str) -> None:
        """Deletes what was set aside."""
        with suppress(BlobMissing), told(self._place.name, digest):
            obstore.delete(self._store, _aside(digest))

    def leftovers(self) -> Iterator[Path]:
        """Files of this machine that are no blobs: being written, or left by writers that were killed."""
        return self._place.leftovers()

    def _put(self, digest: str, data: bytes | Iterator[bytes]) -> None:
        with told(self._place.name):
            obstore.put(self._store, _path(digest), data, chunk_size=PIECE, max_concurrency=AT_ONCE)
            self._place.settle(_path(digest))

    def _found(self, digest: str, read: Callable[[], T]) -> T:
        """What `read` gives of a blob, which comes back first if it was set aside."""
        try:
            with told(self._place.name, digest):
                return read()
        except BlobMissing:
            if not self.restore(digest):
                raise
        with told(self._place.name, digest):
            return read()

    def _pieces(self, digest: str, found: GetResult) -> Iterator[bytes]:
        hashed, held = hashlib.sha256(), b""
        with told(self._place.name, digest):
            for piece in found.stream(min_chunk_size=PIECE):
                if held:
                    yield held
                held = bytes(piece)
                hashed.update(held)
        _require(hashed.hexdigest(), digest)
        yield held

    def _listed(self, prefix: str | None, names: re.Pattern[str]) -> Iterator[Stored]:
        with told(self._place.name):
            for several in obstore.list(self._store, prefix, chunk_size=1000):
                for one in several:
                    if name := names.fullmatch(one["path"]):
                        yield Stored(name["digest"], one["size"], one["last_modified"].timestamp())


def _promised(file: BinaryIO, digest: str) -> Iterator[bytes]:
    """The file's pieces; an error instead of the end if they have another digest, so that nothing is stored."""
    hashed = hashlib.sha256()
    while piece := file.read(PIECE):
        hashed.update(piece)
        yield piece
    if hashed.hexdigest() != digest:
        raise OSError("the file has changed while it was being stored")


def _require(found: str, digest: str) -> None:
    if found != digest:
        raise BlobCorrupted(digest)


def _path(digest: str) -> str:
    return f"{digest[:2]}/{digest}"


def _aside(digest: str) -> str:
    return f"aside/{digest}"


__all__ = ["BlobCorrupted", "BlobMissing", "Blobs", "BlobsUnavailable", "Stored"]
