"""Propagation tightness (Mao et al. 2024): of deep linear networks at initialisation, and of networks as they train.

    OMP_NUM_THREADS=1 python benchmarks/tightness.py [--epochs 80] [--radius 0.1] [--images 100] [--plot FILE.png]

First Gaussian linear networks, over --seeds of them: measured, beside the closed form sqrt(pi / (2 width)) a layer
after the first. Then a convolutional network on scikit-learn's digits, trained plainly, against PGD, with IBP and with
SABR (the recipes of certified_training.py): tightness of the margins at test images, every few epochs. Then dense
networks of some widths and depths, before and after training. Measured in float64; one thread. --plot draws the second.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import pi, sqrt
from pathlib import Path
from statistics import mean

import torch
from certified_training import BATCH, DOMAIN, RATE, Recipe, line, network
from torch import nn

from provenn.models.live_graph import LiveGraph
from provenn.models.zoo.digits import Digits, load_digits
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.ops.linear import Linear
from provenn.verifier.tightness import Tightness, clipped, tightness
from provenn.verifier.training import initialise

WIDTHS, DEPTHS = (16, 64, 256), (2, 3, 4, 6)
METHODS = ("plain", "PGD", "IBP", "SABR")
POINTS = 9
"""Of a network's training that are measured, the beginning and the end among them."""


@dataclass(frozen=True)
class Seen:
    """At an epoch: the tightness of the margins, and the share of the images that are classified rightly."""

    epoch: int
    tightness: float
    clean: float


def gaussian(width: int, depth: int, seed: int) -> float:
    """Of a linear network with standard normal weights; every input's radius is 1."""
    generator = torch.Generator().manual_seed(seed)
    matrices = [torch.randn(width, width, generator=generator, dtype=torch.float64) for _ in range(depth)]
    graph = sequential((width,), [Linear(matrix, matrix.new_zeros(width)) for matrix in matrices])
    ones = torch.ones(1, width, dtype=torch.float64)
    return tightness(graph, torch.zeros_like(ones), ones).mean


def initial(seeds: int) -> None:
    print(line(["width", *(f"{depth} layers (closed form)" for depth in DEPTHS)]))
    print(line(["---"] * (len(DEPTHS) + 1)))
    for width in WIDTHS:
        found = [mean(gaussian(width, depth, seed) for seed in range(seeds)) for depth in DEPTHS]
        wanted = [sqrt(pi / (2 * width)) ** (depth - 1) for depth in DEPTHS]
        print(line([str(width), *(f"{a:.3g} ({b:.3g})" for a, b in zip(found, wanted, strict=True))]), flush=True)


def dense(width: int, depth: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    """`depth` matrices."""
    layers: list[nn.Module] = [nn.Flatten()]
    sizes = [64, *[width] * (depth - 1), 10]
    for number, (inputs, outputs) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(inputs, outputs), *([activation()] if number < depth - 1 else [])]
    return nn.Sequential(*layers)


class Training:
    """One network as it trains: what was seen of it on the way."""

    def __init__(self, made: Callable[[], nn.Sequential], recipe: Recipe, images: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.module, self.recipe, self.seed = made(), recipe, seed
        self.certified = recipe.method not in ("plain", "PGD")
        if self.certified:
            initialise(self.module)
        self.live = LiveGraph.of(self.module, (1, 8, 8))
        learnt, test = load_digits()
        self.learnt, self.test, self.images = learnt, test, images
        self.seen: list[Seen] = []

    def run(self, points: int) -> list[Seen]:
        """Measured at so many epochs."""
        epochs = self.recipe.epochs
        wanted = {round(epochs * k / (points - 1)) for k in range(points)}
        optimiser = torch.optim.Adam(self.module.parameters(), lr=RATE)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
        generator = torch.Generator().manual_seed(self.seed)
        self._look(0)
        for epoch in range(epochs):
            self._epoch(epoch, optimiser, generator)
            cosine.step()
            if epoch + 1 in wanted:
                self._look(epoch + 1)
        return self.seen

    def measured(self, layers: bool = False) -> Tightness:
        """Now, of the margins at the test images."""
        graph, data = self._graph(), self.test
        x, labels = torch.as_tensor(data.images[: self.images]).double(), torch.as_tensor(data.labels[: self.images])
        return tightness(graph, x, clipped(x, self.recipe.largest, DOMAIN), labels, layers)

    def _epoch(self, epoch: int, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> None:
        self.module.train()
        images, labels = torch.as_tensor(self.learnt.images), torch.as_tensor(self.learnt.labels)
        order = torch.split(torch.randperm(len(labels), generator=generator), BATCH)
        for number, index in enumerate(order):
            optimiser.zero_grad()
            t = epoch + number / len(order)
            torch.autograd.backward(self.recipe.loss(self.live, images[index], labels[index], t, generator))
            optimiser.step()

    def _look(self, epoch: int) -> None:
        self.module.eval()
        self.seen.append(Seen(epoch, self.measured().mean, accuracy(self._graph(), self.test)))

    def _graph(self) -> Graph:
        with torch.no_grad():
            return self.live.graph().to("cpu", torch.float64)


def accuracy(graph: Graph, data: Digits) -> float:
    with torch.no_grad():
        found = graph.forward(torch.as_tensor(data.images).double()).argmax(1)
    return float((found == torch.as_tensor(data.labels)).double().mean())


def through_training(given: argparse.Namespace) -> dict[str, list[Seen]]:
    """Of the convolutional network, by method; printed: an epoch a row, then every layer at the end."""
    found: dict[str, list[Seen]] = {}
    layers: list[list[str]] = []
    for method in METHODS:
        training = Training(network, Recipe(method, given.radius, given.epochs), given.images, given.seed)
        found[method] = training.run(POINTS)
        behind = training.measured(layers=True).layers
        layers.append([method, *(f"{layer.mean:.3f}" for layer in behind), f"{found[method][-1].tightness:.3f}"])
    print(line(["epoch", *(f"{method}: tightness (clean)" for method in METHODS)]))
    print(line(["---"] * (len(METHODS) + 1)))
    for number, first in enumerate(found[METHODS[0]]):
        cells = [f"{seen[number].tightness:.3f} ({100 * seen[number].clean:.1f} %)" for seen in found.values()]
        print(line([str(first.epoch), *cells]), flush=True)
    print()
    print(line(["after training", *(f"{layer.op} {k + 1}" for k, layer in enumerate(behind)), "margins"]))
    print(line(["---"] * (len(behind) + 2)))
    for row in layers:
        print(line(row), flush=True)
    return found


def by_size(given: argparse.Namespace) -> None:
    """Dense networks before and after training with IBP: of linear ones, and of ones with ReLUs."""
    print(line(["dense network", "width", "matrices", "at initialisation", "trained plainly", "trained with IBP"]))
    print(line(["---"] * 6))
    for name, activation in (("linear", nn.Identity), ("ReLU", nn.ReLU)):
        for width, depth in ((32, 2), (128, 2), (128, 3)):
            cells = []
            for method in ("plain", "IBP"):
                recipe = Recipe(method, given.radius, max(1, given.epochs // 4))
                made = partial(dense, width, depth, activation)
                cells.append(Training(made, recipe, given.images, given.seed).run(2))
            (before, plain), (_, robust) = cells
            shown = [f"{seen.tightness:.3f} ({100 * seen.clean:.1f} %)" for seen in (plain, robust)]
            print(line([name, str(width), str(depth), f"{before.tightness:.3f}", *shown]), flush=True)


def draw(found: dict[str, Sequence[Seen]], radius: float, path: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for method, seen in found.items():
        axes.plot([each.epoch for each in seen], [each.tightness for each in seen], marker="o", label=method)
    axes.set(xlabel="epoch", ylabel="tightness of the margins", ylim=(0, 1), title=f"digits CNN, radius {radius:g}")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--radius", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("Gaussian linear networks:\n")
    initial(given.seeds)
    print(f"\nA convolutional network on digits, radius {given.radius:g}, {given.images} test images:\n")
    found = through_training(given)
    if given.plot is not None:
        draw(found, given.radius, given.plot)
    print(f"\nDense networks on digits, {max(1, given.epochs // 4)} epochs:\n")
    by_size(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
