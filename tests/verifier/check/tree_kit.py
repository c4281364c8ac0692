"""A plain branch and bound that lets the emitter judge, and exact values of every step."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from check_kit import Random, box_specification, exact_affine, rationals, sigmoid, tanh

from provenn.verifier.certificate.emit import emit
from provenn.verifier.certificate.tree import INPUT, LEAF, Tree
from provenn.verifier.certificate.trees import LeavesUnproved, Trees
from provenn.verifier.check import Network, read_network
from provenn.verifier.check.claims import read_cases
from provenn.verifier.check.functions import RELU
from provenn.verifier.check.network import Affine, Elementwise, MaxPool
from provenn.verifier.check.rows import Bounds, Box, Semantics

Array = np.ndarray
SCALARS = {
    "relu": lambda v: max(v, Fraction(0)),
    "residual": lambda v: max(v, Fraction(0)),
    "leaky": lambda v: v if v > 0 else v / 4,
    "clip": lambda v: min(max(v, Fraction(-1, 4)), Fraction(1, 2)),
    "tanh": tanh,
    "sigmoid": sigmoid,
}


def exact_values(random: Random, network: Network, x: list[Fraction], kinds: list[str]) -> list[Array]:
    """The exact value of every step of a network of check_kit."""
    values = [np.array(x, dtype=object)]
    for step in network.steps[1:]:
        inputs = np.concatenate([values[i] for i in step.sources])
        if isinstance(step, Affine):
            values.append(exact_affine(step, inputs))
        elif isinstance(step, MaxPool):
            values.append(np.array([max(inputs[i] for i in window if i >= 0) for window in step.windows], dtype=object))
        else:
            layer = int(step.name.split(".")[0][1:])
            values.append(np.array([SCALARS[kinds[layer]](v) for v in inputs], dtype=object))
    return values


def within(nodes: Any, i: int, values: list[Array]) -> bool:
    """Whether an input with these exact values of all steps lies in a part."""
    low, high = (rationals(side[nodes.parts.inputs[i]]) for side in nodes.boxes[0])
    if not ((low <= values[0]).all() and (values[0] <= high).all()):
        return False
    path = nodes.parts.path[i][: nodes.depth[i]]
    return all(s["side"] * (values[s["value"]][s["neuron"]] - Fraction(float(s["threshold"]))) >= 0 for s in path)


def settled(bounds: Bounds) -> Bounds:
    """Claims every interval by rows."""
    for index in bounds.network.bounded.values():
        box = bounds.box(index)
        every = np.arange(len(box.lower))
        lower = np.fmax(box.lower, bounds.neuron_bounds(index, every, 1))
        bounds.accept(index, Box(lower, np.fmin(box.upper, -bounds.neuron_bounds(index, every, -1))))
    return bounds


@dataclass
class Node:
    """A part: its input box, and how it is split: code, neuron, threshold, the two halves."""

    lower: Array
    upper: Array
    split: tuple[int, int, float] | None = None
    halves: list[Node] = field(default_factory=list)
    bounded: bool = False


@dataclass
class Search:
    """A random plain branch and bound; `share` of the splits at neurons, `elsewhere` of these not at 0."""

    network: Network
    specification: Any
    seed: int = 0
    share: float = 0.5
    elsewhere: float = 0.5
    slopes: bool = False
    semantics: Semantics = "real"

    def __post_init__(self) -> None:
        self.generator = np.random.default_rng(self.seed)
        with np.errstate(all="ignore"):
            self.case = read_cases(self.specification.text, self.specification.form, self.network)[0]
            self.bounds = settled(Bounds(self.network, *self.case.region(), self.semantics))
        steps = [s for s in self.network.steps if isinstance(s, Elementwise) and s.sources[0]]
        self.steps = steps
        box = self.bounds.boxes[0]
        self.root = Node(box.lower, box.upper)

    def divide(self, node: Node) -> None:
        """Splits a leaf: at its widest input or at a random neuron."""
        lower, upper = [node.lower.copy(), node.lower.copy()], [node.upper.copy(), node.upper.copy()]
        code, neuron = INPUT, int((node.upper - node.lower).argmax())
        threshold = float(np.float32((node.lower[neuron] + node.upper[neuron]) / 2))
        if self.steps and self.generator.random() < self.share:
            code = int(self.generator.integers(len(self.steps))) + 1
            box = self.bounds.box(self.steps[code - 1].sources[0])
            neuron = int(self.generator.integers(len(box.lower)))
            some = box.lower[neuron] + self.generator.random() * (box.upper[neuron] - box.lower[neuron])
            threshold = float(np.float32(some if self.generator.random() < self.elsewhere else 0.0))
        else:
            upper[0][neuron] = lower[1][neuron] = threshold
        node.split = (code, neuron, threshold)
        node.halves = [Node(low, high) for low, high in zip(lower, upper, strict=True)]

    def nodes(self) -> list[Node]:
        """In preorder."""
        found, waiting = [], [self.root]
        while waiting:
            node = waiting.pop()
            found.append(node)
            waiting += reversed(node.halves)
        return found

    def tree(self) -> Tree:
        """What is handed over: every clause at every leaf, random multipliers and slopes."""
        nodes = self.nodes()
        rng, clauses = self.generator, self.case.clauses
        splits = [node.split or (LEAF, 0, 0.0) for node in nodes]
        depth = self.depths()
        leaves = [i for i, node in enumerate(nodes) if not node.halves]
        node = np.repeat(np.array(leaves, np.int32), len(clauses))
        clause = np.tile(np.arange(len(clauses), dtype=np.int32), len(leaves))
        width = max(len(c.bound) for c in clauses)
        weights = np.zeros((len(node), width), np.float32)
        for row, k in zip(weights, clause, strict=True):
            row[: len(clauses[k].bound)] = 1 + 0.1 * rng.random(len(clauses[k].bound))
        count = int(sum(depth[i] for i in node))
        betas = 0.02 * rng.random(count) * (rng.random(count) < 0.3)
        relus = [step for step in self.steps if self.slopes and step.function is RELU]
        columns = {s.name: np.flatnonzero(rng.random(s.length) < 0.7).astype(np.int32) for s in relus}
        alphas = {n: rng.integers(0, 256, (len(node), len(c))).astype(np.uint8) for n, c in columns.items()}
        return Tree(
            tuple(s.name for s in self.steps),
            *(np.array([s[0] for s in splits], np.int32), np.array([s[1] for s in splits], np.int32)),
            np.array([s[2] for s in splits], np.float32),
            np.array([n.bounded for n in nodes]),
            *(node, clause, weights, betas.astype(np.float32), columns, alphas),
        )

    def depths(self) -> list[int]:
        """Splits of neurons above each node, in preorder."""
        found, waiting = [], [(self.root, 0)]
        while waiting:
            node, depth = waiting.pop()
            found.append(depth)
            deeper = depth + (node.split is not None and node.split[0] != INPUT)
            waiting += [(half, deeper) for half in reversed(node.halves)]
        return found

    def run(self, rounds: int = 40, method: str = "branch-and-bound", **options: Any) -> dict[str, bytes]:
        """Splits whatever is unproved until nothing is: the certificate."""
        for _ in range(rounds):
            self.last = self.tree()
            try:
                return emit(
                    self.network, self.specification, method, {}, trees=Trees({0: [self.last]}, halvings=0), **options
                )
            except LeavesUnproved as refusal:
                nodes = self.nodes()
                failed = sorted(set(refusal.nodes.tolist()))
                for i in failed:
                    self.divide(nodes[i])
        raise AssertionError("nothing was proved")


def outputs(network: Network, points: Array) -> Array:
    """[points, inputs] to [points, outputs] in float64, through the kernel's steps."""
    values = [points.T]
    for step in network.steps[1:]:
        inputs = np.concatenate([values[i] for i in step.sources])
        if isinstance(step, Affine):
            values.append(step.matrix @ inputs + step.bias[:, None])
        elif isinstance(step, MaxPool):
            values.append(np.where(step.windows[..., None] < 0, -np.inf, inputs[step.windows]).max(axis=1))
        else:
            assert isinstance(step, Elementwise)
            values.append(step.function(inputs, inputs).values[0])
    return values[network.output].T


def hard(random: Random, inputs: int, radius: float, slack: float = 0.25, seed: int = 0) -> tuple[Network, Any]:
    """A specification that holds by little: y_0 and y_0 - y_1 stay below a bound just above what is sampled."""
    network = read_network(random.file())
    generator = np.random.default_rng(seed)
    points = generator.uniform(-radius, radius, (400, inputs))
    y = outputs(network, points)
    rows = [y[:, 0], y[:, 0] - y[:, 1], y[:, 1]]
    limits = [Fraction(float(v.max() + slack * (v.max() - v.min()) + 1e-3)) for v in rows]
    zeros = [0] * (y.shape[1] - 2)
    clauses = [
        ([[1, 0, *zeros]], [limits[0]]),
        ([[1, -1, *zeros], [0, 1, *zeros]], [limits[1], limits[2]]),
    ]
    return network, box_specification([-radius] * inputs, [radius] * inputs, clauses)
