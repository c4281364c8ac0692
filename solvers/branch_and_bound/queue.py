"""Domains waiting to be split: a priority queue of struct-of-arrays rows, whose tail goes to disk beyond a budget."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

MEMORY = 1024.0
"""MiB of domains held in memory, by default."""

FIRST = 256
"""Rows that a queue has room for at first."""


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


def joined(parts: Sequence[Domains]) -> Domains:
    """All rows; those with fewer columns in a two-dimensional field are padded with -1 (whole numbers) or 0."""
    together = {}
    for name in parts[0].fields:
        width = max(part[name].shape[1] for part in parts) if parts[0][name].dim() == 2 else 0
        together[name] = torch.cat([widened(part[name], width) for part in parts])
    return Domains(together)


def widened(values: Tensor, width: int) -> Tensor:
    """At least `width` columns, those that are new -1 for int64 and 0 else, where there are two axes."""
    if values.dim() != 2 or values.shape[1] >= width:
        return values
    return torch.nn.functional.pad(values, (0, width - values.shape[1]), value=-1 if values.dtype == torch.int64 else 0)


class Queue:
    """The smallest margin first; ties in the order of arrival. Rows live in tensors that grow by doubling.

    memory: MiB of rows beyond which the half with the largest margins moves to a file; it comes back when all else is
    decided. Time: O(log n) a row; memory: `memory` MiB, twice that while it grows.
    """

    def __init__(self, memory: float = MEMORY) -> None:
        self._limit = memory * 2**20
        self._rows: dict[str, Tensor] = {}
        self._free: list[int] = []
        self._heap: list[tuple[float, int, int]] = []
        self._arrived = 0
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._spilled: list[tuple[float, int, Path]] = []

    def __len__(self) -> int:
        return len(self._heap) + sum(count for _, count, _ in self._spilled)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Removes the files."""
        if self._folder is not None:
            self._folder.cleanup()

    @property
    def lowest(self) -> float:
        """The smallest margin of all; infinity of none."""
        first = [self._heap[0][0]] if self._heap else []
        return min([*first, *(margin for margin, _, _ in self._spilled)], default=np.inf)

    def push(self, domains: Domains, spill: bool = True) -> None:
        """Adds rows; where they are too many for memory and spill, some go to disk, if that has room."""
        if not len(domains):
            return
        slots = self._slots(domains)
        where = torch.tensor(slots, device=domains["id"].device)
        for name, values in domains.fields.items():
            self._rows[name][where] = widened(values, self._rows[name].shape[1] if values.dim() == 2 else 0)
        for slot, margin in zip(slots, domains["margin"].tolist(), strict=True):
            heapq.heappush(self._heap, (margin, self._arrived, slot))
            self._arrived += 1
        if spill and len(self._heap) > 1 and len(self._heap) * self._bytes_a_row() > self._limit:
            with suppress(OSError):  # a full disk: they stay in memory
                self._spill()

    def pop(self, count: int) -> Domains:
        """Takes the `count` rows with the smallest margins, fewer if there are not so many; at least one must be."""
        if not self._heap:
            self._load()
        first = heapq.nsmallest(count, self._heap)
        rows = self._rows_at([slot for _, _, slot in first])
        for _ in first:
            self._free.append(heapq.heappop(self._heap)[2])
        return rows

    def everything(self) -> Domains | None:
        """All rows, which stay in the queue; None if there are none."""
        parts = [_read(path, self._device()) for _, _, path in self._spilled]
        slots = [slot for _, _, slot in sorted(self._heap)]
        if slots:
            where = torch.tensor(slots, device=self._device())
            parts.insert(0, Domains({name: values[where] for name, values in self._rows.items()}))
        return joined(parts) if parts else None

    def _device(self) -> torch.device:
        return self._rows["id"].device

    def _bytes_a_row(self) -> int:
        return sum(values[0].numel() * values.itemsize for values in self._rows.values())

    def _rows_at(self, slots: list[int]) -> Domains:
        where = torch.tensor(slots, device=self._device())
        return Domains({name: values[where] for name, values in self._rows.items()})

    def _slots(self, domains: Domains) -> list[int]:
        """Free rows for all of them, after making room."""
        if not self._rows:
            self._rows = {name: values[:0] for name, values in domains.fields.items()}
        for name, values in domains.fields.items():
            self._rows[name] = widened(self._rows[name], values.shape[1] if values.dim() == 2 else 0)
        capacity = len(self._rows["id"])
        while len(self._free) < len(domains):
            more = max(FIRST, capacity)
            self._rows = {n: torch.cat([v, v.new_zeros((more, *v.shape[1:]))]) for n, v in self._rows.items()}
            self._free += range(capacity + more - 1, capacity - 1, -1)
            capacity += more
        return [self._free.pop() for _ in range(len(domains))]

    def _spill(self) -> None:
        """The half with the largest margins goes to a file."""
        ordered = sorted(self._heap)
        kept, tail = ordered[: (len(ordered) + 1) // 2], ordered[(len(ordered) + 1) // 2 :]
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="provenn-queue-")
        path = Path(self._folder.name) / f"{self._arrived}.npz"
        _write(path, self._rows_at([slot for _, _, slot in tail]))
        self._heap = kept
        self._free += [slot for _, _, slot in tail]
        self._spilled.append((tail[0][0], len(tail), path))

    def _load(self) -> None:
        """The file with the smallest margin comes back."""
        best = min(range(len(self._spilled)), key=lambda i: self._spilled[i][0])
        path = self._spilled[best][2]
        self.push(_read(path, self._device()), spill=False)
        self._spilled.pop(best)
        path.unlink()


def _write(path: Path, domains: Domains) -> None:
    with path.open("wb") as file:
        arrays: dict[str, Any] = {name: values.cpu().numpy() for name, values in domains.fields.items()}
        np.savez(file, **arrays)


def _read(path: Path, device: torch.device) -> Domains:
    with np.load(path, allow_pickle=False) as stored:
        return Domains({name: torch.from_numpy(stored[name]).to(device) for name in stored.files})
