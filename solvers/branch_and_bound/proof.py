"""The proof of one case as the search leaves it, to be named after the checker's network and written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from provenn.solvers.branch_and_bound.record import Record
from provenn.solvers.branch_and_bound.rooted import Rooted
from provenn.verifier.certificate.tree import Tree
from provenn.verifier.graph import Graph


@dataclass(frozen=True, eq=False)
class CaseProof:
    """Splits and proofs of one case; roots: for every tree the part that is the whole region, and the tree's clauses.

    rows: the slopes behind the whole region's intermediate bounds, where they were optimised; open: for ReLU nodes the
    neurons that these bounds leave open.
    """

    graph: Graph
    record: Record
    roots: Sequence[tuple[int, tuple[int, ...] | None]]
    rows: Sequence[Rooted] = field(default_factory=list)
    open: Mapping[int, NDArray[np.int64]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether everything was kept."""
        return self.record.complete

    def trees(self, steps: Mapping[int, str], relus: Mapping[int, str]) -> list[Tree]:
        """By the checker's names: node of the graph -> its elementwise step; relus: of ReLUs.   Raises: KeyError."""
        readers = {i: steps[n] for n in steps for i in self.graph.nodes[n].inputs}
        own = {i: (relus[i], columns) for i, columns in self.open.items() if i in relus}
        return [replace(self.record.tree(root, readers, own), asked=asked) for root, asked in self.roots]
