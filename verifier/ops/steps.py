"""Functions that are constant between jumps: signs and roundings."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.lines import apart, held, together

ULPS = 8
"""Roundings of the products and sums that make an intercept."""


@dataclass(frozen=True)
class Step(Elementwise):
    """A non-decreasing function whose values are whole numbers.

    Its lowest points are (l, f(l)), the points just before the first and the last jump, and (u, f(u)): with steps of
    one size and length everything between lies on or above the line through the two jumps. Its highest points
    likewise. A line of any slope through the one of the four that it meets first is a bound.

    slack: by how much bounds of the argument may be off: roundings of it that pass a jump are errors as large as that.
    """

    slack: float = 0.0

    separable = True

    @abstractmethod
    def jumps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the value leaves `low`, where it reaches `high`, and the size of a jump; low < high are values."""

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where the box has a jump: elsewhere the function is constant."""
        reached = self.interval(*inputs)
        return (reached.lower < reached.upper,)

    def interval(self, *inputs: Interval) -> Interval:
        """The values at the ends, as far as these are known."""
        return Interval(self.forward(inputs[0].lower - self.slack), self.forward(inputs[0].upper + self.slack))

    def derivative(self, box: Interval) -> Interval:
        """0; infinite above where the box touches a jump."""
        near = self.forward(torch.nextafter(box.lower, torch.full_like(box.lower, -inf)))
        far = self.forward(torch.nextafter(box.upper, torch.full_like(box.upper, inf)))
        zero = torch.zeros_like(box.lower)
        return Interval(zero, torch.where(near < far, inf, zero))

    def free(self, *inputs: Interval) -> Tensor | None:
        """The slopes of the lower and the upper line, as shares of the steepest: [1, batch, 2 channels, *size]."""
        return together(_Corners(self, inputs[0].lower - self.slack, inputs[0].upper + self.slack).starts())

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """Of the lines along the corners those that are nearest at the midpoint; parameters turn them."""
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes: the corners are found once."""
        corners = _Corners(self, lower - self.slack, upper + self.slack)
        starts = corners.starts()

        def lines(parameters: Tensor | None) -> Relaxation:
            below, above = starts if parameters is None else apart(parameters, lower, 2)
            return Relaxation(*corners.lower_line(below), *corners.upper_line(above))

        return lines


class _Corners:
    """The corners of a step function's graph over boxes, lower and upper ones: (z, value) each."""

    def __init__(self, op: Step, lower: Tensor, upper: Tensor) -> None:
        first, last = op.forward(lower), op.forward(upper)
        self.flat = first == last
        leaves, reaches, size = op.jumps(first, last)
        leaves, reaches = held(leaves, lower, upper), held(reaches, lower, upper)
        self.lower, self.upper = lower, upper
        self.below = ((lower, first), (leaves, first), (reaches, last - size), (upper, last))
        self.above = ((lower, first), (leaves, first + size), (reaches, last), (upper, last))
        width = (upper - lower).clamp(min=_least(lower))
        # From jump to jump, then on to the far end; of that no more than a line through the midpoint can use.
        self.through = _ratio(last - size - first, reaches - leaves)
        most = 2 * (last - first) / width
        ends = torch.stack([_ratio(size, upper - reaches), _ratio(size, leaves - lower)])
        self.steepest = torch.where(self.flat, 0.0, torch.maximum(self.through, torch.minimum(ends, most)))
        self.slack = ULPS * torch.finfo(lower.dtype).eps

    def starts(self) -> Tensor:
        """Of the slopes along the corners, as shares of the steepest, those of the lines nearest at the midpoint."""
        middle = self.lower / 2 + self.upper / 2
        share = _ratio(self.through.expand_as(self.steepest), self.steepest).clamp(0, 1)
        choices = torch.stack([torch.zeros_like(share), share, torch.ones_like(share)])
        low_slope, low = self.lower_line(choices[:, 0])
        high_slope, high = self.upper_line(choices[:, 1])
        lowest = (low_slope * middle + low).argmax(0, keepdim=True)
        highest = (high_slope * middle + high).argmin(0, keepdim=True)
        return torch.stack([choices[:, 0].gather(0, lowest)[0], choices[:, 1].gather(0, highest)[0]])

    def lower_line(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """(slope, intercept) below every lower corner."""
        slope = share * self.steepest[0]
        level = torch.stack([v - slope * z - self._slack(slope, z, v) for z, v in self.below]).amin(0)
        return slope, torch.where(self.flat, self.below[0][1], level)

    def upper_line(self, share: Tensor) -> tuple[Tensor, Tensor]:
        """(slope, intercept) above every upper corner."""
        slope = share * self.steepest[1]
        level = torch.stack([v - slope * z + self._slack(slope, z, v) for z, v in self.above]).amax(0)
        return slope, torch.where(self.flat, self.above[0][1], level)

    def _slack(self, slope: Tensor, z: Tensor, value: Tensor) -> Tensor:
        return self.slack * ((slope * z).abs() + value.abs())


@dataclass(frozen=True)
class Sign(Step):
    """-1, 0 or 1."""

    onnx = ("Sign",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The sign."""
        return torch.sign(inputs[0])

    def jumps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All at 0."""
        zero = torch.zeros_like(low)
        return zero, zero, high - low


@dataclass(frozen=True)
class Floor(Step):
    """The largest whole number that is not above z."""

    onnx = ("Floor",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The floor."""
        return torch.floor(inputs[0])

    def jumps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At whole numbers, which have the higher value."""
        return low + 1, high, torch.ones_like(low)


@dataclass(frozen=True)
class Ceil(Step):
    """The smallest whole number that is not below z."""

    onnx = ("Ceil",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The ceiling."""
        return torch.ceil(inputs[0])

    def jumps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """At whole numbers, which have the lower value."""
        return low, high - 1, torch.ones_like(low)


@dataclass(frozen=True)
class Round(Step):
    """The nearest whole number; of two, the even one."""

    onnx = ("Round",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The rounded number."""
        return torch.round(inputs[0])

    def jumps(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Half way between whole numbers."""
        return low + 0.5, high - 0.5, torch.ones_like(low)


def _ratio(rise: Tensor, run: Tensor) -> Tensor:
    """The slope, at most `rise / _least`; 0 over nothing."""
    return torch.where(run > 0, rise / run.clamp(min=_least(run)), 0.0)


def _least(like: Tensor) -> float:
    """The least run that slopes are taken over: beyond it their derivatives, and then they themselves, overflow."""
    return 2 * math.sqrt(torch.finfo(like.dtype).tiny)
