"""Domains waiting to be split: a priority queue of struct-of-arrays rows, whose tail goes to disk beyond a budget."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from provenn.solvers.branch_and_bound.archive import BLOCK, BROKEN, Named, read, write
from provenn.verifier.errors import BackendError

MEMORY = 1024.0
"""MiB of domains held in memory, by default."""

FIRST = 256
"""Rows that a queue has room for at first."""

Entry = tuple[float, int, int]
"""Margin, number of arrival, and slot of a row."""


@dataclass(frozen=True, eq=False)
class Domains:
    """Parts of a region that are still open, one a row of every tensor.

    fields: tensors [domains, *any] by name. Always there: `id` (int64, the record's number of the part) and `margin`
    (the largest proved lower bound so far of what must be positive).
    """

    fields: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(self.fields["id"])

    def __getitem__(self, name: str) -> Tensor:
        return self.fields[name]

    def select(self, index: Tensor) -> Domains:
        """The rows at `index`."""
        return Domains({name: values[index] for name, values in self.fields.items()})

    def replaced(self, **fields: Tensor) -> Domains:
        """The same rows with some fields new."""
        return Domains({**self.fields, **fields})

    def to(self, device: torch.device) -> Domains:
        """The same rows on a device."""
        return Domains({name: values.to(device) for name, values in self.fields.items()})


def named(blocks: Iterable[Domains]) -> Iterator[Named]:
    """The fields of every block under its number, to be written."""
    for number, block in enumerate(blocks):
        for name, values in block.fields.items():
            yield f"{number}.{name}", values.numpy(force=True)


def blocks_of(arrays: Iterable[Named]) -> Iterator[Domains]:
    """The blocks that gave the arrays, on the CPU, one at a time."""
    for _, block in groupby(arrays, key=lambda array: array[0].partition(".")[0]):
        yield Domains({name.partition(".")[2]: torch.from_numpy(values) for name, values in block})


def widened(values: Tensor, width: int) -> Tensor:
    """At least `width` columns, those that are new -1 for int64 and 0 else, where there are two axes."""
    if values.dim() != 2 or values.shape[1] >= width:
        return values
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=-1 if values.dtype == torch.int64 else 0)


@dataclass(frozen=True)
class Spilled:
    """Rows in a file: the smallest margin, and how many there are."""

    margin: float
    count: int
    path: Path


class Queue:
    """The smallest margin first; ties in the order of arrival. Rows live in tensors that grow by doubling.

    memory: MiB of rows beyond which the half with the largest margins moves to a file; it comes back when all else is
    decided. Every row is reachable at every moment: whatever interrupts whichever method, `blocks` has them all, some
    perhaps twice. Time: O(log n) a row; memory: `memory` MiB, twice that while it grows.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        self._limit = memory * 2**20
        self._rows: dict[str, Tensor] = {}
        self._free: list[int] = []
        self._heap: list[Entry] = []
        self._taken: list[Entry] = []
        self._arrived = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spilled: list[Spilled] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._heap) + len(self._taken) + sum(spilled.count for spilled in self._spilled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the files."""
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def lowest(self) -> float:
        """The smallest margin of all, -infinity where one is no number; infinity of none."""
        waiting = [entry[0] for entry in (*self._heap[:1], *self._taken)]
        return min([*waiting, *(spilled.margin for spilled in self._spilled)], default=np.inf)

    def push(self, domains: Domains) -> None:
        """Adds rows; where they are too many for memory, some go to disk, if that has room."""
        for entry in self._stored(domains):
            heapq.heappush(self._heap, entry)
        if len(self._heap) > 1 and len(self._heap) * self._bytes_a_row() > self._limit:
            self._spill()

    def take(self, count: int) -> Domains:
        """The `count` rows with the smallest margins, fewer if there are not so many; at least one must be.

        They stay in the queue until `done`; no others are taken before.   Raises: BackendError if a file is damaged.
        """
        if not self._heap:
            self._load()
        while self._heap and len(self._taken) < count:
            self._taken.append(self._heap[0])
            heapq.heappop(self._heap)
        return self._rows_at([slot for _, _, slot in self._taken])

    def done(self) -> None:
        """What was taken leaves the queue."""
        slots = [slot for _, _, slot in self._taken]
        self._taken = []
        self._free += slots

    def blocks(self) -> Iterator[Domains]:
        """All rows, which stay in the queue, on the CPU, a few MiB at a time.   Raises: BackendError as `take` does."""
        yield from self._blocks(sorted({*self._taken, *self._heap}))
        for spilled in self._spilled:
            yield from _read(spilled)

    def _blocks(self, entries: Sequence[Entry]) -> Iterator[Domains]:
        size = max(1, int(BLOCK * 2**20 / self._bytes_a_row())) if entries else 1
        for first in range(0, len(entries), size):
            yield self._rows_at([slot for _, _, slot in entries[first : first + size]]).to(torch.device("cpu"))

    def _bytes_a_row(self) -> int:
        return sum(values[0].numel() * values.itemsize for values in self._rows.values())

    def _rows_at(self, slots: list[int]) -> Domains:
        where = torch.tensor(slots, device=self._rows["id"].device)
        return Domains({name: values[where] for name, values in self._rows.items()})

    def _stored(self, domains: Domains) -> list[Entry]:
        """Puts rows into free slots; what the heap is to know of them."""
        if not len(domains):
            return []
        slots = self._slots(domains)
        where = torch.tensor(slots, device=domains["id"].device)
        for name, values in domains.fields.items():
            self._rows[name][where] = widened(values, self._rows[name].shape[1] if values.dim() == 2 else 0)
        margins = domains["margin"].nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).tolist()
        first, self._arrived = self._arrived, self._arrived + len(slots)
        return list(zip(margins, range(first, self._arrived), slots, strict=True))

    def _slots(self, domains: Domains) -> list[int]:
        """Free rows for all of them, after making room."""
        if not self._rows:
            self._rows = {name: values[:0] for name, values in domains.fields.items()}
        # All at once: fields that belong together have as many columns wherever an interrupt comes.
        self._rows = {
            name: widened(self._rows[name], values.shape[1] if values.dim() == 2 else 0)
            for name, values in domains.fields.items()
        }
        capacity = len(self._rows["id"])
        while len(self._free) < len(domains):
            more = max(FIRST, capacity)
            self._rows = {n: torch.cat([v, v.new_zeros((more, *v.shape[1:]))]) for n, v in self._rows.items()}
            self._free += range(capacity + more - 1, capacity - 1, -1)
            capacity += more
        return [self._free.pop() for _ in range(len(domains))]

    def _spill(self) -> None:
        """The half with the largest margins goes to a file; where the disk is full it stays in memory."""
        ordered = sorted(self._heap)
        kept, tail = ordered[: (len(ordered) + 1) // 2], ordered[(len(ordered) + 1) // 2 :]
        path = None
        try:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="provenn-queue-")
            path = Path(self._folder.name) / f"{next(self._numbers)}.parts"
            write(path, named(self._blocks(tail)))
        except OSError:
            if path is not None:
                path.unlink(missing_ok=True)
            return
        # In this order: an interrupt between the two leaves rows twice, not nowhere.
        self._spilled.append(Spilled(tail[0][0], len(tail), path))
        self._heap = kept
        self._free += [slot for _, _, slot in tail]

    def _load(self) -> None:
        """The file with the smallest margin comes back, all of it or nothing."""
        best = min(self._spilled, key=lambda spilled: spilled.margin)
        device = self._rows["id"].device
        entries = [entry for block in _read(best) for entry in self._stored(block.to(device))]
        heapq.heapify(entries)
        self._heap = entries
        self._spilled.remove(best)
        best.path.unlink()


def _read(spilled: Spilled) -> Iterator[Domains]:
    """The rows of a file.   Raises: BackendError if it is damaged: a row that is lost would count as proved."""
    found = 0
    try:
        for block in blocks_of(read(spilled.path)):
            found += len(block)
            yield block
    except BROKEN as error:
        raise _damaged(spilled, str(error)) from error
    if found != spilled.count:
        raise _damaged(spilled, f"it has {found} parts instead of {spilled.count}")


def _damaged(spilled: Spilled, why: str) -> BackendError:
    reason = f"open parts that were put on disk cannot be read again ({spilled.path}: {why})"
    return BackendError("branch-and-bound", f"{reason}; without them nothing can be proved: search again")
