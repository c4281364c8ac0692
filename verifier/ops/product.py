"""Products of two computed values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Shape
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.monotone import aligned, summed_to
from provenn.verifier.ops.pull import weighed
from provenn.verifier.ops.relaxed import Relaxed, Relaxer


@dataclass(frozen=True, eq=False)
class Plane:
    """slopes[0] x + slopes[1] y + intercept: [(spec,) batch, *node] each."""

    slopes: tuple[Tensor, Tensor]
    intercept: Tensor

    @classmethod
    def mixed(cls, p: Tensor, x: tuple[Tensor, Tensor], y: tuple[Tensor, Tensor]) -> Plane:
        """1 - p times the plane that touches x y along x = x[0] and y = y[0], plus p times that through x[1], y[1]."""
        slope, other = y[0] + p * (y[1] - y[0]), x[0] + p * (x[1] - x[0])
        near = x[0] * y[0]
        return cls((slope, other), -(near + p * (x[1] * y[1] - near)))


def mixtures(x: Interval, y: Interval, below: Tensor, above: Tensor) -> tuple[Plane, Plane]:
    """Planes below and above x y; 1 stands for those through the ends (l_x, l_y) and (l_x, u_y)."""
    low = Plane.mixed(below, (x.upper, x.lower), (y.upper, y.lower))
    return low, Plane.mixed(above, (x.upper, x.lower), (y.lower, y.upper))


def between(low: Plane, high: Plane, shapes: Sequence[Shape]) -> Linearization:
    """The bounds of rows over inputs of `shapes`: the plane below where they are positive, else that above."""

    def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        positive, negative = coefficients.clamp(min=0), coefficients.clamp(max=0)
        constant = weighed(positive, low.intercept) + weighed(negative, high.intercept)
        slopes = zip(low.slopes, high.slopes, shapes, strict=True)
        pulled = [summed_to(torch.addcmul(positive * a, negative, b).flatten(0, 1), s) for a, b, s in slopes]
        rows = coefficients.shape[:2]
        return tuple(p.reshape(*rows, *s) for p, s in zip(pulled, shapes, strict=True)), constant

    return pull


@dataclass(frozen=True)
class Multiply(Relaxed):
    """x y with numpy broadcasting over the nodes' axes.

    Over a box (x - l_x)(y - l_y) >= 0 and (u_x - x)(u_y - y) >= 0 give two planes below x y,

        l_y x + l_x y - l_x l_y   and   u_y x + u_x y - u_x u_y,

    and the two other products of distances two planes above it. Every mixture p first + (1 - p) second is sound, with
    one p a coordinate for each side; all mixtures enclose the same volume.   Source: McCormick 1976.
    Rounded to nearest: a plane can be wrong by 4 roundings of max|x| max|y|.
    """

    onnx: ClassVar[tuple[str, ...]] = ("Mul", "Div", "Einsum")

    def forward(self, *inputs: Tensor) -> Tensor:
        """X y."""
        x, y = self._aligned(*inputs)
        return x * y

    def interval(self, *inputs: Interval) -> Interval:
        """The extremes of the products of ends: exact."""
        x, y = self._boxes(inputs)
        first, second, third, fourth = x.lower * y.lower, x.lower * y.upper, x.upper * y.lower, x.upper * y.upper
        lower = torch.minimum(torch.minimum(first, second), torch.minimum(third, fourth))
        return Interval(lower, torch.maximum(torch.maximum(first, second), torch.maximum(third, fourth)))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Where both factors are open: a product with a constant is exact."""
        x, y = self._boxes(inputs)
        both = ((x.lower < x.upper) & (y.lower < y.upper)).to(x.lower.dtype)
        return tuple(summed_to(both, tuple(b.lower.shape[1:])) > 0 for b in inputs)

    def free(self, *inputs: Interval) -> Tensor | None:
        """The mixtures of the planes below and of those above: [1, batch, 2, *node]."""
        x, y = self._boxes(inputs)
        return torch.stack(self._start(x, y), 1).unsqueeze(0)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The mixtures of the planes, by default those whose extreme value over the box is that of x y."""
        x, y = self._boxes(inputs)
        shapes = [tuple(b.lower.shape[1:]) for b in inputs]

        def lines(parameters: Tensor | None) -> Linearization:
            choices = self._start(x, y) if parameters is None else parameters.unbind(2)
            return between(*mixtures(x, y, *choices), shapes)

        return lines

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Two layers of units, with the other factor as slope:  x y - x' y' = y (x - x') + x' (y - y')."""
        x, y = self._boxes(scope.boxes())
        shape = x.lower.shape[1:]
        dx, dy = (d.through(lambda v: aligned(v, len(shape)).expand(len(v), *shape)) for d in inputs)
        return scope.units(dx, y.lower, y.upper) + scope.units(dy, x.lower, x.upper)

    def _start(self, x: Interval, y: Interval) -> tuple[Tensor, Tensor]:
        """The mixtures whose extreme value over the box is that of x y itself.

        With centres c, d and radii r, s the plane below has the slopes d + a s and c + a r, a = 1 - 2 p, and its least
        value is  c d - r s (1 + |a + d / s| + |a + c / r|),  the same for all a between -d / s and -c / r, and greatest
        there: halfway between the two, both held in [-1, 1]. The planes above are those below x (-y), turned over.
        """
        first, second = positive_share(x), positive_share(y)
        return (first + second) / 2, (first + 1 - second) / 2

    def _aligned(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rank = max(x.dim(), y.dim()) - 1
        return aligned(x, rank), aligned(y, rank)

    def _boxes(self, inputs: Sequence[Interval]) -> tuple[Interval, Interval]:
        """Both boxes, repeated to the result's shape."""
        ends = [self._aligned(*pair) for pair in ((b.lower for b in inputs), (b.upper for b in inputs))]
        shape = [max(extents) for extents in zip(ends[0][0].shape, ends[0][1].shape, strict=True)]
        first, second = (Interval(*(pair[side].expand(shape) for pair in ends)) for side in (0, 1))
        return first, second


def positive_share(x: Interval) -> Tensor:
    """Which part of the box is positive: in [0, 1]."""
    return (x.upper / (x.upper - x.lower).clamp(min=torch.finfo(x.upper.dtype).tiny)).clamp(0, 1)
