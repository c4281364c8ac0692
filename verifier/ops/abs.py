"""|z|, and two half-lines whose slopes differ from neuron to neuron."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Relaxation, Shape
from provenn.verifier.ops.leaky_relu import LeakyRelu, negative_share
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.window import Window


@dataclass(frozen=True)
class Abs(LeakyRelu):
    """|z|: z right of 0, -z left of it."""

    slope: float = -1.0

    onnx = ("Abs", "ReduceL1")

    def __post_init__(self) -> None:
        if self.slope != -1:
            raise InvalidModel(f"Abs: its slope left of 0 is -1, not {self.slope}")

    def forward(self, *inputs: Tensor) -> Tensor:
        """|z|."""
        return inputs[0].abs()


@dataclass(frozen=True)
class PRelu(Elementwise):
    """z where z >= 0, slope z elsewhere; slope broadcasts to the node (one number a channel: [channels, 1, ..])."""

    slope: Tensor

    onnx = ("PRelu",)
    kink = 0.0
    separable = True

    def forward(self, *inputs: Tensor) -> Tensor:
        """Z or slope z."""
        return torch.where(inputs[0] >= 0, inputs[0], self.slope * inputs[0])

    def interval(self, *inputs: Interval) -> Interval:
        """Exact: the ends, and 0 where the box contains it (a negative slope turns there)."""
        lower, upper = inputs[0].lower, inputs[0].upper
        ends = torch.stack([self.forward(x) for x in (lower, upper, torch.minimum(lower.clamp(min=0), upper))])
        return Interval(ends.amin(0), ends.amax(0))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The unstable neurons: a stable one has its exact line already."""
        return (inputs[0].unstable,)

    def free(self, *inputs: Interval) -> Tensor | None:
        """The free slope as relu's: 0 stands for `slope`, 1 for 1."""
        return Relu().free(*inputs)

    def derivative(self, box: Interval) -> Interval:
        """`slope` left of the kink, 1 right of it, what lies between across it."""
        low, high = self.slope.clamp(max=1), self.slope.clamp(min=1)
        left, right = box.upper < 0, box.lower > 0
        ends = (torch.where(left, self.slope, torch.where(right, 1.0, x)) for x in (low, high))
        return Interval(*ends)

    def relax(self, lower: Tensor, upper: Tensor, parameters: Tensor | None = None) -> Relaxation:
        """The lines of relu, lifted:  prelu(z) = s z + (1 - s) relu(z);  for s > 1 the factor 1 - s swaps them."""
        return self.relaxer(lower, upper)(parameters)

    def relaxer(self, lower: Tensor, upper: Tensor) -> Callable[[Tensor | None], Relaxation]:
        """`relax` over fixed boxes, from relu's."""
        relu, share = Relu().relaxer(lower, upper), negative_share(lower, upper)
        least, most = self.slope.clamp(max=1), self.slope.clamp(min=1)
        convex, zero = self.slope <= 1, torch.zeros_like(lower)

        def lines(parameters: Tensor | None) -> Relaxation:
            relaxed = relu(parameters)
            line = relaxed.lower_slope + self.slope * (1 - relaxed.lower_slope)
            line, chord = line.clamp(least, most), relaxed.upper_slope + self.slope * share
            intercept = (1 - self.slope) * relaxed.upper_intercept
            return Relaxation(
                torch.where(convex, line, chord),
                torch.where(convex, zero, intercept),
                torch.where(convex, chord, line),
                torch.where(convex, intercept, zero),
            )

        return lines

    def reach(self, window: Window, shapes: Sequence[Shape]) -> tuple[Window, ...] | None:
        """The same window, where slopes do not differ within a channel."""
        aligned = (1,) * (len(shapes[0]) - self.slope.dim()) + tuple(self.slope.shape)
        return (window,) if all(size == 1 for size in aligned[1:]) else None
