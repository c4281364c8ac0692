"""Robustness as an assertion: results of one input or a batch, and the words in which an assertion fails."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from numpy.typing import NDArray

from provenn.api.certification import Options, certify, load_model
from provenn.api.gate.found import PROVED
from provenn.api.gate.shown import changed
from provenn.api.keywords import How, RobustnessHere, network
from provenn.api.results import ItemResult
from provenn.verifier.errors import InvalidSpecification

if TYPE_CHECKING:
    from torch import nn

SHOWN = 3
"""Inputs of a batch whose failure is told in full."""


@dataclass(frozen=True, eq=False)
class Asked:
    """A network, one input or a batch of them, the class of each, and the radius."""

    model: str | Path | bytes | nn.Module
    x: NDArray[Any]
    y: int | Sequence[int]
    eps: float | str

    @cached_property
    def points(self) -> NDArray[Any]:
        """The inputs, [n, *input]."""
        given = np.asarray(self.x)
        return given[None] if np.ndim(self.y) == 0 else given

    @cached_property
    def labels(self) -> list[int]:
        """Their classes.   Raises: InvalidSpecification unless there are inputs, and one integer an input."""
        if not len(self.points):
            raise InvalidSpecification("there are no inputs, and of none nothing can be certified")
        given = np.atleast_1d(np.asarray(self.y))
        if not np.issubdtype(given.dtype, np.integer):
            raise InvalidSpecification(f"classes are integers, not {given.dtype}")
        found = [int(label) for label in given]
        if len(found) != len(self.points):
            raise InvalidSpecification(f"{len(self.points)} inputs, but {len(found)} classes")
        return found


def certified(asked: Asked, **how: Unpack[How]) -> list[ItemResult]:
    """A result an input, all bounded together.   Raises: ProvennError in one of its kinds."""
    wanted = RobustnessHere(**how)
    labels, points = asked.labels, asked.points
    loaded = load_model(network(asked.model, points.shape[1:]))
    sizes = loaded.graph.input_shape, loaded.graph.output_shape
    stated = [wanted.specification(point, label, asked.eps, sizes) for point, label in zip(points, labels, strict=True)]
    options = Options(wanted.method, wanted.timeout, wanted.device, wanted.seed, semantics=wanted.semantics)
    return certify(loaded, stated, options)


def message(asked: Asked, results: Sequence[ItemResult]) -> str | None:
    """What a failing assertion says; None where every input has a checked certificate."""
    left = [i for i, result in enumerate(results) if not _proved(result)]
    if not left:
        return None
    alone = len(results) == 1
    head = "" if alone else f"{len(results) - len(left)} of {len(results)} inputs are certified within {asked.eps}\n"
    more = f"\n... and {len(left) - SHOWN} more inputs" if len(left) > SHOWN else ""
    return head + "\n".join(_told(asked, i, results[i], alone) for i in left[:SHOWN]) + more


def _proved(result: ItemResult) -> bool:
    return result.verdict == "verified" and result.assurance in PROVED


def _told(asked: Asked, index: int, result: ItemResult, alone: bool) -> str:
    """One input: what is known, and the counterexample if there is one."""
    label, name = asked.labels[index], "the input" if alone else f"input {index}"
    found = result.counterexample
    if found is None:
        lines = [f"{name} is not certified as class {label} within {asked.eps}"]
    else:
        outputs = np.array(found.output)
        others = np.where(np.arange(len(outputs)) == label, -np.inf, outputs)
        predicted = int(others.argmax())
        point = asked.points[index]
        lines = [
            f"{name} is class {label}, but within {asked.eps} of it there is an input of class {predicted}:",
            f"  counterexample: {changed(point, np.array(found.input), point.shape)}",
            f"  logits: {_logits(outputs, label, predicted)}",
        ]
    margin = "not bounded" if result.margin is None else f"at least {result.margin:.6g}"
    lines.append(f"  verdict: {result.verdict} ({result.method}); margin: {margin}")
    reason = result.reason or ("no method decided it" if found is None else None)
    return "\n".join([*lines, f"  because: {reason}"] if reason else lines)


def _logits(outputs: NDArray[np.float64], label: int, predicted: int) -> str:
    """The two that matter, and then all, if they are few."""
    both = f"{outputs[predicted]:.6g} for {predicted} (predicted), {outputs[label]:.6g} for {label} (expected)"
    every = ", ".join(f"{value:.4g}" for value in outputs[:16])
    return f"{both}; all: [{every}{', ...' if len(outputs) > 16 else ''}]"
