"""Top labels of digits networks: what is proved and what is refuted, and what the attack by projection adds.

    OMP_NUM_THREADS=1 python benchmarks/top_k.py [--images 40] [--seconds 10] [--epochs 30]

Two convolutional networks of certified_training.py, trained plainly and with IBP at radius 0.1. First the verdicts of
`auto` on the top k labels of --images test images, in order and as a set. Then two attacks of the same effort, steps,
starts and seeds, on lists of labels that must not take the top places: the top k reversed, and k labels at random.
Every counterexample was run by onnxruntime; the counts are of images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from certified_training import Recipe, line, train

from provenn.api.certification import LoadedModel, Options, certify, load_model
from provenn.models.specification.top_k import largest
from provenn.models.torch_export import export
from provenn.models.zoo.digits import load_digits
from provenn.solvers.attack import Attack
from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.top_k_attack import TopKAttack
from provenn.verifier.spec import InputSet
from provenn.verifier.top_k import top_k

RADII = {"plain": ("0.005", "0.01", "0.02"), "IBP": ("0.005", "0.01", "0.02")}
LISTS = (2, 3, 5)
FAR = ("0.1", "0.2", "0.3")
"""Radii at which some lists can be reached."""


def box(image: np.ndarray, radius: str) -> InputSet:
    """Around an image, within [0, 1]."""
    values, reach = [Fraction(v) for v in image.ravel().tolist()], Fraction(radius)
    lower = tuple(max(v - reach, Fraction(0)) for v in values)
    return InputSet(lower, tuple(min(v + reach, Fraction(1)) for v in values))


def verdicts(method: str, model: LoadedModel, images: np.ndarray, seconds: float) -> None:
    for k in (1, 3, 5):
        for ordered in (True, False) if k > 1 else (True,):
            for radius in RADII[method]:
                start, count = time.perf_counter(), Counter[str]()
                for image in images:
                    labels = largest(model.executor.run(image[None])[0], k)
                    asked = top_k(box(image, radius), labels, 10, ordered=ordered)
                    (found,) = certify(model, [asked], Options(seconds=seconds))
                    count[found.verdict] += 1
                each = (time.perf_counter() - start) / len(images)
                open_ = count["unknown"] + count["timeout"]
                kind = "in order" if ordered else "as a set"
                cells = [str(count["verified"]), str(count["falsified"]), str(open_), f"{each:.2f}"]
                print(line([method, str(k), kind, radius, *cells]), flush=True)


def found_by(
    attack: Attack, model: LoadedModel, images: np.ndarray, targets: Sequence[tuple[int, ...]], radius: str
) -> int:
    hits = 0
    for image, target in zip(images, targets, strict=True):
        labels = largest(model.executor.run(image[None])[0], len(target))
        if labels == target:
            continue
        case = top_k(box(image, radius), labels, 10, target=target).cases[0]
        (outcome,) = attack.solve(Problem(model.graph, [case], model.executor), Budget(60.0)).outcomes
        hits += outcome.verdict == Verdict.FALSIFIED
    return hits


def attacks(method: str, model: LoadedModel, images: np.ndarray) -> None:
    generator = np.random.default_rng(0)
    for kind in ("reversed", "random"):
        for k in LISTS:
            tops = [largest(model.executor.run(image[None])[0], k) for image in images]
            drawn = [tuple(generator.permutation(10)[:k].tolist()) for _ in images]
            targets = [top[::-1] for top in tops] if kind == "reversed" else drawn
            for radius in FAR:
                cells = []
                for steps in (8, 40):
                    for attack in (Attack(steps=steps), TopKAttack(steps=steps)):
                        start = time.perf_counter()
                        hits = found_by(attack, model, images, targets, radius)
                        cells.append(f"{hits} ({(time.perf_counter() - start) / len(images):.2f} s)")
                print(line([method, kind, str(k), radius, *cells]), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    learnt, test = load_digits()
    images = test.images[: given.images]
    models = {
        method: load_model(export(train(Recipe(method, 0.1, given.epochs), learnt, 0).module, (1, 8, 8)))
        for method in RADII
    }
    header = ["training", "k", "labels stay", "radius", "verified", "falsified", "open", "seconds each"]
    print(line(header), line(["---"] * len(header)), sep="\n")
    for method, model in models.items():
        verdicts(method, model, images, given.seconds)
    print()
    names = [f"{name}, {steps} steps" for steps in (8, 40) for name in ("attack", "top-k-attack")]
    header = ["training", "list", "k", "radius", *names]
    print(line(header), line(["---"] * len(header)), sep="\n")
    for method, model in models.items():
        attacks(method, model, images)
    return 0


if __name__ == "__main__":
    sys.exit(main())
