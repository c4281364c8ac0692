"""What can be wrong with blobs.

BlobsUnavailable    the store cannot be used: not configured soundly, not there, no right, no answer, no space
BlobMissing         it holds no blob of that digest: also a FileNotFoundError
BlobCorrupted       what it holds under a digest are other bytes: also an OSError, for the file is unreadable

The first is also an error of obstore's: whoever waits out that store's troubles waits out these.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from provenn.verifier.errors import ProvennError

CODE = re.compile(r"<Code>(\w+)</Code>")
SYSTEM = re.compile(r"\(os error (\d+)\)")
CAUSES = {
    "NoSuchBucket": "the bucket does not exist",
    "AccessDenied": "access is denied",
    "InvalidAccessKeyId": "there is no such access key",
    "SignatureDoesNotMatch": "the secret key is wrong",
}
"""By what S3 calls them."""


class BlobsUnavailable(ProvennError, BaseError):
    """The store cannot be used. `reason` says why without saying where."""

    def __init__(self, place: str, reason: str) -> None:
        self.reason = reason
        super().__init__(f"blobs cannot be kept in {place}: {reason}")


class BlobMissing(ProvennError, FileNotFoundError):
    """The store has nothing under `digest`."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"there is no blob {digest}")


class BlobCorrupted(ProvennError, OSError):
    """What is stored under `digest` are other bytes: a rotten disk, or somebody's hand. They are never used."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        super().__init__(f"the blob {digest} has other bytes than it was stored with: restore it from a backup")


@contextmanager
def told(place: str, digest: str | None = None) -> Iterator[None]:
    """The store's errors, as ours.   Raises: BlobMissing for a `digest` that is not there; BlobsUnavailable."""
    try:
        yield
    except BlobsUnavailable:
        raise
    except FileNotFoundError as error:
        if digest is None or "NoSuchBucket" in str(error):
            raise BlobsUnavailable(place, _reason(error)) from error
        raise BlobMissing(digest) from error
    except BaseError as error:
        raise BlobsUnavailable(place, _reason(error)) from error


def _reason(error: Exception) -> str:
    text = str(error)
    if code := CODE.search(text):
        return CAUSES.get(code[1], f"the store answers {code[1]}")
    if system := SYSTEM.search(text):
        return os.strerror(int(system[1])).lower()
    if isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return "access is denied"
    if "169.254.169.254" in text:
        return "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_..._FILE"
    if "HTTP error" in text:
        return "the store does not answer"
    return text.splitlines()[0][:300] if text else type(error).__name__
