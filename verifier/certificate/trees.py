"""Trees of splits as chunks of a certificate, derived with the kernel's own code over the proofs that it will run."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.certificate.tree import INPUT, Tree
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

Integers = NDArray[np.int64]
Chunk = dict[str, NDArray[Any]]


class LeavesUnproved(CertificateRejected):
    """Some proofs of a tree do not hold rigorously: split their parts further. nodes [any]: of the case's Tree."""

    def __init__(self, case: int, nodes: Integers, proofs: int) -> None:
        self.case, self.nodes = case, np.unique(nodes)
        super().__init__("tree", f"{len(nodes)} of {proofs} proofs of case {case} do not hold in rigorous arithmetic")


class ProofTooLarge(Exception):
    """The trees of a certificate need more than the budget for proofs. budget: bytes."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        super().__init__(f"the proof is larger than the budget for proofs, {budget} bytes")


@dataclass(frozen=True, eq=False)
class Trees:
    """The trees of the cases that have one, and how many bytes all their chunks may have, compressed."""

    cases: Mapping[int, Tree] = field(default_factory=dict)
    budget: int = 2**30


def write_tree(bounds: Bounds, clauses: tuple[Clause, ...], number: int, tree: Tree, budget: int) -> dict[str, bytes]:
    """The chunks of case `number`, by file name, in order; proofs that need it get `bounded` parts.

    Raises: LeavesUnproved; ProofTooLarge; CertificateRejected if a clause is not excluded in some leaf; ValueError if
    the tree is not one.
    """
    proved, writer = kernel.Tree(bounds, tree.steps, clauses), _Writer(tree, bounds)
    floor = FLOOR * bounds.box(bounds.network.output).largest.max()
    files: dict[str, bytes] = {}
    unproved: list[Integers] = []
    left = budget
    for nodes, step in writer.pieces():
        chunk = writer.chunk(nodes, step, proved.width)
        parts, failed = _proved(proved, writer, (nodes, step), chunk, floor)
        unproved.append(nodes[failed])
        proved.close(parts, chunk)
        data = zlib.compress(write_payload(chunk), LEVEL)
        left -= len(data)
        if left < 0:
            raise ProofTooLarge(budget)
        files[f"tree-{number}-{len(files)}.safetensors.z"] = data
    failed = np.concatenate([np.zeros(0, np.int64), *unproved])
    if len(failed):
        raise LeavesUnproved(number, failed, len(tree.node))
    return files


def _proved(
    tree: kernel.Tree, writer: _Writer, piece: tuple[Integers, NDArray[np.int32]], chunk: Chunk, floor: float
) -> tuple[kernel.Nodes, Integers]:
    """The parts of a chunk, and at which its proofs fail; as few of them as can be are bounded again.

    First none is, then those whose proof fails, then also those that the search bounded itself.
    """
    nodes, step = piece
    wanted, chunk["bounded"] = chunk["bounded"], np.zeros_like(chunk["bounded"])
    parts = tree.grown(chunk)
    failed = np.flatnonzero(~(tree.margins(parts, chunk) > floor))
    for more in (np.zeros_like(wanted), wanted):
        if not len(failed):
            break
        before = chunk["bounded"]
        chunk["bounded"] = before | more
        chunk["bounded"][chunk["node"][failed]] = 1
        again = more.any() or (step[chunk["node"][failed]] >= INPUT).any()  # proofs elsewhere are affected
        some = np.arange(len(chunk["node"])) if again else failed
        try:
            parts = tree.grown(chunk)
        except CertificateRejected:  # parts of this network cannot be bounded again
            chunk["bounded"] = before
            break
        margins = tree.margins(parts, writer.chunk(nodes, step, tree.width, some))
        failed = some[~(margins > floor)]
    return parts, chunk["node"][failed]


class _Writer:
    """A tree cut into pieces by levels."""

    def __init__(self, tree: Tree, bounds: Bounds) -> None:
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
        """Nodes by level, and their steps, CONTINUED where the rest is in a later piece."""
        waiting = [np.zeros(1, np.int64)]
        while waiting:
            block = waiting.pop()
            taken = max(1, int(np.searchsorted(np.cumsum(self.size[block]), self.most, side="right")))
            waiting += [block[taken:]] if taken < len(block) else []
            nodes, step = self._piece(block[:taken])
            later = nodes[step == CONTINUED]
            waiting += [later] if len(later) else []
            yield nodes, step

    def _piece(self, roots: Integers) -> tuple[Integers, NDArray[np.int32]]:
        levels, steps, count = [roots], [], len(roots)
        while len(levels[-1]):
            step = self.tree.step[levels[-1]].copy()
            inner = np.flatnonzero(step >= INPUT)
            fit = max(0, (self.most - count) // 2)
            step[inner[fit:]] = CONTINUED
            left = levels[-1][inner[:fit]] + 1
            levels.append(np.stack([left, left + self.size[left]], axis=1).ravel())
            steps.append(step)
            count += len(levels[-1])
        return np.concatenate(levels), np.concatenate(steps)

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
