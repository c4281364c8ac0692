"""How much of a network's interval bounds is the network's, and how much the intervals': measured at inputs.

A measurement in float64, without a proof: see verifier.tightness for what is measured.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import isfinite, prod

import numpy as np
import torch
from numpy.typing import NDArray

from provenn.api.notebook import Card
from provenn.api.results import Origin
from provenn.solvers.base import Progress, silent
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.graph import Graph
from provenn.verifier.tightness import clipped, require_piecewise_linear, tightness

EPSILON = 0.1
"""Without a clip range the ratio of two radii does not depend on it."""
TOGETHER = 64
"""Inputs between two reports of progress."""


@dataclass(frozen=True, eq=False)
class Question:
    """inputs [n, *input]: where; labels [n]: margins f_label - f_j are measured, None: the outputs themselves.

    epsilon: of the box around every input, in every coordinate, cut to the range `clip`. layers: of every layer, too.
    Raises: InvalidSpecification for no input, another number of labels, a radius that is none, an empty range.
    """

    inputs: NDArray[np.floating]
    labels: NDArray[np.integer] | None = None
    epsilon: float = EPSILON
    clip: tuple[float, float] | None = None
    layers: bool = True

    def __post_init__(self) -> None:
        if not len(self.inputs) or not np.isfinite(self.inputs).all():
            raise InvalidSpecification("tightness is measured at one input or more, of finite numbers")
        if self.labels is not None and np.shape(self.labels) != (len(self.inputs),):
            raise InvalidSpecification(f"{np.size(self.labels)} labels for {len(self.inputs)} inputs")
        if not (self.epsilon > 0 and isfinite(self.epsilon)):
            raise InvalidSpecification(f"the radius {self.epsilon} is none: give a number above 0")
        if self.clip is not None and not -float("inf") < self.clip[0] < self.clip[1] < float("inf"):
            raise InvalidSpecification(f"clip {list(self.clip)} is no range of finite numbers")

    def require_fits(self, outputs: int) -> None:
        """Raises: InvalidSpecification if the labels are none of the outputs, or there is one output only."""
        if self.labels is None:
            return
        if outputs < 2:
            raise InvalidSpecification("with one output there is no other class: leave the labels out")
        if not ((self.labels >= 0) & (self.labels < outputs)).all():
            raise InvalidSpecification(f"a label is not among the classes 0 to {outputs - 1}")


@dataclass(frozen=True)
class LayerTightness:
    """Of the network cut behind one layer: the mean over its cells and all inputs."""

    name: str
    op: str
    tightness: float


@dataclass(frozen=True, eq=False)
class TightnessResult:
    """tightness: the mean over outputs and inputs; outputs: of each, [inputs, rows], rows as `Question.labels` says.

    layers: those that add up, from the input on; the last is the output's as it is, before margins are taken.
    """

    tightness: float
    outputs: NDArray[np.float64]
    layers: tuple[LayerTightness, ...]
    seconds: float
    origin: Origin | None = None

    def _repr_html_(self) -> str:
        """For notebooks."""
        facts = [("tightness", f"{self.tightness:.4g}"), ("inputs", str(len(self.outputs)))]
        facts += [(f"{layer.name} ({layer.op})", f"{layer.tightness:.4g}") for layer in self.layers]
        return Card("Propagation tightness", "measured", facts, [], []).html()


def measure(graph: Graph, question: Question, progress: Progress = silent) -> TightnessResult:
    """At every input, a few at a time.   Raises: UnsupportedOp naming a node that is not piecewise linear."""
    start = time.monotonic()
    require_piecewise_linear(graph)
    question.require_fits(prod(graph.output_shape))
    exact = graph.to("cpu", torch.float64)
    inputs = torch.as_tensor(question.inputs, dtype=torch.float64).reshape(-1, *graph.input_shape)
    radius = clipped(inputs, question.epsilon, question.clip)
    labels = None if question.labels is None else torch.as_tensor(question.labels.astype(np.int64))
    found = []
    for first in range(0, len(inputs), TOGETHER):
        progress(first, len(inputs), "tightness")
        part = slice(first, first + TOGETHER)
        some = None if labels is None else labels[part]
        found.append(tightness(exact, inputs[part], radius[part], some, question.layers))
    outputs = torch.cat([each.outputs for each in found]).numpy()
    layers = tuple(
        LayerTightness(same[0].name, same[0].op, float(torch.cat([layer.tightness for layer in same]).mean()))
        for same in zip(*(each.layers for each in found), strict=True)
    )
    return TightnessResult(float(outputs.mean()), outputs, layers, time.monotonic() - start)


def batch(x: NDArray[np.floating], shape: tuple[int, ...]) -> NDArray[np.floating]:
    """One input, or several with one more leading axis: [n, *shape].   Raises: InvalidSpecification for another."""
    array = np.asarray(x)
    if array.shape == shape:
        return array[None]
    if array.shape[1:] == shape:
        return array
    expected = f"the network takes {list(shape)}: give one input, or [n, ...] of it for a batch"
    raise InvalidSpecification(f"the inputs have shape {list(array.shape)}, but {expected}")
