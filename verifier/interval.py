"""An interval tensor: one lower and one upper bound a neuron."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


def sure(lower: Tensor) -> Tensor:
    """The lower bounds that are some: nan and plus infinity, which overflow makes, become minus infinity."""
    inf = float("inf")
    return lower.nan_to_num(nan=-inf, posinf=-inf, neginf=-inf)


@dataclass(frozen=True, eq=False)
class Interval:
    """lower <= value <= upper, elementwise, over [batch, *node]."""

    lower: Float[Tensor, "batch *node"]
    upper: Float[Tensor, "batch *node"]

    def intersect(self, other: Interval) -> Interval:
        """The tighter of two valid intervals, side by side."""
        return Interval(torch.maximum(self.lower, other.lower), torch.minimum(self.upper, other.upper))

    @property
    def unstable(self) -> Tensor:
        """Where zero lies strictly inside: [batch, *node] of bool."""
        return (self.lower < 0) & (self.upper > 0)
