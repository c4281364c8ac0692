"""A value held within constant limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation
from provenn.verifier.ops.lines import apart, chord, together


@dataclass(frozen=True)
class Clip(Elementwise):
    """min(max(z, minimum), maximum); either limit may be infinite.   Raises: InvalidModel if minimum > maximum."""

    minimum: float
    maximum: float

    onnx = ("Clip", "HardSigmoid")
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

    def free(self, *inputs: Interval) -> Tensor | None:
        """Which of an envelope's two pieces: 0 the constant, 1 the chord, for the lower and the upper line.

        [1, batch, 2 channels, *size].
        """
        return together(self._starts(inputs[0].lower, inputs[0].upper))

    def derivative(self, box: Interval) -> Interval:
        """1 between the limits, 0 beyond them, [0, 1] where a limit is met."""
        strictly = (box.lower > self.minimum) & (box.upper < self.maximum)
        somewhere = (box.upper >= self.minimum) & (box.lower <= self.maximum)
        return Interval(strictly.to(box.lower.dtype), somewhere.to(box.lower.dtype))

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """Lower line through (p, f(p)), p = max(l, minimum); upper line through (q, f(q)), q = min(u, maximum).

        On [l, u] the convex envelope is the constant `minimum` up to p, then the chord from p to u; the concave one
        the chord from l to q, then the constant `maximum`. Of an envelope's two pieces, each extended, the one that
        encloses less area is taken: the chord where its own piece is the longer one, as for a ReLU. Parameters mix
        the two where both are pieces of nonzero length; a mixture of lines that hold is a line that holds.
        """
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes: the pieces are found once."""
        p, q = lower.clamp(min=self.minimum), upper.clamp(max=self.maximum)
        first, second = self.forward(lower), self.forward(upper)
        at_p, at_q = self.forward(p), self.forward(q)
        inside = (lower >= self.minimum) & (upper <= self.maximum)
        rising, low = _unless(inside, *_chord(p, at_p, upper, second))
        falling, high = _unless(inside, *_chord(lower, first, q, at_q))
        starts = self._starts(lower, upper)

        def lines(parameters: Tensor | None) -> Relaxation:
            below, above = starts if parameters is None else apart(parameters, lower, 2)
            below = torch.where(lower < self.minimum, below, 1.0)
            above = torch.where(upper > self.maximum, above, 1.0)
            low_mixed, high_mixed = torch.lerp(at_p, low, below), torch.lerp(at_q, high, above)
            return Relaxation(below * rising, low_mixed, above * falling, high_mixed)

        return lines

    def _starts(self, lower: Tensor, upper: Tensor) -> Tensor:
        """1 where the chord's own piece is the longer one: [2, batch, *node]."""
        p, q = lower.clamp(min=self.minimum), upper.clamp(max=self.maximum)
        return torch.stack([upper - p > p - lower, q - lower > upper - q]).to(lower.dtype)


def _chord(x: Tensor, fx: Tensor, y: Tensor, fy: Tensor) -> tuple[Tensor, Tensor]:
    """(slope, intercept); the constant fx where x >= y: drawn from 0 to 1, no quotient of nothing has a derivative."""
    some = x < y
    x, y = torch.where(some, x, 0.0), torch.where(some, y, 1.0)
    return chord(x, fx, y, torch.where(some, fy, fx))


def _unless(inside: Tensor, slope: Tensor, intercept: Tensor) -> tuple[Tensor, Tensor]:
    """The line, or z itself where that is the function."""
    return torch.where(inside, 1.0, slope), torch.where(inside, 0.0, intercept)
