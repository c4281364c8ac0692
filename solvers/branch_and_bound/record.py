"""What was split and what proved every part, kept while the search runs: the proof's raw material."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from provenn.solvers.branch_and_bound.archive import BLOCK, Named
from provenn.verifier.certificate.tree import INPUT, LEAF, Tree

MEMORY = 512.0
"""MiB of proofs that are kept, by default; beyond them the search goes on without a proof."""

WHOLE = 2.0**-10
"""Roundings of a share that has been added up."""

Int = NDArray[np.int64]

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Splits:
    """Parts that were cut in two: id, left, right [n]; variable (node of the graph, coordinate) [n]; threshold [n].

    Left is value <= threshold, right is value >= threshold; node 0 is the input.
    """

    id: Int
    left: Int
    right: Int
    node: Int
    neuron: Int
    threshold: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Proved:
    """Parts where one clause is excluded: id [n]; clause (EMPTY for all); weights [n, rows of the clause];
    slopes: node of the graph -> uint8 [n, *any] (value / 255); betas [n, splits], 0 beyond a part's own.
    """

    id: Int
    clause: int
    weights: NDArray[np.float32]
    slopes: Mapping[int, NDArray[np.uint8]]
    betas: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        own = sum(values.nbytes for values in self.slopes.values())
        return own + self.betas.nbytes + self.weights.nbytes + 16 * len(self.id)


class Record:
    """Splits and proofs of one case. complete: whether all were kept, within `memory` MiB."""

    def __init__(self, memory: float = MEMORY) -> None:
        self.complete = True
        self._left_bytes = memory * 2**20
        self._next = 0
        self._splits: list[Splits] = []
        self._proofs: list[Proved] = []
        self._bounded: list[Int] = []

    def new(self, count: int) -> Int:
        """Numbers for parts that were not there before."""
        self._next += count
        return np.arange(self._next - count, self._next)

    def split(self, splits: Splits) -> None:
        """Parts were cut in two."""
        if self._has_room(64 * len(splits.id)):
            self._splits.append(splits)

    def prove(self, proved: Proved) -> None:
        """Parts were proved for one clause."""
        if len(proved.id) and self._has_room(proved.nbytes):
            self._proofs.append(proved)

    def bound(self, ids: Int) -> None:
        """Parts whose intermediate bounds were computed for themselves."""
        if self._has_room(8 * len(ids)):
            self._bounded.append(ids)

    def mark(self) -> tuple[int, int, int, int]:
        """How much is kept now, for `back_to`."""
        return self._next, len(self._splits), len(self._proofs), len(self._bounded)

    def back_to(self, mark: tuple[int, int, int, int]) -> None:
        """Forgets what was kept since; numbers are given out again only when nothing has them any longer."""
        numbers, splits, proofs, bounded = mark
        del self._splits[splits:], self._proofs[proofs:], self._bounded[bounded:]
        self._next = numbers

    def _has_room(self, size: int) -> bool:
        """Counts the bytes; when they are used up, nothing is kept any longer."""
        self._left_bytes -= size
        if self._left_bytes < 0 and self.complete:
            self.complete = False
            self._splits, self._proofs, self._bounded = [], [], []
        return self.complete

    def continued(self) -> Record:
        """An empty record whose numbers go on where this one's end."""
        record = Record(self._left_bytes / 2**20)
        record.complete, record._next = self.complete, self._next
        return record

    @property
    def end(self) -> int:
        """The first number that is not given out."""
        return self._next

    def take_in(self, other: Record, since: int) -> int:
        """Takes in a record that was continued from this one when its numbers ended at `since`.

        Gives what is added to the other's numbers from there on.
        """
        by = self._next - since
        self._next += other._next - since
        self.complete = self.complete and other.complete
        size = sum(64 * len(s.id) for s in other._splits) + sum(p.nbytes for p in other._proofs)
        if self._has_room(size + sum(8 * len(ids) for ids in other._bounded)):
            self._splits += [
                replace(s, id=_moved(s.id, since, by), left=s.left + by, right=s.right + by) for s in other._splits
            ]
            self._proofs += [replace(p, id=_moved(p.id, since, by)) for p in other._proofs]
            self._bounded += [_moved(ids, since, by) for ids in other._bounded]
        return by

    def tree(self, root: int, names: Mapping[int, str], relus: Mapping[int, tuple[str, Int]]) -> Tree:
        """The tree below part `root` and its proofs, by the checker's names.

        names: node of the graph whose values were split -> the elementwise step that reads it; relus: ReLU node -> its
        step, and the neurons whose slopes matter.   Raises: KeyError if a split node has no name.
        """
        split = sorted({int(n) for s in self._splits for n in s.node} - {0})
        steps = tuple(names[n] for n in split)
        code = {0: INPUT} | {n: 1 + place for place, n in enumerate(split)}
        place, order, depth = self._preorder(root)
        step = np.full(len(order), LEAF, np.int32)
        neuron, threshold = np.zeros(len(order), np.int32), np.zeros(len(order), np.float32)
        for s in self._splits:
            at = place[s.id]
            mine = at >= 0
            step[at[mine]] = [code[int(n)] for n in s.node[mine]]
            neuron[at[mine]], threshold[at[mine]] = s.neuron[mine], s.threshold[mine]
        bounded = np.zeros(len(order), np.bool_)
        for ids in self._bounded:
            bounded[place[ids][place[ids] >= 0]] = True
        return Tree(steps, step, neuron, threshold, bounded, **self._proved(place, depth, relus))

    def covered(self, roots: Mapping[int, Iterable[int]]) -> bool:
        """Whether below every root every leaf, or a part above it, has a proof of each of the root's clauses."""
        left, right, _ = ({}, {}, {}) if not self._splits else self._children()
        proved: dict[int, set[int]] = {}
        for block in self._proofs:
            for part in block.id.tolist():
                proved.setdefault(part, set()).add(block.clause)
        waiting = [(root, frozenset(clauses)) for root, clauses in roots.items()]
        while waiting:
            part, asked = waiting.pop()
            asked = asked - proved.get(part, set())
            if asked and part not in left:
                return False
            waiting += [(left[part], asked), (right[part], asked)] if asked else []
        return True

    def _preorder(self, root: int) -> tuple[Int, list[int], Int]:
        """Place in preorder by id (-1: elsewhere), ids in preorder, and neuron splits above each place."""
        left, right, deeper = ({}, {}, {}) if not self._splits else self._children()
        place, stack = np.full(self._next, -1), [(root, 0)]
        order: list[int] = []
        depths: list[int] = []
        while stack:
            part, depth = stack.pop()
            place[part] = len(order)
            order.append(part)
            depths.append(depth)
            if part in left:
                below = depth + deeper[part]
                stack += [(right[part], below), (left[part], below)]
        return place, order, np.array(depths)

    def _children(self) -> tuple[dict[int, int], dict[int, int], dict[int, int]]:
        """Left and right part by id, and whether the split is of a neuron."""
        ids = np.concatenate([s.id for s in self._splits]).tolist()
        left = np.concatenate([s.left for s in self._splits]).tolist()
        right = np.concatenate([s.right for s in self._splits]).tolist()
        deeper = np.concatenate([s.node > 0 for s in self._splits]).astype(int).tolist()
        return (
            dict(zip(ids, left, strict=True)),
            dict(zip(ids, right, strict=True)),
            dict(zip(ids, deeper, strict=True)),
        )

    def _proved(self, place: Int, depth: Int, relus: Mapping[int, tuple[str, Int]]) -> dict[str, Any]:
        """The fields of a Tree that hold proofs."""
        own = [(p, m) for p in self._proofs if (m := place[p.id] >= 0).any()]
        widest = max(p.weights.shape[1] for p, _ in own)
        weights = [np.pad(p.weights[m], ((0, 0), (0, widest - p.weights.shape[1]))) for p, m in own]
        betas = [row[: depth[at]] for p, m in own for row, at in zip(p.betas[m], place[p.id][m], strict=True)]
        stored = {i: columns for i, (_, columns) in relus.items() if i in own[0][0].slopes}
        slopes = {
            i: np.concatenate([p.slopes[i][m].reshape(int(m.sum()), -1)[:, columns] for p, m in own])
            for i, columns in stored.items()
        }
        return {
            "node": np.concatenate([place[p.id][m] for p, m in own]).astype(np.int32),
            "clause": np.concatenate([np.full(int(m.sum()), p.clause, np.int32) for p, m in own]),
            "weights": np.concatenate(weights).astype(np.float32),
            "betas": np.concatenate([np.zeros(0), *betas]).astype(np.float32),
            "open": {relus[i][0]: columns.astype(np.int32) for i, columns in stored.items()},
            "slopes": {relus[i][0]: values for i, values in slopes.items()},
        }

    def arrays(self) -> Iterator[Named]:
        """Everything, for `of`, in pieces of a few MiB: many steps' rows in one."""
        yield "about", np.array([self.complete, self._next, self._left_bytes], np.float64)
        for n, splits in enumerate(_pieces(self._splits, lambda s: 64 * len(s.id), lambda s: 0)):
            for name in ("id", "left", "right", "node", "neuron", "threshold"):
                yield f"split.{n}.{name}", np.concatenate([getattr(s, name) for s in splits])
        for n, proofs in enumerate(_pieces(self._proofs, lambda p: p.nbytes, lambda p: (p.clause, *p.slopes))):
            widest = max(p.betas.shape[1] for p in proofs)
            betas = [np.pad(p.betas, ((0, 0), (0, widest - p.betas.shape[1]))) for p in proofs]
            yield f"proof.{n}.clause", np.array([proofs[0].clause])
            yield f"proof.{n}.id", np.concatenate([p.id for p in proofs])
            yield f"proof.{n}.weights", np.concatenate([p.weights for p in proofs])
            yield f"proof.{n}.betas", np.concatenate(betas)
            for i in proofs[0].slopes:
                yield f"proof.{n}.slopes.{i}", np.concatenate([p.slopes[i] for p in proofs])
        for n, ids in enumerate(_pieces(self._bounded, lambda ids: ids.nbytes, lambda ids: 0)):
            yield f"bounded.{n}", np.concatenate(ids)

    @classmethod
    def of(cls, arrays: Iterable[Named]) -> Record:
        """The record that gave the arrays."""
        record = cls()
        about = np.zeros(3)
        parts: dict[tuple[str, int], dict[str, NDArray[Any]]] = {}
        for name, values in arrays:
            kind, _, rest = name.partition(".")
            number, _, field = rest.partition(".")
            if kind == "about":
                about = values
            else:
                parts.setdefault((kind, int(number)), {})[field] = values
        for (kind, _), one in parts.items():
            if kind == "split":
                record._splits.append(Splits(**one))
            elif kind == "proof":
                slopes = {int(name[7:]): values for name, values in one.items() if name.startswith("slopes.")}
                proved = Proved(one["id"], int(one["clause"][0]), one["weights"], slopes, one["betas"])
                record._proofs.append(proved)
            else:
                record._bounded.append(one[""])
        complete, numbers, room = about.tolist()
        record.complete, record._next, record._left_bytes = bool(complete), int(numbers), room
        return record


def _moved(ids: Int, first: int, by: int) -> Int:
    return np.where(ids >= first, ids + by, ids)


def _pieces(blocks: Iterable[T], size: Callable[[T], int], kind: Callable[[T], Hashable]) -> Iterator[list[T]]:
    """Blocks of one kind together, in their order, until they are BLOCK MiB; size: bytes of one."""
    waiting: dict[Hashable, tuple[list[T], int]] = {}
    for block in blocks:
        some, total = waiting.get(kind(block), ([], 0))
        some.append(block)
        waiting[kind(block)] = some, total + size(block)
        if total + size(block) >= BLOCK * 2**20:
            yield waiting.pop(kind(block))[0]
    yield from (some for some, _ in waiting.values())
