"""Activation patterns: what they cover of held-out data, and how much farther a class is verified where they hold.

    python benchmarks/nap.py [--networks digits mnist-2 mnist-4 mnist-6] [--deltas 1 0.95 0.9] [--images 15]
                             [--seconds 5] [--plot FILE.png] [--out FILE.json]

digits: the zoo's 64-... network and scikit-learn's digits; patterns from the training split, coverage and inputs from
the test split. mnist-N: mnist-net_256xN of VNN-COMP 2022 and the 15 images of its instances. There are no MNIST data
here: patterns are mined from scikit-learn's 8 x 8 digits, enlarged to 28 x 28, four fifths of them, from the 15 images
and from noise around these; coverage is on the last fifth, so it is that of enlarged digits, not of MNIST.
A line an input says how each radius was proved, and how surely (checked: the checker accepted its certificate).
`inhabited`: inputs within the radius that follow the pattern were found; else the statement may hold for want of them.
--plot draws an input a point, radius with the pattern against radius without it; --out writes what the lines say.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from provenn.api.activation_patterns import Bracket, Mining, Radii, Samples, Search, coverage, mine, radii
from provenn.api.certification import Options
from provenn.models.executor import OnnxExecutor
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.verifier.numbers import exact
from provenn.verifier.spec_reader import read_specification

SHARED = Path(os.environ.get("PROVENN_SHARED", Path(__file__).parents[2] / "shared"))
INSTANCES, SIDE, NOISE, COPIES = 15, 28, 0.03, 20
Array = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Task:
    """A network, what patterns are mined from, what they are measured on, and inputs with their classes."""

    name: str
    model: bytes
    mining: Samples
    held: Samples
    inputs: Array
    labels: list[int]


@dataclass(frozen=True, eq=False)
class Instance:
    """An input of a network, by its number and class, and both of its radii; delta: of the pattern."""

    network: str
    delta: float
    number: int
    label: int
    radii: Radii

    def as_json(self) -> dict[str, Any]:
        """The radii as `provenn nap radius --json` has them."""
        one = self.radii
        about = {"network": self.network, "delta": self.delta, "number": self.number, "class": self.label}
        ends = {"without": end(one.without), "with": end(one.within), "gain": one.gain}
        return about | ends | {"follows": one.follows, "inhabited": one.inhabited or None, "seconds": one.seconds}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["digits", "mnist-2", "mnist-4", "mnist-6"])
    parser.add_argument("--deltas", nargs="+", default=["1", "0.95", "0.9"])
    parser.add_argument("--images", type=int, default=INSTANCES)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--out", type=Path, help="where every instance is written, JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    table, found = Table(*HEADS, box=None, pad_edge=False), list[Instance]()
    for name in given.networks:
        task = digits() if name == "digits" else mnist(int(name.split("-")[1]))
        known: dict[int, Bracket] = {}
        for delta in given.deltas:
            found += row(table, task, exact(delta), (given.images, known), Options(seconds=given.seconds))
    Console(width=170).print(table)
    if given.out is not None:
        given.out.write_text(json.dumps([one.as_json() for one in found], indent=1))
    if given.plot is not None:
        draw(found, given.plot)
    return 0


HEADS = ("network", "delta", "constrained", "recall", "precision", "inputs", "follow", "without", "with", "median gain")
HEADS += (">= 2x", "of which inhabited", "seconds")


def row(
    table: Table, task: Task, delta: Fraction, asked: tuple[int, dict[int, Bracket]], options: Options
) -> list[Instance]:
    """One line of the table; a line an input on the way. asked: of how many inputs, brackets without patterns."""
    images, known = asked
    began = time.perf_counter()
    patterns = {p.label: p for p in mine(task.model, task.mining, Mining(delta))}
    covered = coverage(task.model, list(patterns.values()), task.held)
    found = []
    for number, (x, label) in enumerate(zip(task.inputs[:images], task.labels[:images], strict=True)):
        one = radii(task.model, patterns[label], x, (0.0, 1.0), options, Search(), known.get(number))
        known[number] = one.without
        found.append(one)
        print(f"{task.name} delta {float(delta)}: {number} class {label}: {told(one)}", flush=True)
    share = statistics.mean(p.constrained / p.neurons for p in patterns.values())
    samples, followed = sum(c.samples for c in covered), sum(c.followed for c in covered)
    every = sum(c.all_followed for c in covered)
    gains = [one.gain or 0.0 for one in found]
    doubled = [one for one, gain in zip(found, gains, strict=True) if gain >= 2]
    table.add_row(
        task.name,
        f"{float(delta):g}",
        f"{100 * share:.0f} %",
        f"{100 * followed / samples:.1f} %",
        f"{100 * followed / every:.1f} %" if every else "-",
        str(len(found)),
        str(sum(one.follows for one in found)),
        f"{statistics.median(one.without.verified for one in found):.4f}",
        f"{statistics.median(one.within.verified for one in found):.4f}",
        f"{statistics.median(gains):.2f}",
        str(len(doubled)),
        str(sum(one.inhabited for one in doubled)),
        f"{time.perf_counter() - began:.0f}",
    )
    which = enumerate(zip(task.labels[:images], found, strict=True))
    return [Instance(task.name, float(delta), number, label, one) for number, (label, one) in which]


def end(found: Bracket) -> dict[str, Any]:
    """One end of an instance."""
    item = found.item
    how = {"method": None, "assurance": None} if item is None else {"method": item.method, "assurance": item.assurance}
    return {"verified": found.verified, "falsified": found.falsified, "whole": found.whole, **how}


def draw(found: Sequence[Instance], path: Path) -> None:
    """A point an input, filled where inputs that follow the pattern were found; no radius: at the least one asked."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    least, most = float(Search().least), float(Search().largest)
    low = max(least, min(one.radii.without.verified for one in found)) / 1.5
    axes.plot([low, most], [low, most], color="0.6", linewidth=1, label="the same")
    axes.plot([low, most / 2], [2 * low, most], color="0.6", linewidth=1, linestyle="--", label="twice")
    colours = plt.get_cmap("tab20")
    for number, (name, delta) in enumerate(dict.fromkeys((one.network, one.delta) for one in found)):
        colour = colours(number % colours.N)
        here = [one.radii for one in found if (one.network, one.delta) == (name, delta)]
        for inhabited in (True, False):
            ends = [(one.without.verified, one.within.verified) for one in here if one.inhabited == inhabited]
            points = np.maximum(np.array(ends).reshape(-1, 2), least)
            axes.plot(points[:, 0], points[:, 1], "o", color=colour, mfc=colour if inhabited else "none", alpha=0.8)
        axes.plot([], [], "o", color=colour, label=f"{name}, {delta:g}")
    axes.plot([], [], "o", color="0.3", mfc="none", label="no input seen that follows")
    axes.set(xscale="log", yscale="log", xlabel="verified radius without the pattern", ylabel="verified radius with it")
    axes.grid(alpha=0.3)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="network, delta", frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def told(one: Radii) -> str:
    """An input's line."""
    ends = []
    for name, end in (("without", one.without), ("with", one.within)):
        broken = "-" if end.falsified is None else f"{end.falsified:.4f}"
        how = "-" if end.item is None else f"{end.item.method}, {end.item.assurance}"
        ends.append(f"{name} {end.verified:.4f} ({how}; counterexample {broken})")
    gain = "-" if one.gain is None else f"{one.gain:.2f}"
    return f"{'; '.join(ends)}; gain {gain}; follows {one.follows}; inhabited {one.inhabited}; {one.seconds:.0f} s"


def digits() -> Task:
    """The zoo's perceptron; inputs: the first of the test split that it classifies rightly."""
    train, test = load_digits()
    model = load("digits-mlp")
    mining, held = (Samples(d.images.reshape(len(d.images), -1), d.labels) for d in (train, test))
    network = OnnxExecutor(model)
    right = network.run(test.images.reshape(-1, *network.input_shape)).argmax(1) == test.labels
    chosen = np.flatnonzero(right)[:INSTANCES]
    assert held.labels is not None
    return Task("digits-mlp", model, mining, held, held.inputs[chosen], held.labels[chosen].tolist())


def mnist(depth: int) -> Task:
    """A network of VNN-COMP 2022.   Raises: OSError without the shared files."""
    folder = SHARED / "vnncomp2022" / "mnist_fc"
    model = gzip.decompress((folder / "onnx" / f"mnist-net_256x{depth}.onnx.gz").read_bytes())
    network = OnnxExecutor(model)
    images = np.stack([image(folder / "vnnlib" / f"prop_{k}_0.03.vnnlib.gz") for k in range(INSTANCES)])
    labels = network.run(images.reshape(-1, *network.input_shape)).argmax(1)
    large, classes = enlarged()
    generator = np.random.default_rng(0)
    order = generator.permutation(len(large))
    first, last = order[: 4 * len(order) // 5], order[4 * len(order) // 5 :]
    noise = generator.uniform(-NOISE, NOISE, (COPIES, *images.shape))
    near = np.clip(images + noise, 0, 1).reshape(-1, images.shape[1]).astype(np.float32)
    inputs = np.concatenate([large[first], images, near])
    mining = Samples(inputs, np.concatenate([classes[first], labels, np.tile(labels, COPIES)]))
    held = Samples(large[last], classes[last])
    right = network.run(held.inputs.reshape(-1, *network.input_shape)).argmax(1) == held.labels
    print(f"mnist-net_256x{depth}: {100 * right.mean():.1f} % of the enlarged digits that are held out are right")
    return Task(f"mnist-net_256x{depth}", model, mining, held, images, labels.tolist())


def image(path: Path) -> Array:
    """The centre of an instance of radius 0.03 whose box is cut at 0 and 1."""
    box = read_specification(path.read_bytes()).cases[0].inputs
    lower, upper = box.lower, box.upper
    middle = np.where(lower <= 0, upper - 0.03, np.where(upper >= 1, lower + 0.03, (lower + upper) / 2))
    return np.clip(middle, 0, 1).astype(np.float32)


def enlarged() -> tuple[Array, NDArray[np.int64]]:
    """scikit-learn's digits as MNIST has its own: 20 x 20, in a field of 28 x 28, their mass in the middle."""
    train, test = load_digits()
    images, found = np.concatenate([train.images, test.images]), []
    for small in images[:, 0]:
        field = np.zeros((SIDE, SIDE))
        field[4:24, 4:24] = np.clip(ndimage.zoom(small, 2.5, order=3), 0, 1)
        away = 13.5 - np.array(ndimage.center_of_mass(field))
        found.append(np.clip(2 * (ndimage.shift(field, away, order=1) - 0.3), 0, 1).ravel())
    return np.array(found, np.float32), np.concatenate([train.labels, test.labels])


if __name__ == "__main__":
    sys.exit(main())
