"""Which data a batch is about, as one digest."""

from __future__ import annotations

import hashlib

from provenn.api.batch.data import Data
from provenn.api.batch.rows import input_digest


class Digest:
    """sha256 over a line an input: the digest of its numbers, and its label."""

    def __init__(self) -> None:
        self._sum = hashlib.sha256()

    @classmethod
    def of(cls, data: Data) -> Digest:
        """Of all inputs."""
        found = cls()
        for values, label in zip(data.inputs, data.labels, strict=True):
            found.add(input_digest(values), label)
        return found

    def add(self, input_sha256: str, label: int) -> None:
        """The next input."""
        self._sum.update(f"{input_sha256} {label}\n".encode())

    def hex(self) -> str:
        """Of those that were added."""
        return self._sum.hexdigest()
