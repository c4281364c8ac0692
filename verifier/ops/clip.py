"""A value held within constant limits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.lines import chord


@dataclass(frozen=True)
class Clip(Elementwise):
    """min(max(z, minimum), maximum); either limit may be infinite.   Raises: InvalidModel if minimum > maximum."""

    minimum: float
    maximum: float

    onnx = ("Clip",)
    separable = True

    def __post_init__(self) -> None:
        if not self.minimum <= self.maximum or self.minimum == float("inf") or self.maximum == -float("inf"):
            raise InvalidModel(f"Clip: no numbers lie between minimum {self.minimum} and maximum {self.maximum}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """Z, held within the limits."""
        return inputs[0].clamp(self.minimum, self.maximum)

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The neurons with a limit strictly inside: the others have their exact line already."""
        lower, upper = inputs[0].lower, inputs[0].upper
        crosses = [(lower < limit) & (upper > limit) for limit in (self.minimum, self.maximum)]
        return (crosses[0] | crosses[1],)

    def relax(self, lower: Tensor, upper: Tensor) -> Relaxation:
        """Lower line through (p, f(p)), p = max(l, minimum); upper line through (q, f(q)), q = min(u, maximum).

        On [l, u] the convex envelope is the constant `minimum` up to p, then the chord from p to u; the concave one
        the chord from l to q, then the constant `maximum`. Of an envelope's two pieces, each extended, the one that
        encloses less area is taken: the chord where its own piece is the longer one, as for a ReLU.
        """
        p, q = lower.clamp(min=self.minimum), upper.clamp(max=self.maximum)
        first, second = self.forward(lower), self.forward(upper)
        at_p, at_q = self.forward(p), self.forward(q)
        rising, low = chord(p, at_p, upper, second)
        falling, high = chord(lower, first, q, at_q)
        up, down = upper - p > p - lower, q - lower > upper - q
        rising, low = torch.where(up, rising, 0.0), torch.where(up, low, at_p)
        falling, high = torch.where(down, falling, 0.0), torch.where(down, high, at_q)
        inside = (lower >= self.minimum) & (upper <= self.maximum)
        return Relaxation(
            torch.where(inside, 1.0, rising),
            torch.where(inside, 0.0, low),
            torch.where(inside, 1.0, falling),
            torch.where(inside, 0.0, high),
        )
