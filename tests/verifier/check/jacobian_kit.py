"""Random trees of parts, exact values of every step, and the norms of exact matrices."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from check_kit import Random, exact_affine, model, rationals
from onnx import helper
from tree_kit import SCALARS, settled

from provenn.verifier.certificate.jacobian import loosened
from provenn.verifier.certificate.lipschitz import Leaves, Proved, Prover
from provenn.verifier.certificate.payload import write_payload
from provenn.verifier.check import Network, read_network
from provenn.verifier.check.jacobian import norm
from provenn.verifier.check.lipschitz import rows_everywhere
from provenn.verifier.check.network import Affine, Elementwise, MaxPool
from provenn.verifier.check.rows import Ball, Bounds, Box
from provenn.verifier.check.trees import read_chunk

Array = np.ndarray
Point = list[Fraction]
Scalars = Mapping[str, Callable[[Fraction], Fraction]]
NORMS, OUTWARD = ("1", "2", "inf"), ("1", "2", "inf", "each")
EMPTY: dict[str, Array] = {name: np.zeros(0, np.int32) for name in ("node", "clause")}
EMPTY |= {name: np.zeros(0, np.float32) for name in ("weights", "betas")}
LEAF_ONLY = {"step": np.array([-1], np.int32), "neuron": EMPTY["node"], "bounded": np.zeros(1, np.uint8), **EMPTY}
LEAF_ONLY |= {"threshold": EMPTY["betas"]}


def reader(random: Random, kinds: Sequence[str]) -> tuple[Network, Scalars]:
    """A network of check_kit, and its functions by step."""
    network = read_network(random.file())
    functions = [step.name for step in network.steps if isinstance(step, Elementwise)]
    return network, {name: SCALARS[kinds[int(name.split(".")[0][1:])]] for name in functions}


def tangled(seed: int = 5) -> tuple[Network, Scalars]:
    """Functions of the input and of functions, of parts of a value, a concatenation, a value that is read thrice, and
    twice by one node, the larger of two, an output that is a function.
    """
    generator = np.random.default_rng(seed)
    shapes = {"w": (3, 4), "v": (11, 3), "u": (3, 3), "k": (1, 4)}
    constants: dict[str, Array] = {name: generator.normal(size=s).astype(np.float32) for name, s in shapes.items()}
    constants |= {"lo": np.float32(-0.25), "hi": np.float32(0.5), "0": np.array([0]), "2": np.array([2])}
    constants |= {"one": np.array([1])}
    nodes = [
        helper.make_node("Abs", ["x"], ["a"]),
        helper.make_node("LeakyRelu", ["x"], ["l"], alpha=-0.5),
        helper.make_node("Sub", ["a", "l"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["m"]),
        helper.make_node("Add", ["m", "k"], ["z"]),
        helper.make_node("Relu", ["z"], ["r"]),
        helper.make_node("Clip", ["r", "lo", "hi"], ["c"]),
        helper.make_node("Sub", ["z", "c"], ["s"]),
        helper.make_node("Max", ["s", "r"], ["p"]),
        helper.make_node("Slice", ["x", "0", "2", "one"], ["part"]),
        helper.make_node("Tanh", ["part"], ["t"]),
        helper.make_node("Concat", ["p", "s", "x"], ["q"], axis=1),
        helper.make_node("MatMul", ["q", "v"], ["f"]),
        helper.make_node("MatMul", ["x", "u"], ["g"]),
        helper.make_node("Add", ["g", "g"], ["gg"]),
        helper.make_node("Add", ["f", "gg"], ["o"]),
        helper.make_node("Concat", ["o", "t"], ["ot"], axis=1),
        helper.make_node("LeakyRelu", ["ot"], ["y"], alpha=0.5),
    ]
    scalars: dict[str, Callable[[Fraction], Fraction]] = {"a": abs, "l": lambda v: v if v > 0 else -v / 2}
    scalars |= {"r": SCALARS["relu"], "p.relu": SCALARS["relu"], "c": SCALARS["clip"], "t": SCALARS["tanh"]}
    return read_network(model(nodes, [1, 3], constants)), scalars | {"y": lambda v: v if v > 0 else v / 2}


def exact(network: Network, scalars: Scalars, x: Sequence[Fraction]) -> list[Array]:
    """The values of all steps, in rationals; those of tanh and the sigmoid to about 10^-50."""
    values = [np.array(list(x), dtype=object)]
    for step in network.steps[1:]:
        read = np.concatenate([values[source] for source in step.sources])
        if isinstance(step, Affine):
            values.append(exact_affine(step, read))
        elif isinstance(step, MaxPool):
            values.append(np.array([max(read[i] for i in window if i >= 0) for window in step.windows], dtype=object))
        else:
            values.append(np.array([scalars[step.name](v) for v in read], dtype=object))
    return values


def drawn(seed: int, inputs: int, kinds: Sequence[str]) -> tuple[Network, Scalars]:
    """Of check_kit, or the tangled one without kinds."""
    return reader(Random(seed, [inputs, *(4 for _ in kinds), 2], kinds), kinds) if kinds else tangled(seed)


def points(network: Network, bounds: Bounds, generator: np.random.Generator, count: int) -> list[Point]:
    """Of the region, in rationals: inside, corners, and such where a first function meets 0."""
    (lower, upper), found = (rationals(side) for side in bounds.boxes[0]), list[Point]()
    first = next((step for step in network.steps if step.sources == (0,) and hasattr(step, "matrix")), None)
    for k in range(count):
        share = rationals(np.round(generator.random(len(lower)) * 2**20) / 2**20)
        x = lower + share * (upper - lower) if k % 3 else np.where(share < Fraction(1, 2), lower, upper)
        if first is not None and k % 3 == 1:
            weight = rationals(first.matrix if isinstance(first.matrix, np.ndarray) else first.matrix.toarray())
            j, i = generator.integers(len(weight)), generator.integers(len(x))
            value = weight[j] @ x + Fraction(float(first.bias[j]))
            moved = x[i] - value / weight[j, i] if weight[j, i] else x[i]
            x[i] = moved if lower[i] <= moved <= upper[i] else x[i]
        found.append(inside_ball(list(x), bounds.ball))
    return found


def inside_ball(x: Point, ball: Ball | None) -> Point:
    """Moved to the centre until it is in the ball."""
    if ball is None:
        return x
    centre, radius = [Fraction(float(c)) for c in ball.centre], Fraction(ball.radius)
    while True:
        moved = [a - b for a, b in zip(x, centre, strict=True)]
        size = sum(map(abs, moved)) ** 2 if ball.norm == 1 else sum(v * v for v in moved)
        if size <= radius**2:
            return x
        x = [b + v * Fraction(3, 4) for b, v in zip(centre, moved, strict=True)]


def over(network: Network, lower: Any, upper: Any, ball: Ball | None = None) -> Bounds:
    """A box, all intervals by rows."""
    with np.errstate(all="ignore"):
        return settled(Bounds(network, Box(np.asarray(lower, np.float64), np.asarray(upper, np.float64)), ball))


def splittable(network: Network) -> tuple[str, ...]:
    """What a tree may split."""
    return tuple(step.name for step in network.steps if isinstance(step, Elementwise) and step.sources[0])


def random_chunks(
    bounds: Bounds, generator: np.random.Generator, splits: int, flags: bool = True, pieces: int = 1
) -> list[dict[str, Array]]:
    """A tree of up to so many splits a piece, of random inputs and neurons, some twice, some outside of the interval.

    flags: some parts are bounded again; pieces: some leaves of a chunk are split in the next one.
    """
    network, roots, made = bounds.network, 1, list[dict[str, Array]]()
    known = {step.name: step.sources[0] for step in network.steps if isinstance(step, Elementwise)}
    values = [0, *(known[name] for name in splittable(network))]
    for left in reversed(range(pieces)):
        step, neuron, threshold, level = list[int](), list[int](), list[float](), roots
        while level:
            below = 0
            for _ in range(level):
                if len(neuron) == splits or generator.random() < 0.2:
                    step.append(-2 if left and generator.random() < 0.5 else -1)
                    continue
                step.append(int(generator.integers(len(values))))
                lower, upper = bounds.box(values[step[-1]])
                neuron.append(int(generator.integers(len(lower))))
                low, high = lower[neuron[-1]], upper[neuron[-1]]
                some = [low + generator.random() * (high - low), 0.0, low - 0.1, high + 0.1]
                threshold.append(float(generator.choice(some, p=[0.6, 0.3, 0.05, 0.05])))
                below += 2
            level = below
        chunk = {"step": np.array(step, np.int32), "neuron": np.array(neuron, np.int32)}
        again = (generator.random(len(step)) < 0.5 * flags).astype(np.uint8)
        made.append({**chunk, "threshold": np.array(threshold, np.float32), "bounded": again, **EMPTY})
        roots = step.count(-2)
        if not roots:
            break
    return made


def packed(chunks: Sequence[Mapping[str, Array]]) -> tuple[bytes, ...]:
    """As files."""
    return tuple(zlib.compress(write_payload(dict(chunk))) for chunk in chunks)


def norm_of(values: Sequence[Fraction], name: str) -> tuple[Fraction, int]:
    """A vector's norm to some power, and which: the square of l2."""
    if name == "2":
        return sum((v * v for v in values), Fraction(0)), 2
    return (sum(map(abs, values), Fraction(0)) if name == "1" else max(map(abs, values))), 1


def exceeds(change: Sequence[Fraction], moved: Sequence[Fraction], bound: float, norms: tuple[str, str]) -> bool:
    """Whether |change|_outward > bound |moved|_inward, up to 10^-40."""
    (large, power), (small, other) = norm_of(change, norms[1]), norm_of(moved, norms[0])
    return bool(large ** (2 // power) > Fraction(bound) ** 2 * small ** (2 // other) + Fraction(1, 10**40))


def number_of(prover: Prover, leaves: Leaves, rows: Sequence[int]) -> float:
    """The largest number of the leaves for rows together, in the statement's norms, loosened as a writer does."""
    claim = {"id": 0, "method": leaves.method, "steps": leaves.steps, "chunks": [["", ""]] * len(leaves.chunks)}
    chunks, exact_rows = map(read_chunk, leaves.chunks), [prover.stated.rows[i] for i in rows]
    with np.errstate(all="ignore"):
        found = rows_everywhere(prover.units, prover.bounds, exact_rows, claim, lambda _: chunks)
        norms = (prover.stated.scale, prover.stated.inward, prover.stated.outward)
        return loosened(max(norm(each, *norms) for each in found))


def claiming(
    prover: Prover, given: Sequence[tuple[Sequence[int], float]], leaves: Leaves, limit: float
) -> dict[str, bytes]:
    """A certificate of claims (rows, number) over leaves, whose statement has this number for all rows."""
    made = Prover(prover.network, prover.statement)
    made.uppers = lambda _: [limit] * len(prover.stated.upper)  # type: ignore[method-assign]
    return made.bundle([Proved(tuple(rows), number, {}, None, jacobian=leaves) for rows, number in given], {})
