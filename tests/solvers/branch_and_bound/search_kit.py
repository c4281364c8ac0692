"""Properties that are tight for small networks, and searches that are interrupted."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from types import FrameType
from typing import Any

import numpy as np
import torch

from provenn.verifier.graph import Graph
from provenn.verifier.spec import Ball, Case, Clause, InputSet


def box(graph: Graph, radius: Fraction, norm: float | None = None) -> InputSet:
    size = torch.Size(graph.input_shape).numel()
    centre = tuple(Fraction(i % 3, 10) for i in range(size))
    ball = Ball(centre, radius, norm) if norm else None
    return InputSet(tuple(c - radius for c in centre), tuple(c + radius for c in centre), ball)


def outputs(graph: Graph, inputs: InputSet, seed: int, count: int = 4000) -> torch.Tensor:
    """At corners and random points of the set: [points, outputs]."""
    unit = np.random.default_rng(seed).random((count, len(inputs.lower)))
    unit[: count // 2] = unit[: count // 2].round()
    points = inputs.lower + unit * (inputs.upper - inputs.lower)
    inside = np.array([p for p in points if inputs.contains(p.astype(np.float32))], dtype=np.float32)
    return graph.forward(torch.from_numpy(inside).double().reshape(-1, *graph.input_shape)).flatten(1)


def threshold(graph: Graph, inputs: InputSet, row: Sequence[int], share: Fraction, seed: int = 0) -> Case:
    """Unsafe: row y >= d, with d above the sampled maximum by `share` of the sampled range (below it if negative)."""
    values = outputs(graph, inputs, seed) @ torch.tensor(row, dtype=torch.float64)
    most, least = Fraction(float(values.max())), Fraction(float(values.min()))
    clause = Clause((tuple(Fraction(c) for c in row),), (most + share * (most - least),))
    return Case(inputs, (clause,))


def interrupted(done: int, total: int, phase: str) -> None:
    raise InterruptedError


@contextmanager
def interrupted_at(line: int, folder: str) -> Iterator[Callable[[], int]]:
    """Raises KeyboardInterrupt, as a signal may anywhere, at the line of that number of all that run in `folder`.

    Gives what says how many lines have run.
    """
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if folder not in frame.f_code.co_filename:
            return None
        if event == "line":
            count += 1
            if count == line:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield lambda: count
    finally:
        sys.settrace(before)
