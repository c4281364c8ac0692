"""Digits CNNs trained plainly, against PGD, and by the three certified losses: clean, attacked, certified accuracy.

    OMP_NUM_THREADS=1 python benchmarks/certified_training.py [--radii 0.05,0.1] [--epochs 60] [--seconds 60]

One architecture (two convolutions and two dense layers, batch normalization), one optimiser, one seed, one thread; all
360 test images, pixels in [0, 1]. `attacked`: the share that PGD (--steps, --restarts) does not fool, or the search for
counterexamples where it finds more. `certified`: the share with a certificate that the trusted checker has accepted,
made as `provenn batch --method auto` makes them, in --seconds for all images; `by IBP`: the share that interval bounds
alone show, in floating point. The true robust accuracy lies between certified and attacked. `seconds`: of training, by
the clock; `CPU`: of its one thread, which others on the machine do not lengthen. --plot FILE draws the table.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.run import certify_batch
from provenn.api.certification import Options, load_model
from provenn.models.live_graph import LiveGraph
from provenn.models.torch_export import export
from provenn.models.zoo.digits import Digits, load_digits
from provenn.verifier.graph import Graph
from provenn.verifier.training import (
    Linear,
    Smoothed,
    around,
    ascend,
    crown_ibp,
    ibp,
    initialise,
    regulariser,
    small_boxes,
)

METHODS = ("plain", "PGD", "IBP", "CROWN-IBP", "SABR")
COLUMNS = ("radius", "training", "clean", "attacked", "certified", "by IBP", "seconds", "CPU")
DOMAIN = (0.0, 1.0)
BATCH, RATE, STRENGTH, SHARE = 128, 5e-3, 0.5, 0.4
"""Of a step; learning rate; of the regulariser; SABR's small boxes, of the whole ones' widths."""


@dataclass(frozen=True)
class Trained:
    """Shares of the test images; by_ibp: certified by interval bounds alone."""

    radius: float
    method: str
    clean: float
    attacked: float
    certified: float
    by_ibp: float
    seconds: float
    processor: float

    def row(self) -> list[str]:
        """Of the table."""
        shares = (self.clean, self.attacked, self.certified, self.by_ibp)
        return [
            f"{self.radius:g}",
            self.method,
            *(f"{100 * share:.1f} %" for share in shares),
            f"{self.seconds:.0f}",
            f"{self.processor:.0f}",
        ]


@dataclass(frozen=True)
class Recipe:
    """method, one of METHODS; at time t, in epochs, the radius, the weight of the plain loss, IBP's share of a mix."""

    method: str
    largest: float
    epochs: int

    @property
    def ramp(self) -> tuple[float, float]:
        """The epochs between which the radius grows."""
        return 0.02 * self.epochs, 0.6 * self.epochs

    def loss(self, live: LiveGraph, images: Tensor, labels: Tensor, t: float, generator: torch.Generator) -> Tensor:
        """Of a batch."""
        if self.method == "plain":
            return cross_entropy(live.module(images), labels)
        radius = Smoothed(0.0, self.largest, *self.ramp)(t)
        outputs, graph = live(images)
        box = around(images, radius, DOMAIN)
        if self.method == "PGD":
            return cross_entropy(live.module(ascend(graph, box, labels, 8, generator)), labels)
        if self.method == "SABR":
            box = small_boxes(graph, box, labels, SHARE, 8, generator)
        mixed = self.method == "CROWN-IBP"
        share = Linear(0.0, 1.0, self.ramp[0], 0.8 * self.epochs)(t) if mixed else 1.0
        robust = crown_ibp(graph, box, labels, share) if mixed else ibp(graph, box, labels)
        kappa = Linear(1.0, 0.5, *self.ramp)(t)
        loss = torch.lerp(robust.loss, cross_entropy(outputs, labels), kappa)
        return loss + STRENGTH * (1 - radius / self.largest) * regulariser(graph, robust.bounds)


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def train(recipe: Recipe, data: Digits, seed: int) -> LiveGraph:
    generator = torch.Generator().manual_seed(seed)
    images, labels = torch.as_tensor(data.images), torch.as_tensor(data.labels)
    torch.manual_seed(seed)
    module = network()
    if recipe.method not in ("plain", "PGD"):
        initialise(module)
    live = LiveGraph.of(module, (1, 8, 8))
    optimiser = torch.optim.Adam(module.parameters(), lr=RATE)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.epochs)
    module.train()
    for epoch in range(recipe.epochs):
        order = torch.split(torch.randperm(len(labels), generator=generator), BATCH)
        for number, index in enumerate(order):
            optimiser.zero_grad()
            t = epoch + number / len(order)
            torch.autograd.backward(recipe.loss(live, images[index], labels[index], t, generator))
            optimiser.step()
        cosine.step()
    module.eval()
    return live


def resists(graph: Graph, images: Tensor, labels: Tensor, radius: float, steps: int, restarts: int) -> float:
    generator, box = torch.Generator().manual_seed(1), around(images, radius, DOMAIN)
    points = [images, *(ascend(graph, box, labels, steps, generator) for _ in range(restarts))]
    with torch.no_grad():
        right = torch.stack([graph.forward(x).argmax(1) == labels for x in points])
    return float(right.all(0).double().mean())


def measured(recipe: Recipe, given: argparse.Namespace) -> Trained:
    learnt, test = load_digits()
    wall, processor = time.perf_counter(), time.process_time()
    live = train(recipe, learnt, given.seed)
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    graph, images, labels = live.graph(), torch.as_tensor(test.images), torch.as_tensor(test.labels)
    with torch.no_grad():
        right = graph.forward(images).argmax(1) == labels
        by_ibp = ibp(graph, around(images, recipe.largest, DOMAIN), labels).certified
    data = Data(
        test.images.reshape(len(labels), -1), tuple(test.labels.tolist()), tuple(map(str, range(len(test.labels))))
    )
    model = load_model(export(live.module, (1, 8, 8)))
    found = certify_batch(model, data, Question((recipe.largest,), clip=DOMAIN), Options(seconds=given.seconds))
    at = found.summary.radii[0]
    # What our own search fools counts as fooled, whatever PGD says.
    attacked = min(at.attacked.value, resists(graph, images, labels, recipe.largest, given.steps, given.restarts))
    return Trained(
        recipe.largest,
        recipe.method,
        float(right.double().mean()),
        attacked,
        at.certified.value,
        float(by_ibp.double().mean()),
        wall,
        processor,
    )


def draw(rows: Sequence[Trained], path: Path) -> None:
    """A group of bars a method, a panel a radius."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    radii = sorted({row.radius for row in rows})
    figure, panels = plt.subplots(1, len(radii), figsize=(5.5 * len(radii), 4), layout="constrained", squeeze=False)
    for radius, axes in zip(radii, panels[0], strict=True):
        here = [row for row in rows if row.radius == radius]
        places = np.arange(len(here))
        for shift, name in enumerate(("clean", "attacked", "certified")):
            axes.bar(places + 0.27 * (shift - 1), [100 * getattr(row, name) for row in here], 0.25, label=name)
        axes.set_xticks(places, [f"{row.method}\n{row.processor:.0f} s" for row in here])
        axes.set(title=f"radius {radius:g}", ylabel="test images, %", ylim=(0, 102))
        axes.grid(axis="y", alpha=0.3)
    panels[0][0].legend(loc="lower left")
    figure.savefig(path, dpi=150)
    plt.close(figure)


def line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radii", default="0.05,0.1")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60.0, help="of certification, for a network at a radius")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--restarts", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plot", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(line(COLUMNS))
    print(line(["---"] * len(COLUMNS)))
    rows = []
    for radius in map(float, given.radii.split(",")):
        for method in given.methods.split(","):
            rows.append(measured(Recipe(method, radius, given.epochs), given))
            print(line(rows[-1].row()), flush=True)
    if given.plot is not None:
        draw(rows, given.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
