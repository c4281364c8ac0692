"""A search put on disk and taken up again: what is open, what was split, what was proved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from provenn.solvers.branch_and_bound.archive import BROKEN, Named, read, write
from provenn.solvers.branch_and_bound.queue import Domains, blocks_of, named
from provenn.solvers.branch_and_bound.record import Record
from provenn.verifier.errors import BackendError

VERSION = 2
"""Of the file's layout: another one is not read."""

LEVEL = 1
"""How hard zlib compresses it."""

HEAD = ("network", "key", "way")


@dataclass(eq=False)
class Tally:
    """What the search of one case did.

    domains: parts bounded; discarded: points that the executor called safe; stuck: parts that can be split no further,
    and lowest, the smallest margin of any; closed: the share of the region that was decided.
    """

    domains: int = 0
    discarded: int = 0
    stuck: int = 0
    lowest: float = float("inf")
    closed: float = 0.0


@dataclass(frozen=True, eq=False)
class State:
    """A search that was left off.

    way: how it splits; least: the smallest margin that was proved; open: the parts that are, on the CPU, in blocks
    that are made, or read, one at a time.
    """

    way: str
    record: Record
    tally: Tally
    least: float
    open: Iterable[Domains]

    def save(self, path: Path, network: str, key: str) -> None:
        """Replaces the file when the new one is whole and on the disk.   Raises: OSError: the old file stays."""
        beside = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            write(beside, self._arrays(network, key), LEVEL)
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)

    def _arrays(self, network: str, key: str) -> Iterator[Named]:
        for name, text in zip(HEAD, (network, key, self.way), strict=True):
            yield f"head.{name}", np.frombuffer(text.encode(), np.uint8)
        yield "head.numbers", np.array([VERSION, self.least, *astuple(self.tally)], np.float64)
        yield from ((f"record.{name}", values) for name, values in self.record.arrays())
        yield from ((f"open.{name}", values) for name, values in named(self.open))

    @classmethod
    def load(cls, path: Path, network: str, key: str) -> State:
        """The state in a file, which must stay while `open` is read.

        Raises: BackendError if it is broken, which `open` may find too, or of another network, specification or case.
        """
        texts, (least, domains, discarded, stuck, lowest, closed) = _head(path)
        if (texts["network"], texts["key"]) != (network, key):
            raise _refused(path, "holds the state of another network, specification or case")
        tally = Tally(int(domains), int(discarded), int(stuck), lowest, closed)
        return cls(texts["way"], Record.of(_read(path, "record.")), tally, least, blocks_of(_read(path, "open.")))


def names(path: Path) -> tuple[str, str]:
    """Network and key of the search in a file.   Raises: BackendError if it is broken."""
    texts, _ = _head(path)
    return texts["network"], texts["key"]


def owner(path: Path, network: str) -> str:
    """The key of the case whose state a file holds.   Raises: BackendError if it is broken, or of another network."""
    texts, _ = _head(path)
    if texts["network"] != network:
        raise _refused(path, "holds the state of another network")
    return texts["key"]


def _head(path: Path) -> tuple[Mapping[str, str], list[float]]:
    """Network, key and way, and the numbers after the version.   Raises: BackendError."""
    found = dict(_read(path, "head."))
    if not {*HEAD, "numbers"} <= found.keys() or found["numbers"][0] != VERSION:
        raise _refused(path, "holds no state of a search, or that of another version")
    texts = {name: found[name].tobytes().decode(errors="replace") for name in HEAD}
    return texts, found["numbers"][1:].tolist()


def _read(path: Path, prefix: str) -> Iterator[Named]:
    try:
        yield from read(path, prefix)
    except BROKEN as error:
        raise _refused(path, f"holds no state of a search: {error}") from error


def _refused(path: Path, why: str) -> BackendError:
    return BackendError("branch-and-bound", f"{path} {why}; give another file, or remove it to begin anew")
