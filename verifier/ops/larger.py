"""A value that is known to be one of two others: its larger, its smaller, or either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op, Shape
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.monotone import aligned


@dataclass(frozen=True)
class Either(Op):
    """z of inputs z, x, y, where z is x or y, coordinate by coordinate.

    z = y + k relu(d)  keeps what the branches of a choice have in common: d gets a bound of its own from a backward
    pass, and its relu free slopes and splits. The interval of z is loose, since it forgets that d and y belong
    together. So this node passes linear forms to z unchanged, and cuts z's box by the boxes of x and y.
    Sound only in a graph where z is what it should be; no operator of its own, so not in the table of ops.
    """

    onnx = ()

    def forward(self, *inputs: Tensor) -> Tensor:
        """The value z."""
        return inputs[0]

    def interval(self, *inputs: Interval) -> Interval:
        """The box of z cut by what x and y allow."""
        z, x, y = inputs
        both = z.intersect(self._enclosed(x, y))
        # On boxes of no width the two can differ by roundings and miss each other; then both belong to the box.
        return Interval(torch.minimum(both.lower, both.upper), torch.maximum(both.lower, both.upper))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Those of z."""
        return inputs[0]

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Nowhere: the linear form is exact."""
        return (None,) * len(inputs)

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """A z, whatever the boxes."""
        shapes: list[Shape] = [tuple(x.lower.shape[1:]) for x in inputs[1:]]

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            rows, none = coefficients.shape[:2], coefficients.new_zeros(())
            return (coefficients, *(none.expand(*rows, *shape) for shape in shapes)), None

        return pull

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """A z."""
        return self.linearize(inputs)(coefficients)

    def _enclosed(self, x: Interval, y: Interval) -> Interval:
        """The hull of both boxes."""
        return Interval(self._of(x.lower, y.lower, True), self._of(x.upper, y.upper, False))

    def _of(self, x: Tensor, y: Tensor, smallest: bool) -> Tensor:
        rank = max(x.dim(), y.dim()) - 1
        x, y = aligned(x, rank), aligned(y, rank)
        return torch.minimum(x, y) if smallest else torch.maximum(x, y)


@dataclass(frozen=True)
class Larger(Either):
    """max(x, y), or min(x, y) where `smallest`, of inputs z, x, y, where z is the same by other means."""

    smallest: bool = False

    def forward(self, *inputs: Tensor) -> Tensor:
        """max(x, y): z without the rounding of its sum."""
        return self._of(inputs[1], inputs[2], self.smallest)

    def _enclosed(self, x: Interval, y: Interval) -> Interval:
        """[max(l_x, l_y), max(u_x, u_y)], exactly the hull of the maximum."""
        return Interval(self._of(x.lower, y.lower, self.smallest), self._of(x.upper, y.upper, self.smallest))
