"""A tree of hashes over a list, as RFC 6962 has it: one root says what all leaves are, a short path that one is there.

A leaf's hash is sha256(0x00 leaf), a node's sha256(0x01 left right); the last of an odd number of nodes goes up as it
is, which is the same as splitting before the largest power of two below the number of leaves.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence


def leaf_hash(leaf: bytes) -> bytes:
    """Of one entry."""
    return hashlib.sha256(b"\0" + leaf).digest()


def root(hashes: Sequence[bytes]) -> bytes:
    """Of the leaves with these hashes; of none sha256 of nothing."""
    if not hashes:
        return hashlib.sha256().digest()
    *_, top = _levels(hashes)
    return top[0]


def bound(claims: bytes, rows: bytes) -> bytes:
    """One root of claims about a list and of the list, whose root is `rows`: sha256(0x01 leaf_hash(claims) rows)."""
    return _node(leaf_hash(claims), rows)


def audit_path(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The nodes that lead from leaf `index` to the root, from below; at most one a level.   Raises: IndexError."""
    if not 0 <= index < len(hashes):
        raise IndexError(f"there is no leaf {index} among {len(hashes)}")
    path = []
    for level in _levels(hashes):
        sibling = index ^ 1
        if sibling < len(level):
            path.append(level[sibling])
        index //= 2
    return path


def root_by_path(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """The root of the tree of `size` leaves whose leaf `index` has this hash; None if the path has not its length."""
    if not 0 <= index < size:
        return None
    found, last, steps = leaf, size - 1, iter(path)
    while last > 0:
        if index % 2 == 1 or index < last:
            sibling = next(steps, None)
            if sibling is None:
                return None
            found = _node(sibling, found) if index % 2 == 1 else _node(found, sibling)
        index, last = index // 2, last // 2
    return found if next(steps, None) is None else None


def _levels(hashes: Sequence[bytes]) -> Iterator[list[bytes]]:
    """From the leaves to the root."""
    level = list(hashes)
    yield level
    while len(level) > 1:
        pairs = [_node(left, right) for left, right in zip(level[::2], level[1::2], strict=False)]
        level = pairs + level[2 * len(pairs) :]
        yield level


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
