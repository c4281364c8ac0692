"""How much of a stranger's file is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from provenn.verifier.errors import ResourceLimit


@dataclass(frozen=True)
class Limits:
    """Bytes after decompression (external data included); nodes; elements of one tensor, and of all that are folded.

    indices: positions listed by Slice, Gather and Split together; cells: of the pooling windows along one axis.
    """

    bytes: int = 512 * 2**20
    nodes: int = 20_000
    elements: int = 2**28
    folded: int = 2**29
    indices: int = 2**22
    cells: int = 2**22

    def require_bytes(self, count: int, what: str) -> None:
        """Raises: ResourceLimit if `count` bytes are too many."""
        if count > self.bytes:
            raise ResourceLimit(f"{what} ({count} bytes or more)", f"{self.bytes} bytes")

    def require_nodes(self, count: int) -> None:
        """Raises: ResourceLimit if the graph has too many nodes."""
        if count > self.nodes:
            raise ResourceLimit(f"the number of nodes ({count})", str(self.nodes))

    def require_elements(self, shape: Iterable[int], what: str) -> None:
        """Raises: ResourceLimit if a tensor of `shape` has too many elements."""
        shape = tuple(shape)
        if prod(shape) > self.elements:
            raise ResourceLimit(f"{what} of shape {_shown(shape)}", f"{self.elements} elements")


def _shown(shape: tuple[int, ...]) -> str:
    """The shape, its extents in powers of two where they are too long to read."""
    shown = [str(n) if n < 10**12 else f"2^{n.bit_length() - 1}.." for n in shape[:8]]
    return f"[{', '.join(shown)}{', ..' if len(shape) > 8 else ''}]"
