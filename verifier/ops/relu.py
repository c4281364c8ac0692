"""max(z, 0)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation


@dataclass(frozen=True)
class Relu(Elementwise):
    """relu(z) = max(z, 0)."""

    onnx = ("Relu",)
    kink = 0.0

    def forward(self, *inputs: Tensor) -> Tensor:
        """max(z, 0)."""
        return inputs[0].clamp(min=0)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The unstable neurons: a stable one has its exact line already."""
        return (inputs[0].unstable,)

    def free(self, *inputs: Interval) -> Tensor | None:
        """The lower slope: 1 where u > -l, else 0."""
        return (inputs[0].upper > -inputs[0].lower).to(inputs[0].upper.dtype).unsqueeze(0)

    def derivative(self, box: Interval) -> Interval:
        """0 left of the kink, 1 right of it, [0, 1] across it."""
        return Interval((box.lower > 0).to(box.lower.dtype), (box.upper >= 0).to(box.upper.dtype))

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """Alpha z <= relu(z) <= u (z - l) / (u - l)  for every z in [l, u] and any alpha in [0, 1].

        Stable neurons get the exact line. The upper slope is rounded to nearest: a search result, not a proof
        (see provenn.verifier.check).   Source: Zhang et al. 2018 (CROWN), eq. 4-5 and the adaptive slope of 5.2.
        """
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes: only the lower slope depends on the parameters."""
        positive, negative = upper.clamp(min=0), lower.clamp(max=0)
        slope = positive / (positive - negative).clamp(min=torch.finfo(upper.dtype).tiny)
        stable = (lower >= 0).to(slope.dtype)
        slope = torch.maximum(slope, stable)
        intercept = slope * -negative
        steep, unstable = (slope > 0.5).to(slope.dtype), None

        def lines(parameters: Tensor | None) -> Relaxation:
            nonlocal unstable
            if parameters is None:
                return Relaxation(steep, None, slope, intercept)
            if unstable is None:
                unstable = ((lower < 0) & (upper > 0)).to(slope.dtype)
            return Relaxation(stable + unstable * parameters, None, slope, intercept)

        return lines
