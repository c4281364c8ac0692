"""A tree of splits proves a case: its leaves cover the region, and in every leaf every clause is excluded.

A split halves a part at an input or at an argument of an elementwise step: value <= t, value >= t; the two halves cover
the part whatever t is. The tree is read in chunks, so that memory is bounded. A chunk lists nodes level by level: first
parts that wait, then the two children of every inner node in turn; which nodes are inner is all there is to its shape.
A CONTINUED node waits for a later chunk, where those that came last are first. A proof excludes a clause (EMPTY: all of
them, as no input is there) from its node's part, so from all below, by weights w >= 0 of its rows: w (d - C y) > 0.
"""

import zlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.check.forms import refined
from provenn.verifier.check.functions import RELU
from provenn.verifier.check.manifest import Tensors, read_payload
from provenn.verifier.check.network import Elementwise, Index
from provenn.verifier.check.passes import SPLIT, Parts, Passes, whole
from provenn.verifier.check.rounding import UNDERFLOW, Array, CertificateRejected, down, float_below, require, unit, up
from provenn.verifier.check.rows import Bounds, Box
from provenn.verifier.check.specification import Clause

CONTINUED, LEAF, INPUT, EMPTY = -2, -1, 0, -1
LEVELS, LARGEST, WAITING = (
    2**12,
    2**26,
    2**29,
)  # of a chunk; its bytes; those of the boxes and paths of a chunk, or of all parts that wait
ARRAYS = {"step": "<i4", "neuron": "<i4", "threshold": "<f4", "bounded": "u1"}
ARRAYS |= {"node": "<i4", "clause": "<i4", "weights": "<f4", "betas": "<f4"}


def read_chunk(data: bytes) -> Tensors:
    """The arrays of a chunk: a payload, compressed.   Raises: CertificateRejected if it is broken or too large."""
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, LARGEST)
    except zlib.error as error:
        raise CertificateRejected("tree", f"a chunk is not compressed by zlib: {error}") from error
    require(stream.eof and not stream.unused_data, "tree", f"a chunk is truncated, or larger than {LARGEST} bytes")
    return read_payload(text)


class Nodes(NamedTuple):
    """Parts [nodes], boxes of theirs, how many neurons are split above each, excluded clauses [nodes, clauses]."""

    parts: Parts
    boxes: Mapping[int, Box]
    depth: Index
    excluded: NDArray[np.bool_]

    def of(self, some: Index | slice) -> "Nodes":
        """Some of them, with the boxes that they use."""
        depth, (inputs, table, path) = self.depth[some], self.parts.of(some)
        used, inputs = np.unique(inputs, return_inverse=True)
        others, table = np.unique(table, return_inverse=True)
        boxes = {i: Box(*(side[others if i else used] for side in box)) for i, box in self.boxes.items()}
        return Nodes(Parts(inputs, table, path[:, : depth.max(initial=0)]), boxes, depth, self.excluded[some])

    def longer(self, nodes: int, inputs: int, tables: int, splits: int) -> "Nodes":
        """With room for more nodes, input boxes, other boxes and splits.   Raises: CertificateRejected if too large."""
        count, depth = len(self.depth) + nodes, self.parts.path.shape[1] + splits
        more = {i: (tables if i else inputs, box.lower.shape[1]) for i, box in self.boxes.items()}
        size = sum(16 * rows * width for rows, width in more.values())
        size += count * (depth * SPLIT.itemsize + 32 + self.excluded.shape[1])
        require(size + self.size <= WAITING, "tree", f"its parts need more than {WAITING} bytes")
        boxes = {i: Box(*(np.concatenate([side, np.zeros(more[i])]) for side in box)) for i, box in self.boxes.items()}
        first, second = (np.pad(each, (0, nodes)) for each in (self.parts.inputs, self.parts.table))
        path = np.zeros((count, depth), SPLIT)
        path[: len(self.depth), : self.parts.path.shape[1]] = self.parts.path
        excluded = np.pad(self.excluded, ((0, nodes), (0, 0)))
        return Nodes(Parts(first, second, path), boxes, np.pad(self.depth, (0, nodes)), excluded)

    @property
    def size(self) -> int:
        """Bytes of boxes and paths."""
        own = self.parts.path.nbytes + self.excluded.nbytes + 24 * len(self.depth)
        return own + sum(2 * box.lower.nbytes for box in self.boxes.values())


class Tree:
    """The check of a tree for some clauses of a case, chunk by chunk.

    steps: the elementwise ones that it splits, numbered from 1; asked: the clauses that it must exclude everywhere.
    """

    def __init__(self, bounds: Bounds, steps: Sequence[str], clauses: Sequence[Clause], asked: Sequence[int]) -> None:
        self.bounds, self.network, self.clauses = bounds, bounds.network, clauses
        known = {s.name: i for i, s in enumerate(self.network.steps) if isinstance(s, Elementwise) and s.sources[0]}
        require(known.keys() >= set(steps), "tree", "it splits what is not the argument of an elementwise step")
        self.split = np.array([0, *(known[name] for name in steps)])
        self.value = np.array([0, *(self.network.steps[known[name]].sources[0] for name in steps)])
        passes, parts = whole(bounds, 1, len(self.network.steps))
        others = np.array([[k not in asked for k in range(len(clauses))]])
        self.waiting = [Nodes(parts, passes.boxes, np.zeros(1, np.int64), others)]
        self.width = max(1, *(len(clause.bound) for clause in clauses))
        self._rows = [_numbers(clause, self.network.steps[self.network.output].length) for clause in clauses]

    def grown(self, chunk: Tensors) -> Nodes:
        """The nodes of a chunk, with what its proofs exclude once they hold.

        Raises: CertificateRejected if they are not complete trees below parts that wait, or it splits or proves
        something else.
        """
        self.bounds.tick()
        fits = {name: chunk[name].dtype for name in ARRAYS if name in chunk} == ARRAYS
        require(fits, "tree", f"a chunk must have {', '.join(ARRAYS)}, of the right types")
        step, node, clause, bounded = (chunk[name] for name in ("step", "node", "clause", "bounded"))
        inner = np.flatnonzero(step >= INPUT)
        parent, count, roots = np.repeat(inner, 2), len(step), len(step) - 2 * len(inner)
        below = self.waiting and 0 < roots <= len(self.waiting[-1].depth) and (parent < np.arange(roots, count)).all()
        require(below, "tree", "its nodes are not complete binary trees below parts that wait")
        lengths = np.array([s.length for s in self.network.steps])
        fits = len(bounded) == count and len(node) == len(clause) and _within(step, CONTINUED, len(self.split))
        fits = fits and _within(bounded, 0, 2) and len(chunk["neuron"]) == len(chunk["threshold"]) == len(inner)
        fits = fits and _within(chunk["neuron"], 0, lengths[self.value[step[inner]]])
        fits = fits and _within(node, 0, count) and _within(clause, EMPTY, len(self.clauses))
        require(fits, "tree", "it names a step, neuron, node or clause that is not there")
        ends = [0, roots]
        while ends[-1] < count:
            require(len(ends) < LEVELS, "tree", f"a chunk has over {LEVELS} levels")
            ends.append(ends[-1] + 2 * int((step[ends[-2] : ends[-1]] >= INPUT).sum()))
        deeper = sum(bool((step[low:high] > INPUT).any()) for low, high in pairwise(ends))
        flagged, start = np.flatnonzero(bounded), self.waiting[-1].of(slice(0, roots))
        nodes = start.longer(count - roots, 2 * int((step == INPUT).sum()), len(flagged), deeper)
        nodes.excluded[node[clause >= 0], clause[clause >= 0]] = True
        nodes.excluded[node[clause == EMPTY]] = True
        inputs, tables = len(start.boxes[0].lower), start.parts.table.max() + 1
        rounds, before = bounded.astype(np.int64), np.zeros(len(flagged), np.int64)
        for low, high in pairwise(ends):
            if low:
                some = np.arange(low, high)
                inputs += self._divide(nodes, chunk, some, parent[some - roots], inputs, (some - roots) // 2)
                rounds[some] += rounds[parent[some - roots]]
            own = np.arange(*np.searchsorted(flagged, (low, high)))
            before[own] = nodes.parts.table[flagged[own]]
            nodes.parts.table[flagged[own]] = tables + own
        for number in range(1, rounds.max(initial=0) + 1):  # those below as many bounded parts at once
            again = np.flatnonzero(rounds[flagged] == number)
            parts = nodes.parts.of(flagged[again])._replace(table=before[again])
            for i, box in refined(Passes(self.bounds, nodes.boxes), parts).items():
                for side, found in zip(nodes.boxes[i], box, strict=True):
                    side[tables + again] = found
        return nodes

    def _divide(self, nodes: Nodes, chunk: Tensors, some: Index, above: Index, start: int, entry: Index) -> int:
        """Makes the parts of some nodes, children of `above` by splits `entry`, with input boxes from `start` on."""
        parts, kind, side = nodes.parts, chunk["step"][above], np.tile([-1, 1], len(some) // 2)
        for values in (*parts, nodes.depth):
            values[some] = values[above]
        nodes.excluded[some] |= nodes.excluded[above]
        neuron, threshold = chunk["neuron"][entry], chunk["threshold"][entry].astype(np.float64)
        new, (lower, upper) = np.flatnonzero(kind == INPUT), nodes.boxes[0]
        rows, old = np.arange(start, start + len(new)), parts.inputs[some[new]]
        lower[rows], upper[rows], parts.inputs[some[new]] = lower[old], upper[old], rows
        for bound, cut, which in ((upper, np.minimum, -1), (lower, np.maximum, 1)):
            at = side[new] == which
            bound[rows[at], neuron[new][at]] = cut(bound[rows[at], neuron[new][at]], threshold[new][at])
        on = np.flatnonzero(kind > INPUT)
        split = np.zeros(len(on), SPLIT)
        split["step"], split["value"], split["neuron"] = self.split[kind[on]], self.value[kind[on]], neuron[on]
        split["side"], split["threshold"] = side[on], threshold[on]
        parts.path[some[on], nodes.depth[some[on]]] = split
        nodes.depth[some[on]] += 1
        return len(new)

    def margins(self, nodes: Nodes, chunk: Tensors) -> Array:
        """For every proof of a chunk the margin that it proves, weights of sum 1; inf where there is no input.

        It is not proved where this is not above 0.   Raises: CertificateRejected for numbers that do not fit.
        """
        node, clause, betas = chunk["node"], chunk["clause"], chunk["betas"]
        outputs = self.network.steps[self.network.output].length
        size = len(node) * (nodes.parts.path.shape[1] * (SPLIT.itemsize + 9) + 8 * outputs + 64)
        require(size <= WAITING, "tree", f"the proofs of a chunk need more than {WAITING} bytes")
        depth, steps = nodes.depth[node], {step.name: i for i, step in enumerate(self.network.steps)}
        fits = len(betas) == depth.sum() and len(chunk["weights"]) == len(node) * self.width
        fits = fits and (betas >= 0).all() and (chunk["weights"] >= 0).all()
        require(fits, "tree", "weights or multipliers of splits are negative, or not as many as needed")
        multipliers = np.zeros((len(node), nodes.parts.path.shape[1]))
        multipliers[np.arange(multipliers.shape[1]) < depth[:, None]] = betas
        rows = np.zeros((len(node), self.network.steps[self.network.output].length))
        constant, terms, weight = np.zeros((3, len(node)))
        for k in np.unique(clause[clause >= 0]):
            at, (C, d) = np.flatnonzero(clause == k), self._rows[k]
            w = chunk["weights"].reshape(-1, self.width)[at, : len(d)].astype(np.float64)
            rows[at], constant[at], weight[at] = -(w @ C), w @ d, w.sum(axis=1)
            terms[at] = w @ (np.abs(C) @ self.bounds.box(self.network.output).largest + np.abs(d))
        slopes = {}
        for name in sorted(chunk.keys() - ARRAYS.keys()):
            kind, _, step = name.partition(":")
            i, other = steps.get(step, -1), chunk.get({"open": "slopes", "slopes": "open"}.get(kind, "") + ":" + step)
            relu = i >= 0 and getattr(self.network.steps[i], "function", None) is RELU
            known = relu and other is not None and kind in ("open", "slopes")
            require(known, "tree", f"array {name} is not understood")
            if kind == "open":
                columns, own = chunk[name], np.asarray(other)
                fits = columns.dtype == np.int32 and own.dtype == np.uint8 and len(own) == len(node) * len(columns)
                fits = fits and _within(columns, 0, self.network.steps[i].length)
                require(fits, "tree", f"{name}: neurons or slopes do not fit")
                slopes[i] = (columns, own.reshape(len(node), len(columns)))
        passes = Passes(self.bounds, nodes.boxes)
        low = passes.lower_bounds(self.network.output, rows, nodes.parts.of(node), slopes, multipliers)
        error = up(unit(4 * (self.width + rows.shape[1]) + 64) * terms + UNDERFLOW)
        proved = down(down(constant + low) - error)
        margin = np.where(
            clause == EMPTY, np.where(proved > 0, np.inf, -np.inf), down(proved / (weight * (1 + 2.0**-40)))
        )
        return np.where(low == np.inf, np.inf, margin)

    def close(self, nodes: Nodes, chunk: Tensors) -> None:
        """Takes a chunk whose proofs hold.   Raises: CertificateRejected if a clause is not excluded in a leaf."""
        step, roots = chunk["step"], len(chunk["step"]) - 2 * len(chunk["neuron"])
        require(nodes.excluded[step == LEAF].all(), "tree", "in a leaf a clause is not excluded")
        last, stay = self.waiting.pop(), np.flatnonzero(step == CONTINUED)
        self.waiting += [last.of(slice(roots, None))] if roots < len(last.depth) else []
        self.waiting += [nodes.of(stay)] if len(stay) else []
        require(sum(waiting.size for waiting in self.waiting) <= WAITING, "tree", "too many of its parts wait")


def _within(values: NDArray[Any], least: int, end: int | NDArray[Any]) -> bool:
    return bool(((values >= least) & (values < end)).all())


def _numbers(clause: Clause, outputs: int) -> tuple[Array, Array]:
    """C, within u |C|, and d, rounded down.   Raises: CertificateRejected for coefficients beyond 2^-300 .. 2^300."""
    fits = all(c == 0 or 2.0**-300 <= abs(c) <= 2.0**300 for row in clause.matrix for c in row)
    require(fits, "specification", "a coefficient is too large or small")
    C = np.array([[float(c) for c in row] for row in clause.matrix]).reshape(len(clause.bound), outputs)
    return C, np.array([float_below(d) for d in clause.bound])
