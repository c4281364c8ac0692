"""Ops whose linear bounds are made in two steps: once from the boxes, then for every choice of free parameters."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op

Relaxer = Callable[[Tensor | None], Linearization]
"""Free parameters, or None for the default ones -> the linear bounds."""


@dataclass(frozen=True)
class Relaxed(Op):
    """An op that gives its linear bounds by `relaxer`."""

    @abstractmethod
    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """`linearize` over fixed boxes, to be called with many parameters."""

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """Parameters are read whenever rows are pulled: between two passes an optimiser changes them."""
        relaxer = self.relaxer(inputs)
        return relaxer(None) if parameters is None else lambda coefficients: relaxer(parameters)(coefficients)

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the default bounds."""
        return self.linearize(inputs)(coefficients)
