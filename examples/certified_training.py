"""A digits network trained until it can be certified: IBP in a plain torch loop, then certificates for test images.

    python examples/certified_training.py [--radius 0.1] [--epochs 80] [--images 100] [--out digits.onnx]

Needs: pip install "provenn[demo,export]".
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.run import certify_batch
from provenn.api.certification import Options, load_model
from provenn.models.live_graph import LiveGraph
from provenn.models.torch_export import export
from provenn.models.zoo.digits import Digits, load_digits
from provenn.verifier import training

BATCH = 128


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


def train(module: nn.Module, data: Digits, largest: float, epochs: int) -> None:
    """Half of the loss, in the end, is an upper bound of the cross entropy at the worst input within the radius."""
    images, labels = torch.as_tensor(data.images), torch.as_tensor(data.labels)
    ramp = (0.02 * epochs, 0.6 * epochs)
    radius, kappa = training.Smoothed(0.0, largest, *ramp), training.Linear(1.0, 0.5, *ramp)
    training.initialise(module)
    live = LiveGraph.of(module, (1, 8, 8))
    optimiser = torch.optim.Adam(module.parameters(), lr=5e-3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    module.train()
    for epoch in range(epochs):
        order = torch.split(torch.randperm(len(labels)), BATCH)
        for number, index in enumerate(order):
            time = epoch + number / len(order)
            outputs, graph = live(images[index])
            box = training.around(images[index], radius(time), (0, 1))
            robust = training.ibp(graph, box, labels[index])
            loss = torch.lerp(robust.loss, cross_entropy(outputs, labels[index]), kappa(time))
            loss = loss + 0.5 * (1 - radius(time) / largest) * training.regulariser(graph, robust.bounds)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
        cosine.step()
    module.eval()


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--radius", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=80)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("digits.onnx"))
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    learnt, test = load_digits()
    module = network()
    train(module, learnt, given.radius, given.epochs)
    given.out.write_bytes(export(module, (1, 8, 8)))
    images, labels = test.images[: given.images], test.labels[: given.images]
    data = Data(images.reshape(len(images), -1), tuple(labels.tolist()), tuple(map(str, range(len(images)))))
    asked = Question((given.radius,), clip=(0.0, 1.0))
    found = certify_batch(load_model(given.out.read_bytes()), data, asked, Options(seconds=120.0))
    at = found.summary.radii[0]
    print(f"{given.out}: of {len(images)} test images {found.summary.clean.value:.1%} are classified rightly,")
    print(f"{at.certified.value:.1%} with a checked certificate for every image within {given.radius}")


if __name__ == "__main__":
    main(sys.argv[1:])
