"""A value times a number of which only bounds are known: what a derivative is made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation


@dataclass(frozen=True)
class Gain(Elementwise):
    """d z for some d in [lower, upper], each [*node]; `forward` takes the middle.

    The smallest d z, over d, is concave in z, and the largest convex: with z on both sides of 0 their chords are the
    closest lines; on one side of 0 they are lines themselves. fixed: where z is on both sides of 0 only the ends of
    d z are kept, as intervals do (RecurJac: Zhang et al. 2019).   Source: lipschitz.md, section 4; Shi et al. 2022.
    """

    lower: Tensor
    upper: Tensor
    fixed: bool = False

    onnx: ClassVar[tuple[str, ...]] = ()

    def forward(self, *inputs: Tensor) -> Tensor:
        """The middle of what is known of d, times z."""
        return (self.lower + self.upper) / 2 * inputs[0]

    def interval(self, *inputs: Interval) -> Interval:
        """The extremes of the four products: exact."""
        products = torch.stack([d * z for d in (self.lower, self.upper) for z in (inputs[0].lower, inputs[0].upper)])
        return Interval(products.amin(0), products.amax(0))

    def derivative(self, box: Interval) -> Interval:
        """That of d z for any d."""
        return Interval(self.lower.expand_as(box.lower), self.upper.expand_as(box.lower))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where d is open and z on both sides of 0."""
        return (inputs[0].unstable & (self.lower < self.upper),)

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """The chords, or the exact lines."""
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax`; there is nothing to choose."""
        negative, positive = lower.clamp(max=0), upper.clamp(min=0)
        width = (positive - negative).clamp(min=torch.finfo(lower.dtype).tiny)
        left, right = -negative / width, positive / width
        least, most = self.lower.expand_as(lower), self.upper.expand_as(lower)
        low, high = left * most + right * least, left * least + right * most
        # From (l, most l) to (u, least u): the intercept is (least - most) u left = (least - most) (-l) right.
        gap = (most - least) * (positive * left)
        if self.fixed:
            both = (lower < 0) & (upper > 0)
            low, high = torch.where(both, 0.0, low), torch.where(both, 0.0, high)
            ends = self.interval(Interval(lower, upper))
            below, above = torch.where(both, ends.lower, -gap), torch.where(both, ends.upper, gap)
        else:
            below, above = -gap, gap
        lines = Relaxation(low, below, high, above)
        return lambda parameters: lines
