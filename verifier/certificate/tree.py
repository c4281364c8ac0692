"""How a case was split, and what proves every part: what a search hands to the emitter of certificates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAF, INPUT = -1, 0
"""Values of Tree.step: no split; a split of an input coordinate."""

EMPTY = -1
"""Value of Tree.clause: nothing lies in this part, so every clause is excluded there."""


@dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree of splits in preorder (a node, all of its left subtree, all of its right one), and proofs.

    steps: names, in the checker's network, of the elementwise steps whose arguments are split.
    step int32 [nodes]: LEAF, INPUT, or i >= 1 for the argument of steps[i - 1]; neuron int32 [nodes]: which coordinate
    of it; threshold float32 [nodes]: left is value <= threshold, right is value >= threshold (0 at leaves).
    bounded bool [nodes]: where the search computed the open neurons' bounds again for this part alone. The certificate
    does so at parts whose proofs need it; here only if that is not enough.
    node int32 [proofs]: the part that is proved, a leaf or not (then for all below it); clause int32 [proofs]: which
    clause is excluded there, or EMPTY; weights float32 [proofs, rows] >= 0: which combination of the clause's rows is
    positive (padded with 0; not used where EMPTY).
    betas float32 [sum over proofs of the neuron splits above its node]: their multipliers >= 0, root first.
    open: name of a ReLU step -> coordinates int32 [open] that have slopes of their own; slopes: the same names ->
    uint8 [proofs, open], value / 255; elsewhere the checker chooses. asked: the clauses that it excludes everywhere,
    None for all.
    """

    steps: tuple[str, ...]
    step: NDArray[np.int32]
    neuron: NDArray[np.int32]
    threshold: NDArray[np.float32]
    bounded: NDArray[np.bool_]
    node: NDArray[np.int32]
    clause: NDArray[np.int32]
    weights: NDArray[np.float32]
    betas: NDArray[np.float32]
    open: Mapping[str, NDArray[np.int32]] = field(default_factory=dict)
    slopes: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    asked: tuple[int, ...] | None = None
