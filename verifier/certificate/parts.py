"""Parts of a region, split by the kernel's own code: what a search for the largest derivative grows, and writes down.

The kernel bounds the open neurons of every part again (verifier.check.forms), here as in the check of the tree, which
so finds in a part what was found here, up to rounding.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linprog

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.tree import EMPTY, LEAF
from provenn.verifier.certificate.tree import Tree as Written
from provenn.verifier.certificate.trees import LEVEL, Writer
from provenn.verifier.check.forms import Block, Forms
from provenn.verifier.check.jacobian import parts
from provenn.verifier.check.network import Elementwise, MaxPool
from provenn.verifier.check.passes import SPLIT, Parts, Passes
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Clause
from provenn.verifier.check.trees import Nodes, Tree

Numbers = NDArray[np.float64]

ANYTHING = (Clause((), ()),)
"""The clause of a tree that is about no specification: only emptiness excludes it."""

LARGEST = 1 << 22
"""Entries of the linear programs that look for emptiness: larger ones are not tried."""


@dataclass(frozen=True)
class Split:
    """value <= threshold on one side, value >= threshold on the other; of an input, or of an argument of a function.

    step: 0 for the input, else 1 + the place of the function's step in `Partition.steps`.
    """

    step: int
    neuron: int
    threshold: float


@dataclass(eq=False)
class Part:
    """A node of the tree.

    nodes, bounds: what the kernel knows of it; bounds None: nothing lies there. betas: multipliers of the splits above
    it that show that too.
    """

    nodes: Nodes
    bounds: Bounds | None
    split: Split | None = None
    halves: tuple[Part, Part] | None = None
    betas: Numbers | None = None


class Partition:
    """A region, and what it is split into: `parts` of them.

    Raises: CertificateRejected for networks with max-pooling, whose parts the kernel does not bound.
    """

    def __init__(self, bounds: Bounds) -> None:
        if any(isinstance(step, MaxPool) for step in bounds.network.steps):
            raise CertificateRejected("tree", "max-pooling is not bounded again for parts")
        self.bounds, self.parts = bounds, 1
        steps = bounds.network.steps
        self.steps = tuple(step.name for step in steps if isinstance(step, Elementwise) and step.sources[0])
        self._kernel = Tree(bounds, self.steps, ANYTHING, (0,))
        self.root = Part(self._kernel.waiting[0], bounds)

    def halves(self, whole: Sequence[Part], splits: Sequence[Split]) -> list[tuple[Part, Part]]:
        """Both sides of a split of each part; the parts stay as they are.

        Raises: CertificateRejected for networks that are too large for bounds of parts.
        """
        count = len(whole)
        self._kernel.waiting = [_joined([part.nodes for part in whole])]
        chunk: dict[str, NDArray[Any]] = {
            "step": np.array([*(split.step for split in splits), *[LEAF] * (2 * count)], np.int32),
            "neuron": np.array([split.neuron for split in splits], np.int32),
            "threshold": np.array([split.threshold for split in splits], np.float32),
            "bounded": np.repeat(np.array([0, 1], np.uint8), [count, 2 * count]),
        }
        chunk |= {name: np.zeros(0, np.int32) for name in ("node", "clause")}
        chunk |= {name: np.zeros(0, np.float32) for name in ("weights", "betas")}
        grown = self._kernel.grown(chunk)
        grown = grown.of(slice(count, None))
        made = [Part(grown.of(slice(k, k + 1)), known) for k, known in enumerate(parts(self.bounds, grown))]
        return list(zip(made[::2], made[1::2], strict=True))

    def divide(self, part: Part, split: Split, halves: tuple[Part, Part]) -> None:
        """Takes these halves of a part into the tree."""
        part.split, part.halves, part.bounds = split, halves, None
        self.parts += 1

    def emptied(self, part: Part) -> bool:
        """Whether the splits above a part exclude each other, by multipliers of theirs that the kernel accepts.

        A linear program over the part's symbols (verifier.check.forms): the largest t such that every split holds with
        t to spare. Its dual values are the multipliers.
        """
        path = part.nodes.parts.path[0, : part.nodes.depth[0]]
        if part.bounds is None or len(path) < 2:
            return part.bounds is None
        program = self._program(part.bounds, path)
        if program is None:
            return False
        found = linprog(**program, method="highs")
        if found.status != 0 or found.x[-1] >= 0:
            return False
        betas = np.maximum(-found.ineqlin.marginals[: len(path)], 0.0).astype(np.float32)
        rows = np.zeros((1, self.bounds.network.steps[self.bounds.network.output].length))
        passes = Passes(self.bounds, part.nodes.boxes)
        with np.errstate(all="ignore"):
            given = betas[None].astype(np.float64)
            low = passes.lower_bounds(self.bounds.network.output, rows, part.nodes.parts, None, given)
        if not low[0] > np.finfo(np.float32).tiny:
            return False
        part.betas, part.bounds = betas, None
        return True

    def inside(self, part: Part) -> Numbers | None:
        """A point that lies in a part, far from its ends, as far as the program of `emptied` says; None for a part
        where nothing lies.
        """
        if part.bounds is None:
            return None
        lower, upper = part.bounds.boxes[0]
        path = part.nodes.parts.path[0, : part.nodes.depth[0]]
        program = self._program(part.bounds, path) if len(path) else None
        centre: Numbers = 0.5 * lower + 0.5 * upper
        if program is None:
            return centre
        n, size = len(lower), len(program["c"])
        walls = np.zeros((2 * n, size))
        walls[:n, :n], walls[n:, :n], walls[:, -1] = -np.eye(n), np.eye(n), np.tile(upper - lower, 2)
        program["A_ub"] = np.concatenate([program["A_ub"], walls])
        program["b_ub"] = np.concatenate([program["b_ub"], -lower, upper])
        found = linprog(**program, method="highs")
        return np.clip(found.x[:n], lower, upper) if found.status == 0 else centre

    def _program(self, bounds: Bounds, path: NDArray[Any]) -> dict[str, Any] | None:
        """Over the symbols and t, as scipy's linprog takes it; None if it is too large."""
        forms, steps = Forms(self.bounds, Box(*(side[:, None] for side in bounds.boxes[0]))), bounds.network.steps
        rows: list[tuple[Numbers, float]] = []
        for index in range(1, int(path["value"].max()) + 1):
            box = bounds.boxes.get(steps[index].sources[0])
            forms.add(index, box and Box(*(side[:, None] for side in box)))
        size = len(forms.symbols.lower) + 1
        if size * (len(path) + 4 * size) > LARGEST:
            return None
        for split in path:
            (c, G, _), n, side = forms.forms[split["value"]], split["neuron"], float(split["side"])
            spare = float(bounds.boxes[split["value"]].largest[n]) or 1.0
            row = np.zeros(size)
            row[: len(G)], row[-1] = -side * G[:, n, 0], spare
            rows.append((row, side * (c[n, 0] - split["threshold"])))
        rows += _lines(forms.blocks, len(bounds.boxes[0].lower), size)
        matrix, right = zip(*rows, strict=True)
        ends = [*zip(bounds.boxes[0].lower, bounds.boxes[0].upper, strict=True)]
        ends += [(None, None)] * (size - 1 - len(ends)) + [(None, 1.0)]
        return {"c": -np.eye(1, size, size - 1)[0], "A_ub": np.array(matrix), "b_ub": right, "bounds": ends}

    def written(self) -> list[bytes]:
        """The tree's chunks for a certificate."""
        order = list(self._preorder())
        numbers = {id(part): number for number, part in enumerate(order)}
        splits = [part.split or Split(LEAF, 0, 0.0) for part in order]
        empty = [part for part in order if part.betas is not None]
        betas = np.concatenate([np.zeros(0), *(part.betas for part in empty if part.betas is not None)])
        tree = Written(
            self.steps,
            np.array([split.step for split in splits], np.int32),
            np.array([split.neuron for split in splits], np.int32),
            np.array([split.threshold for split in splits], np.float32),
            np.arange(len(order)) > 0,
            np.array([numbers[id(part)] for part in empty], np.int32),
            np.full(len(empty), EMPTY, np.int32),
            np.zeros((len(empty), 1), np.float32),
            betas.astype(np.float32),
            asked=(0,),
        )
        writer = Writer(tree, self.bounds, 0)
        return [zlib.compress(write_payload(writer.chunk(*piece, 1)), LEVEL) for piece in writer.pieces()]

    def _preorder(self) -> Iterator[Part]:
        waiting = [self.root]
        while waiting:
            part = waiting.pop()
            yield part
            waiting += reversed(part.halves or ())


def _lines(blocks: Sequence[Block], inputs: int, size: int) -> Iterator[tuple[Numbers, float]]:
    """That the symbols y of functions lie between their lines: a z + k <= y <= a' z + k', as rows and right sides."""
    symbol = inputs
    for (c, G, _), line, _ in blocks:
        for k in range(len(c)):
            ends = [(p[k, 0], z[k, 0]) for z, p in zip(line.points, line.values, strict=True)]
            for slope, sign in ((line.below[k, 0], 1), (line.above[k, 0], -1)):
                intercept = min(sign * (p - slope * z) for p, z in ends) - line.radius[k, 0]
                row = np.zeros(size)
                row[: len(G)], row[symbol] = sign * slope * G[:, k, 0], -sign
                yield row, -intercept - sign * slope * c[k, 0]
            symbol += 1


def _joined(each: Sequence[Nodes]) -> Nodes:
    """Single parts together."""
    depth = np.concatenate([nodes.depth for nodes in each])
    path = np.zeros((len(each), depth.max(initial=0)), SPLIT)
    for row, nodes in zip(path, each, strict=True):
        row[: nodes.depth[0]] = nodes.parts.path[0, : nodes.depth[0]]
    places = np.arange(len(each))
    boxes = {
        i: Box(*(np.concatenate(sides) for sides in zip(*(nodes.boxes[i] for nodes in each), strict=True)))
        for i in each[0].boxes
    }
    return Nodes(Parts(places, places, path), boxes, depth, np.zeros((len(each), 1), bool))
