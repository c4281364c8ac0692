"""Where blobs are kept: a directory of this machine, or a bucket of an S3-compatible store that several share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from provenn.api.blob_cache import Cache, digest_of
from provenn.api.blob_errors import BlobCorrupted, BlobsUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

SECRETS = {
    "AWS_ACCESS_KEY_ID": "access_key_id",
    "AWS_SECRET_ACCESS_KEY": "secret_access_key",
    "AWS_SESSION_TOKEN": "session_token",
}
"""Variables whose values may also be in a file, named by the variable with _FILE behind it; and the store's names."""
PATIENCE = timedelta(seconds=15)
"""For one operation on a bucket: longer troubles are the caller's to wait out."""


class Place(Protocol):
    """name: for messages."""

    name: str

    @property
    def store(self) -> ObjectStore:
        """Reads and writes."""

    def settle(self, path: str) -> None:
        """What was put under this path survives a loss of power."""

    def file(self, digest: str, path: str, pieces: Callable[[], Iterable[bytes]]) -> Path:
        """A file of this machine with the blob's bytes, checked.   Raises: as `pieces`; BlobCorrupted; OSError."""

    def forget(self, digest: str, path: str) -> None:
        """Before the blob is set aside: from now on it is as young there as a new one."""

    def leftovers(self) -> Iterator[Path]:
        """Files of this machine that are no blobs: being written, or left by writers that were killed."""


class Directory:
    """Files below a folder, each under a temporary name until it is whole."""

    def __init__(self, folder: Path) -> None:
        self.name, self._folder = str(folder), folder
        self.store = LocalStore(prefix=folder, mkdir=True)
        self._flushed: set[Path] = set()

    def settle(self, path: str) -> None:
        """The file and its name are on the disk.

        obstore renames without flushing, so after a loss of power an empty file could bear a row's digest. That the
        name comes first does not matter: nobody relies on a blob before `put` has returned. (A file that is gone again
        has just been set aside as an old one, and comes back when it is asked for.)
        """
        whole = self._folder / path
        with suppress(FileNotFoundError):
            _flush(whole)
        _flush(whole.parent)
        if whole.parent not in self._flushed:  # it may be new itself
            _flush(self._folder)
            self._flushed.add(whole.parent)

    def file(self, digest: str, path: str, pieces: Callable[[], Iterable[bytes]]) -> Path:
        """The blob itself."""
        whole = self._folder / path
        if digest_of(whole) != digest:
            raise BlobCorrupted(digest)
        return whole

    def forget(self, digest: str, path: str) -> None:
        """A renamed file keeps its time, so it gets the new one first."""
        os.utime(self._folder / path)

    def leftovers(self) -> Iterator[Path]:
        """Temporary files of obstore, `DIGEST#NUMBER`, and those of version 0.1."""
        yield from chain(self._folder.glob("??/*#*"), self._folder.glob("incoming/*"))


class Bucket:
    """Objects below a prefix, with a cache of files in `folder`. The store removes what killed writers leave."""

    def __init__(self, url: str, endpoint: str | None, region: str | None, cache: Cache) -> None:
        """Raises: BlobsUnavailable if the URL, or a file of credentials, is not usable."""
        self.name, self._cache = f"{url} at {endpoint}" if endpoint else url, cache
        parts = urlsplit(url)
        if parts.scheme != "s3" or not parts.netloc or parts.query or parts.fragment:
            raise BlobsUnavailable(
                self.name, "PROVENN_BLOBS is to be s3://BUCKET, s3://BUCKET/PREFIX or file:///FOLDER"
            )
        config: S3Config = {"disable_bulk_delete": True}  # not every store has it
        for key, value in (("endpoint", endpoint), ("region", region)):
            if value is not None:
                config[key] = value  # type: ignore[literal-required]
        client: ClientConfig = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "1h"}
        if endpoint is not None and endpoint.startswith("http://"):
            client["allow_http"] = True
        retries: RetryConfig = {"max_retries": 3, "retry_timeout": PATIENCE}
        try:
            self.store = S3Store(
                parts.netloc,
                prefix=parts.path.strip("/") or None,
                config=config | _secrets(self.name),
                client_options=client,
                retry_config=retries,
            )
        except (BaseError, ValueError) as error:
            raise BlobsUnavailable(self.name, str(error).splitlines()[0]) from error

    def settle(self, path: str) -> None:
        """A store that has answered has kept it."""

    def file(self, digest: str, path: str, pieces: Callable[[], Iterable[bytes]]) -> Path:
        """The cache's."""
        return self._cache.file(digest, pieces)

    def forget(self, digest: str, path: str) -> None:
        """The cache does. A moved object is a new one."""
        self._cache.forget(digest)

    def leftovers(self) -> Iterator[Path]:
        """The cache's."""
        return self._cache.unfinished()


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _secrets(place: str) -> S3Config:
    """Credentials in files; those in variables obstore reads itself.   Raises: BlobsUnavailable."""
    found: S3Config = {}
    for variable, name in SECRETS.items():
        if path := os.environ.get(f"{variable}_FILE"):
            try:
                found[name] = Path(path).read_text().strip()  # type: ignore[literal-required]
            except (OSError, UnicodeDecodeError) as error:
                reason = f"{variable}_FILE={path} cannot be read ({type(error).__name__})"
                raise BlobsUnavailable(place, reason) from error
    return found
