"""A value that a condition lets through."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.monotone import aligned, summed_to
from provenn.verifier.ops.pull import weighed


@dataclass(frozen=True)
class Gate(Op):
    """x where d > 0, or d = 0 if `closed`, else 0: inputs d and x, numpy broadcasting over the nodes' axes.

    Where the sign of d is open the value is 0 or x, whatever d is: loose unless x is small. It serves for the jumps
    that rounded constants leave in functions that were meant to be continuous.

    slack: by how much bounds of d may be off.
    """

    closed: bool
    slack: float = 0.0

    onnx = ("Where", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")

    def forward(self, *inputs: Tensor) -> Tensor:
        """What gets through."""
        d, x = self._aligned(*inputs)
        return torch.where(d >= 0 if self.closed else d > 0, x, 0.0)

    def interval(self, *inputs: Interval) -> Interval:
        """The box of x, and 0 unless the gate is open for certain: exact."""
        is_open, is_shut, x = self._states(inputs)
        lower = torch.where(is_open, x.lower, torch.where(is_shut, 0.0, x.lower.clamp(max=0)))
        return Interval(lower, torch.where(is_open, x.upper, torch.where(is_shut, 0.0, x.upper.clamp(min=0))))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where the sign of d is undecided and x is not 0."""
        is_open, is_shut, x = self._states(inputs)
        some = (~(is_open | is_shut) & ((x.lower != 0) | (x.upper != 0))).to(x.lower.dtype)
        masks = [summed_to(some, tuple(b.lower.shape[1:])) > 0 for b in inputs]
        return tuple(mask & (b.lower < b.upper) for mask, b in zip(masks, inputs, strict=True))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Slope 1 or 0 where the state is decided; else infinite, at the jump, unless x is 0 all over its box.

        Raises: UnsupportedOp for a jump.
        """
        is_open, is_shut, x = self._states(scope.boxes())
        shape = x.lower.shape[1:]
        dx = inputs[1].through(lambda v: aligned(v, len(shape)).expand(len(v), *shape))
        undecided = torch.where((x.lower == 0) & (x.upper == 0), 1.0, inf).to(x.lower.dtype)
        lower = is_open.to(x.lower.dtype)
        return scope.units(dx, lower, torch.where(is_open | is_shut, lower, undecided))

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """X or 0 where that is decided; else between the chords of min(x, 0) and of max(x, 0)."""
        is_open, is_shut, x = self._states(inputs)
        shapes = [tuple(b.lower.shape[1:]) for b in inputs]
        falling, rising = x.lower.clamp(max=0), x.upper.clamp(min=0)
        width = torch.where(rising > falling, rising - falling, 1.0)
        low, high = -falling / width, rising / width
        undecided = ~(is_open | is_shut)
        low_intercept, high_intercept = -low * rising * undecided, -high * falling * undecided
        low, high = (torch.where(undecided, slope, is_open.to(slope.dtype)) for slope in (low, high))

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
            constant = weighed(positive, low_intercept) + weighed(negative, high_intercept)
            pulled = torch.addcmul(positive * low, negative, high).flatten(0, 1)
            rows, none = coefficients.shape[:2], coefficients.new_zeros(())
            return (none.expand(*rows, *shapes[0]), summed_to(pulled, shapes[1]).reshape(*rows, *shapes[1])), constant

        return pull

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the lines of `linearize`."""
        return self.linearize(inputs)(coefficients)

    def _states(self, inputs: Sequence[Interval]) -> tuple[Tensor, Tensor, Interval]:
        """(certainly open, certainly shut, the box of x), broadcast."""
        d, x = inputs
        lower, low = self._aligned(d.lower, x.lower)
        upper, high = self._aligned(d.upper, x.upper)
        lower, upper = lower - self.slack, upper + self.slack
        states = (lower >= 0, upper < 0) if self.closed else (lower > 0, upper <= 0)
        return *states, Interval(low, high)

    def _aligned(self, d: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        rank = max(d.dim(), x.dim()) - 1
        d, x = aligned(d, rank), aligned(x, rank)
        shape = [max(extents) for extents in zip(d.shape, x.shape, strict=True)]
        return d.expand(shape), x.expand(shape)
