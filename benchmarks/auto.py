"""What each bound method was predicted to cost, what it costs, and what `auto` would choose.

    python benchmarks/auto.py [--shared ../shared] [--fit] [--runs 5]

One thread, float32, processor seconds (the fewest of some runs). The last column of a row of crown is the share of
rows it bounded, which the prediction takes for the constant OPEN. --fit prints the constants that fit these
measurements best.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from bounds_cases import Question, reference_question, references
from bounds_cases import throughput_question as many
from scipy.optimize import nnls
from torch import Tensor

from provenn.verifier.bounds import auto, schedule
from provenn.verifier.bounds.backward import Edge, Relaxed, by_rows, crown, crown_ibp, relax
from provenn.verifier.bounds.forward import forward_backward
from provenn.verifier.graph import Graph, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import Region

METHODS: dict[str, Callable[[Graph, Region], Relaxed]] = {
    "crown": crown,
    "forward-backward": forward_backward,
    "crown-ibp": crown_ibp,
}

BATCHES = ("acasxu_1_1 crown", "mnist_fc_256x4 crown", "oval21_base crown 32")
"""Of the benchmark of throughput."""

SMALL_INPUTS = ((5, 256, 4, 1), (5, 256, 4, 64), (5, 1024, 4, 1), (5, 1024, 4, 8), (20, 512, 6, 8))
"""Inputs, width, depth and batch of random dense networks: where forward mode is meant to win."""


@dataclass(frozen=True)
class Measured:
    """One method on one question: processor seconds, the mean bound of its rows, what was predicted."""

    method: str
    seconds: float
    margin: float
    work: auto.Work


def main() -> int:
    """Prints the table, and the constants if asked for; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="reference folder")
    parser.add_argument("--cases", help="some of the questions, by name")
    parser.add_argument("--fit", action="store_true", help="print the constants that fit these measurements")
    parser.add_argument("--runs", type=int, default=5, help="timed calls after the warm-up")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'question':<28}{'method':<18}{'predicted':>10}{'measured':>10}{'ratio':>7}{'mean bound':>13}  open rows")
    found: list[tuple[Measured, float]] = []
    for question in questions(options.shared, options.cases.split(",") if options.cases else ()):
        with torch.no_grad():
            found += show(question, options.runs)
    if options.fit:
        print(fitted(found))
    return 0


def questions(shared: Path, names: tuple[str, ...] | list[str]) -> Iterator[Question]:
    """Single regions, batches, and small inputs; the first two where the reference folder is there."""
    known = [case.name for case in references(shared)]
    if not known:
        print(f"skipped: the reference networks are not at {shared}", file=sys.stderr)
    makers: dict[str, Callable[[], Question]] = {
        name: lambda name=name: reference_question(shared, name) for name in known
    }
    makers |= {f"{name} batch": lambda name=name: many(shared, name) for name in BATCHES if known}
    makers |= {"{}x{}x{} batch {}".format(*sizes): lambda sizes=sizes: small_inputs(*sizes) for sizes in SMALL_INPUTS}
    for name, make in makers.items():
        if not names or name in names:
            yield make()


def small_inputs(inputs: int, width: int, depth: int, batch: int) -> Question:
    """Ten random rows of a random ReLU network, over boxes of half-width 0.05."""
    generator = torch.Generator().manual_seed(0)
    ops: list[Op] = []
    for layer in range(depth + 1):
        before, after = inputs if layer == 0 else width, 10 if layer == depth else width
        weight = torch.randn((after, before), generator=generator) * (2 / before) ** 0.5
        ops += [Linear(weight, 0.1 * torch.randn(after, generator=generator)), Relu()]
    graph = sequential((inputs,), ops[:-1]).to("cpu", torch.float32)
    points = torch.rand((batch, inputs), generator=generator)
    matrix = torch.eye(10).unsqueeze(1).expand(-1, batch, -1).contiguous()
    name = f"{inputs}x{width}x{depth} batch {batch}"
    return Question(name, graph, Region(Interval(points - 0.05, points + 0.05)), matrix)


def show(question: Question, runs: int) -> list[tuple[Measured, float]]:
    """Measures every method; the share of CROWN's rows with each."""
    rows, batch = question.matrix.shape[:2]
    share = open_share(question)
    real = auto.works(question.graph, batch, rows, share)
    predicted = auto.works(question.graph, batch, rows)
    choice = auto.choose(question.graph, batch, rows)
    found = []
    for method, bound in METHODS.items():
        seconds, lower = timed(lambda: bound(question.graph, question.region).output_lower(question.matrix), runs)  # noqa: B023
        guess, name = predicted[method].seconds, ("-> " if method == choice else "   ") + method
        tail = f"{share:9.3f}" if method == "crown" else ""
        mean = float((lower + question.offset).mean())
        times = f"{guess:10.4f}{seconds:10.4f}{guess / seconds:7.2f}"
        print(f"{question.name:<28}{name:<18}{times}{mean:13.4g}  {tail}", flush=True)
        found.append((Measured(method, seconds, mean, real[method]), share))
    return found


def open_share(question: Question) -> float:
    """Rows that CROWN bounds, for every neuron that a nonlinear op reads."""
    counted = [0.0, 0.0]

    def counting(relaxed: Relaxed, edge: Edge, value: Tensor) -> None:
        reader = question.graph.nodes[edge.reader].op
        if reader is None or reader.affine:
            return
        counted[1] += relaxed.bounds[edge.source].lower.numel()
        counted[0] += float(relaxed.improvable(edge).sum())
        by_rows(relaxed, edge, value, schedule.MEMORY)
        counted[0] += float(relaxed.improvable(edge).sum())

    relax(question.graph, question.region, counting)
    return counted[0] / max(counted[1], 1.0)


def timed(call: Callable[[], Tensor], runs: int) -> tuple[float, Tensor]:
    """Fewest processor seconds of some calls after a warm-up, and what the last returned."""
    lower, best = call(), float("inf")
    for _ in range(runs):
        start = time.process_time()
        lower = call()
        best = min(best, time.process_time() - start)
        if best > 5:
            break
    return best, lower


def fitted(found: list[tuple[Measured, float]]) -> str:
    """Seconds a call, a multiplication and an element with the least relative errors, and the middle share."""
    work = np.array([[m.work.calls, m.work.multiply_adds, m.work.elements] for m, _ in found])
    seconds = np.array([m.seconds for m, _ in found])
    constants, _ = nnls(work / seconds[:, None], np.ones(len(seconds)))
    errors = np.abs(np.log2((work @ constants) / seconds))
    shares = [share for m, share in found if m.method == "crown"]
    values = ", ".join(f"{value:.2g}" for value in constants)
    return (
        f"CALL, MULTIPLY_ADD, ELEMENT = {values}\nOPEN = {np.median(shares):.2f}\n"
        f"with every question's own share of rows: {np.mean(errors <= 1):.0%} within a factor 2, "
        f"the worst a factor {2 ** errors.max():.1f}"
    )


if __name__ == "__main__":
    sys.exit(main())
