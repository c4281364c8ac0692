"""Layer, instance, group and root-mean-square normalization.

With s(x) = sqrt(mean(x^2) + epsilon) over a set of n cells, RMSNorm is x / s(x), and the others are c / s(c) of the
centred cells c = x - mean(x). That is read as three nodes: s, its reciprocal r, and the product y = c r. Each has
bounds of its own; the product knows besides what the box of c alone says. With Q the sum of the other cells' squares

    y_i = c_i / sqrt((c_i^2 + Q) / n + epsilon),

which increases with c_i, and falls in size as Q grows. Where the cells sum to 0, Q >= c_i^2 / (n - 1), whence the
well-known |y_i| <= sqrt(n - 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization
from provenn.verifier.ops.cells import gathered, scattered, sets, sum_of_others
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.product import Multiply, Plane, between, mixtures
from provenn.verifier.ops.relaxed import Relaxer
from provenn.verifier.ops.root_mean_square import squares

MARGIN = 2.0**-20
"""By how much, relatively, the line must be the better one to be chosen: where both are exact, no rounding chooses."""


@dataclass(frozen=True, eq=False)
class Band:
    """c / s(c) from above over boxes [batch, *rest, cells] of c: curve(c) = c / sqrt(share c^2 + rest), c >= 0.

    That is concave, with share c^2 + rest <= s(c)^2 for the least squares of the others; steep: the same right of 0
    as `falling` left of it, where the value is convex and the others have their largest squares.
    """

    lower: Tensor
    upper: Tensor
    share: Tensor
    rest: Tensor
    falling: Tensor

    @classmethod
    def of(cls, box: Interval, epsilon: float, centred: bool) -> Band:
        """max(Q, c^2 / (n - 1)) is at least either: the one that is larger at the upper end is kept."""
        count = box.lower.shape[-1]
        least, most = (sum_of_others(square) / count for square in squares(box))
        share = torch.full_like(least, 1 / count)
        if centred and count > 1:
            top = box.upper.clamp(min=0)
            bound = top * top > (count - 1) * count * least
            share = torch.where(bound, 1 / (count - 1), share)
            least = torch.where(bound, 0.0, least)
        return cls(box.lower, box.upper, share, least + epsilon, most + epsilon)

    @property
    def unit(self) -> float:
        """The relative rounding of a value."""
        return (self.lower.shape[-1] + 8) * torch.finfo(self.lower.dtype).eps

    @property
    def largest(self) -> Tensor:
        """The largest value, widened by its rounding."""
        top, bottom = self.upper.clamp(min=0), self.upper.clamp(max=0)
        return self._curve(top) * (1 + self.unit) + self._falling(bottom) * (1 - self.unit)

    def line(self, place: Tensor | float) -> tuple[Tensor, Tensor]:
        """(slope, intercept) of a line in c above the value: the tangent of the curve at a point right of 0.

        It is moved up until it is above the value left of 0 too, which is convex there: at 0 and at the lower end.
        Where all of the box lies left of 0 it is the chord.
        """
        start, end = self.lower.clamp(min=0), self.upper.clamp(min=0)
        low, high = self.lower.clamp(max=0), self.upper.clamp(max=0)
        point = start + place * (end - start)
        root = self._root(point)
        tangent = self.rest / root / root / root
        at_low, at_high = self._falling(low), self._falling(high)
        negative = self.upper <= 0
        width = torch.where(negative & (high > low), high - low, 1.0)
        slope = torch.where(negative, (at_high - at_low) / width, tangent)
        right = torch.where(negative, at_high - slope * high, point / root - slope * point)
        intercept = torch.maximum(right, torch.maximum(at_low - slope * low, at_high - slope * high))
        # The chord's slope is nowhere negative, but over a box of a few roundings it can come out so.
        error = point / root - at_low + slope.abs() * (point - low - high)
        return slope, intercept + self.unit * error + torch.finfo(slope.dtype).tiny

    def _curve(self, c: Tensor) -> Tensor:
        return c / self._root(c)

    def _root(self, c: Tensor) -> Tensor:
        """Of share c^2 + rest: where that overflows the largest number, which is less."""
        return torch.sqrt((self.share * c * c + self.rest).clamp(max=torch.finfo(c.dtype).max))

    def _falling(self, c: Tensor) -> Tensor:
        return c / torch.sqrt(c * c / c.shape[-1] + self.falling)


@dataclass(frozen=True)
class Normalize(Multiply):
    """c r with r = 1 / s(c), of inputs c and r; `centred`: the cells of c sum to 0 along `axes`.

    Lines are mixtures of McCormick's planes and of a line in c alone (see `Band`).
    Sound only in a graph where r and c are what they should be; no operator of its own, so not in the table of ops.
    """

    axes: tuple[int, ...]
    epsilon: float
    centred: bool

    onnx = ()

    def interval(self, *inputs: Interval) -> Interval:
        """The box of the product cut by what the box of c alone allows."""
        above, below = self._bands(inputs[0])
        shape = inputs[0].lower.shape[1:]
        alone = Interval(*(scattered(end, self.axes, shape) for end in (-below.largest, above.largest)))
        both = super().interval(*inputs).intersect(alone)
        # On boxes of no width the two can differ by roundings and miss each other; then both belong to the box.
        return Interval(torch.minimum(both.lower, both.upper), torch.maximum(both.lower, both.upper))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """With ds = s(c) - s(c'),  c r - c' r' = r (dc - y' ds)  and  ds = mean(z dc): dr = -r r' ds is not needed.

        Here z = (c + c') / (s(c) + s(c')) is a mean of y and y', as for `RootMeanSquare`, so it lies in y's box.
        """
        boxes = scope.boxes()
        (_, r), y = self._boxes(boxes), self.interval(*boxes)
        dc, axes = inputs[0], tuple(axis + 1 for axis in self.axes)
        ds = scope.units(dc, y.lower, y.upper).through(lambda x: x.mean(axes, keepdim=True).expand(x.shape))
        return scope.units(dc - scope.units(ds, y.lower, y.upper), r.lower, r.upper)

    def free(self, *inputs: Interval) -> Tensor | None:
        """For each side the mixture of the planes, the weight of the line in c, and where it touches.

        [1, batch, 6, *node].
        """
        return torch.stack(self._choices(inputs), 1).unsqueeze(0)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The mixtures, by default of McCormick's planes or the line, whichever is nearer to y at the centre."""
        mixed = self._mixer(inputs)
        shapes = [tuple(b.lower.shape[1:]) for b in inputs]

        def lines(parameters: Tensor | None) -> Linearization:
            choices = self._choices(inputs) if parameters is None else parameters.unbind(2)
            return between(*mixed(choices), shapes)

        return lines

    @torch.no_grad()
    def _choices(self, inputs: Sequence[Interval]) -> tuple[Tensor, ...]:
        """The default parameters: planes, weights of the lines, places; each below and above."""
        low, high = self._start(*self._boxes(inputs))
        middle = torch.full_like(low, 0.5)
        none, all_ = torch.zeros_like(low), torch.ones_like(low)
        centres = [b.lower / 2 + b.upper / 2 for b in inputs]
        heights = []
        mixed = self._mixer(inputs)
        for weight in (none, all_):
            pair = mixed((low, high, weight, weight, middle, middle))
            heights.append([p.slopes[0] * centres[0] + p.slopes[1] * centres[1] + p.intercept for p in pair])
        (plane, ceiling), (line, roof) = heights
        below, above = ((gain > MARGIN * plane.abs()).to(low.dtype) for gain in (line - plane, ceiling - roof))
        return low, high, below, above, middle, middle

    def _mixer(self, inputs: Sequence[Interval]) -> Callable[[Sequence[Tensor]], tuple[Plane, Plane]]:
        """Six choices [(spec,) batch, *node] -> the planes below and above."""
        x, y = self._boxes(inputs)
        above, below = self._bands(inputs[0])

        def mixed(choices: Sequence[Tensor]) -> tuple[Plane, Plane]:
            low, high, weight, other, place, far = choices
            first, second = mixtures(x, y, low, high)
            (slope, offset), (steep, height) = self._line(below, place, inputs[0]), self._line(above, far, inputs[0])
            return _blend(first, weight, slope, -offset), _blend(second, other, steep, height)

        return mixed

    def _line(self, band: Band, place: Tensor, like: Interval) -> tuple[Tensor, Tensor]:
        """The band's line for places laid out as the node: [(spec,) batch, *node]."""
        shape, before = like.lower.shape[1:], place.dim() + 1 - like.lower.dim()
        slope, intercept = band.line(gathered(place, self.axes, before))
        return scattered(slope, self.axes, shape, before), scattered(intercept, self.axes, shape, before)

    def _bands(self, c: Interval) -> tuple[Band, Band]:
        """Around c r from above, and around -c r from above: a line that is above -y(-c) is below y(c) turned over."""
        box = sets(c, self.axes)
        turned = Interval(-box.upper, -box.lower)
        return Band.of(box, self.epsilon, self.centred), Band.of(turned, self.epsilon, self.centred)


def _blend(plane: Plane, weight: Tensor, slope: Tensor, intercept: Tensor) -> Plane:
    """Weight times the line in the first input, 1 - weight times the plane."""
    rest = 1 - weight
    slopes = rest * plane.slopes[0] + weight * slope, rest * plane.slopes[1]
    return Plane(slopes, rest * plane.intercept + weight * intercept)
