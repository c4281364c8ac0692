"""Trees of splits as chunks of a certificate, derived with the kernel's own code over the proofs that it will run."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.tree import INPUT, LEAF, Tree
from provenn.verifier.check import trees as kernel
from provenn.verifier.check.passes import SPLIT
from provenn.verifier.check.rounding import CertificateRejected
from provenn.verifier.check.rows import Bounds
from provenn.verifier.check.specification import Clause
from provenn.verifier.check.trees import CONTINUED

NODES, BYTES, LEVEL = 4096, 2**27, 1
"""Of one chunk: most nodes, about how much memory for their parts; how hard zlib compresses it."""

FLOOR = 2.0**-40
"""A proof must be above this share of the largest output, so that it holds on machines that round otherwise."""

FEW, MOST = 16, 1024
"""Inputs of some width up to which leaves are halved; a tree may grow by as many nodes as it has, and so many more."""

Integers = NDArray[np.int64]
Chunk = dict[str, NDArray[Any]]


class LeavesUnproved(CertificateRejected):
    """Some proofs of a tree do not hold rigorously: split their parts further.

    place: the numbers of the case and of its tree; nodes: of that Tree, or beyond its own where it was halved.
    """

    def __init__(self, place: tuple[int, int], nodes: Integers) -> None:
        self.place, self.nodes = place, np.unique(nodes)
        shown = f"proofs at {len(self.nodes)} nodes of a tree of case {place[0]}"
        super().__init__("tree", f"{shown} do not hold in rigorous arithmetic")


class ProofTooLarge(Exception):
    """The trees of a certificate need more than the budget for proofs. budget: bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        super().__init__(f"the proof is larger than the budget for proofs, {budget} bytes")


@dataclass(frozen=True, eq=False)
class Trees:
    """The trees of the cases that have some; budget: how many bytes all their chunks may have, compressed.

    halvings: how often a leaf may be halved, one after the other, where its proof does not hold. tick: called now and
    then while the certificate is made; what it raises ends that.
    """

    cases: Mapping[int, Sequence[Tree]] = field(default_factory=dict)
    budget: int = 2**30
    halvings: int = 24
    tick: Callable[[], object] = lambda: None


def write_tree(
    bounds: Bounds, clauses: tuple[Clause, ...], place: tuple[int, int], tree: Tree, budget: int, halvings: int
) -> dict[str, bytes]:
    """The chunks of a case's tree, by file name, in order, place being the numbers of both.

    Parts whose proofs need it are bounded again; leaves where even that fails are halved at an input, a few times.
    Raises: LeavesUnproved; ProofTooLarge; CertificateRejected if a clause is not excluded in some leaf; ValueError if
    the tree is not one.
    """
    proved, writer = kernel.Tree(bounds, tree.steps, clauses, tree.asked or ()), Writer(tree, bounds, halvings)
    floor = FLOOR * bounds.box(bounds.network.output).largest.max()
    files: dict[str, bytes] = {}
    unproved: list[Integers] = []
    left = budget
    for nodes, step in writer.pieces():
        for _ in range(1 + halvings):
            chunk = writer.chunk(nodes, step, proved.width)
            parts, failed = _proved(proved, writer, (nodes, step), chunk, floor)
            inner = step[failed] >= INPUT
            if not inner.any():
                break
            writer.lower(nodes[failed[inner]])
        if len(failed):
            left_over = writer.halved(nodes, step, failed, parts)
            unproved.append(nodes[left_over])
            chunk = writer.chunk(nodes, step, proved.width) | {"bounded": chunk["bounded"]}
        proved.close(parts, chunk)
        data = zlib.compress(write_payload(chunk), LEVEL)
        left -= len(data)
        if left < 0:
            raise ProofTooLarge(budget)
        files[f"tree-{place[0]}-{place[1]}-{len(files)}.safetensors.z"] = data
    failed = np.concatenate([np.zeros(0, np.int64), *unproved])
    if len(failed):
        raise LeavesUnproved(place, failed)
    return files


def _proved(
    tree: kernel.Tree, writer: Writer, piece: tuple[Integers, NDArray[np.int32]], chunk: Chunk, floor: float
) -> tuple[kernel.Nodes, Integers]:
    """The parts of a chunk, and at which its proofs fail; as few of them as can be are bounded again.

    First none is, then those whose proof fails, then, where one of an inner node still does, those above it that the
    search bounded.
    """
    nodes, step = piece
    wanted, chunk["bounded"] = chunk["bounded"], np.zeros_like(chunk["bounded"])
    parts = tree.grown(chunk)
    failed = np.flatnonzero(~(tree.margins(parts, chunk) > floor))
    for more in (False, True):
        if not len(failed) or (more and (step[chunk["node"][failed]] < INPUT).all()):
            break
        before = chunk["bounded"]
        chunk["bounded"] = before | (wanted & _above(step, chunk["node"][failed]) if more else 0)
        chunk["bounded"][chunk["node"][failed]] = 1
        again = more or (step[chunk["node"][failed]] >= INPUT).any()  # proofs elsewhere are affected
        some = np.arange(len(chunk["node"])) if again else failed
        try:
            parts = tree.grown(chunk)
        except CertificateRejected:  # parts of this network cannot be bounded again
            chunk["bounded"] = before
            break
        margins = tree.margins(parts, writer.chunk(nodes, step, tree.width, some))
        failed = some[~(margins > floor)]
    return parts, chunk["node"][failed]


def _above(step: NDArray[np.int32], some: NDArray[Any]) -> NDArray[np.uint8]:
    """Which nodes of a piece are above some of them."""
    inner = np.flatnonzero(step >= INPUT)
    parent = np.concatenate([np.full(len(step) - 2 * len(inner), -1), np.repeat(inner, 2)])
    found = np.zeros(len(step), np.uint8)
    while len(some):
        some = np.unique(parent[some])
        some = some[some >= 0]
        found[some] = 1
    return found


class Writer:
    """A tree cut into pieces by levels."""

    def __init__(self, tree: Tree, bounds: Bounds, halvings: int) -> None:
        self.tree = tree
        self.inner = tree.step >= INPUT
        self.size, self.depth = self._measured()
        counts = self.depth[tree.node]
        self.first = np.cumsum(counts) - counts
        if len(tree.betas) != counts.sum():
            raise ValueError(f"{counts.sum()} multipliers of splits are needed, not {len(tree.betas)}")
        lengths = [bounds.network.steps[i].length for i in (0, *bounds.network.bounded.values())]
        own = sum(len(columns) for columns in tree.open.values())
        each = 16 * sum(lengths) + (SPLIT.itemsize + 8) * int(self.depth.max()) + 2 * own
        self.most = int(np.clip(BYTES // each, 16, NODES))
        self.left = np.arange(len(self.inner)) + 1
        self.right = self.left + np.append(self.size, 0)[self.left]
        self.largest = MOST + 2 * len(self.inner)
        self.allowed, self.halvings = halvings, np.zeros(len(self.inner), np.int64)
        self.usual: NDArray[np.float64] | None = None

    def _measured(self) -> tuple[Integers, Integers]:
        """Of every node: how many nodes its part has with itself, and how many neurons are split above it."""
        inner, neurons = self.inner.tolist(), (self.tree.step > INPUT).tolist()
        size, depth = [1] * len(inner), [0] * len(inner)
        try:
            for i in reversed(range(len(inner))):
                if inner[i]:
                    right = i + 1 + size[i + 1]
                    size[i] = 1 + size[i + 1] + size[right]
            for i in range(len(inner)):
                if inner[i]:
                    depth[i + 1] = depth[i + 1 + size[i + 1]] = depth[i] + neurons[i]
        except IndexError:
            size[0] = 0
        if size[0] != len(inner):
            raise ValueError("the nodes are not one complete binary tree in preorder")
        return np.array(size), np.array(depth)

    def pieces(self) -> Iterator[tuple[Integers, NDArray[np.int32]]]:
        """Nodes by level, and their steps, CONTINUED where the rest is in a later piece: who takes one may add some."""
        waiting = [np.zeros(1, np.int64)]
        while waiting:
            block = waiting.pop()
            taken = max(1, int(np.searchsorted(np.cumsum(self.size[block]), self.most, side="right")))
            waiting += [block[taken:]] if taken < len(block) else []
            nodes, step = self._piece(block[:taken])
            yield nodes, step
            later = nodes[step == CONTINUED]
            waiting += [later] if len(later) else []

    def _piece(self, roots: Integers) -> tuple[Integers, NDArray[np.int32]]:
        levels, steps, count = [roots], [], len(roots)
        while len(levels[-1]):
            step = self.tree.step[levels[-1]].copy()
            inner = np.flatnonzero(step >= INPUT)
            fit = max(0, (self.most - count) // 2)
            step[inner[fit:]] = CONTINUED
            above = levels[-1][inner[:fit]]
            levels.append(np.stack([self.left[above], self.right[above]], axis=1).ravel())
            steps.append(step)
            count += len(levels[-1])
        return np.concatenate(levels), np.concatenate(steps)

    def halved(self, nodes: Integers, step: NDArray[np.int32], failed: Integers, parts: kernel.Nodes) -> Integers:
        """Halves leaves of a piece, whose halves come in a later one with the same proofs; those that it does not.

        failed: places of parts in the piece; a part is halved at the input that is widest beside that of other leaves.
        """
        failed = np.unique(failed)
        widths = (parts.boxes[0].upper - parts.boxes[0].lower)[parts.parts.inputs]
        if self.usual is None:
            self.usual = np.exp(np.log(widths[step == LEAF] + 2.0**-1000).mean(axis=0))
        lower, upper = (side[parts.parts.inputs[failed]] for side in parts.boxes[0])
        coordinate = (widths[failed] / self.usual).argmax(axis=1)
        each = np.arange(len(failed))
        middle = (0.5 * lower + 0.5 * upper)[each, coordinate].astype(np.float32)
        able = (step[failed] < INPUT) & (self.halvings[nodes[failed]] < self.allowed)
        able &= (lower[each, coordinate] < middle) & (middle < upper[each, coordinate])
        able &= (self.usual > 2.0**-999).sum() <= FEW
        able &= len(self.inner) + 2 * np.cumsum(able) <= self.largest
        chosen = nodes[failed[able]]
        step[failed[able]] = CONTINUED
        self._divide(chosen, coordinate[able], middle[able])
        return failed[~able]

    def _divide(self, nodes: Integers, coordinate: Integers, middle: NDArray[np.float32]) -> None:
        """Gives leaves two new leaves each, which get their proofs."""
        tree, count, new = self.tree, len(self.inner), np.repeat(nodes, 2)
        self.left, self.right = np.append(self.left, new), np.append(self.right, new)
        self.left[nodes], self.right[nodes] = np.arange(count, count + len(new)).reshape(-1, 2).T
        step, neuron = (np.append(a, np.zeros(len(new), a.dtype)) for a in (tree.step, tree.neuron))
        threshold = np.append(tree.threshold, np.zeros(len(new), np.float32))
        step[nodes], step[count:], neuron[nodes], threshold[nodes] = INPUT, LEAF, coordinate, middle
        self.inner, self.depth = step >= INPUT, np.append(self.depth, self.depth[new])
        self.size, self.halvings = np.append(self.size, new * 0 + 1), np.append(self.halvings, self.halvings[new] + 1)
        self.size[nodes] = 3
        bounded = np.append(tree.bounded, np.ones(len(new), bool))
        self.tree = replace(tree, step=step, neuron=neuron, threshold=threshold, bounded=bounded)
        self.lower(nodes)

    def lower(self, nodes: Integers) -> None:
        """Gives the proofs at inner nodes to both their children; a split of a neuron gets the multiplier 0."""
        tree = self.tree
        mine = np.flatnonzero(np.isin(tree.node, nodes))
        above = tree.node[mine]
        node = np.append(tree.node, self.right[above]).astype(np.int32)
        node[mine] = self.left[above]
        more, first, end = [tree.betas], self.first[mine], len(tree.betas)
        for place, (start, old, new) in enumerate(zip(first, self.depth[above], self.depth[node[mine]], strict=True)):
            if new > old:
                more += [tree.betas[start : start + old], np.zeros(new - old, np.float32)]
                first[place], end = end, end + new
        self.first[mine] = first
        self.first = np.append(self.first, first)
        self.tree = replace(
            tree,
            node=node,
            clause=np.append(tree.clause, tree.clause[mine]),
            weights=np.concatenate([tree.weights, tree.weights[mine]]),
            betas=np.concatenate(more),
            slopes={name: np.concatenate([values, values[mine]]) for name, values in tree.slopes.items()},
        )

    def chunk(self, nodes: Integers, step: NDArray[np.int32], width: int, some: Integers | None = None) -> Chunk:
        """The arrays of a piece, with all proofs of nodes that are not continued, or some of those."""
        tree, place = self.tree, np.full(len(self.inner), -1)
        place[nodes[step != CONTINUED]] = np.flatnonzero(step != CONTINUED)
        proofs = np.flatnonzero(place[tree.node] >= 0)
        proofs = proofs if some is None else proofs[some]
        counts = self.depth[tree.node[proofs]]
        starts = np.repeat(self.first[proofs] - (np.cumsum(counts) - counts), counts)
        weights = np.zeros((len(proofs), width), np.float32)
        given = tree.weights[proofs, :width]
        weights[:, : given.shape[1]] = given
        inner = nodes[step >= INPUT]
        chunk = {"step": step, "neuron": tree.neuron[inner], "threshold": tree.threshold[inner]}
        chunk |= {"bounded": tree.bounded[nodes] & (step != CONTINUED), "node": place[tree.node[proofs]]}
        chunk |= {"clause": tree.clause[proofs], "weights": weights.ravel()}
        chunk |= {"betas": tree.betas[starts + np.arange(len(starts))]}
        for name, columns in tree.open.items():
            if len(columns):
                chunk |= {f"open:{name}": columns, f"slopes:{name}": tree.slopes[name][proofs].ravel()}
        kinds: dict[str, type[np.generic]] = {
            "threshold": np.float32,
            "weights": np.float32,
            "betas": np.float32,
            "bounded": np.uint8,
        }
        kinds |= {name: np.uint8 for name in chunk if name.startswith("slopes:")}
        return {name: np.ascontiguousarray(values, kinds.get(name, np.int32)) for name, values in chunk.items()}


def claim(files: Mapping[str, bytes], tree: Tree) -> dict[str, Any]:
    """What a claim says of these chunks."""
    chunks = [[name, hashlib.sha256(data).hexdigest()] for name, data in files.items()]
    return {"kind": "tree", "steps": list(tree.steps), "chunks": chunks}
