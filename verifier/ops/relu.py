"""max(z, 0)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation


@dataclass(frozen=True)
class Relu(Elementwise):
    """relu(z) = max(z, 0)."""

    onnx = ("Relu",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """max(z, 0)."""
        return inputs[0].clamp(min=0)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The unstable neurons: a stable one has its exact line already."""
        return (inputs[0].unstable,)

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Alpha z <= relu(z) <= u (z - l) / (u - l)  for every z in [l, u], alpha = 1 where u > -l, else 0.

        Stable neurons get the exact line. The upper slope is rounded to nearest: a search result, not a proof
        (see provenn.verifier.check).   Source: Zhang et al. 2018 (CROWN), eq. 4-5 and the adaptive slope of 5.2.
        """
        positive, negative = upper.clamp(min=0), lower.clamp(max=0)
        slope = positive / (positive - negative).clamp(min=torch.finfo(upper.dtype).tiny)
        slope = torch.where(lower >= 0, torch.ones_like(slope), slope)
        return Relaxation((slope > 0.5).to(slope.dtype), None, slope, -slope * negative)
