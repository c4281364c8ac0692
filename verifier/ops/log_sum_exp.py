"""log(sum of exp) over axes, and the two lines about it that the softmax shares.

With E(x) = sum_j e^x_j <= F(x) = sum_j (the chord of e^x_j over [l_j, u_j]), which is affine, over the box:

    log E(z) + p . (x - z)  <=  log E(x)  <=  log F(x)  <=  log s + (F(x) - s) / s

for every point z, p = softmax(z), because log E is convex, and every s > 0, because log is concave. The upper line of
the best s is exact at every corner of the box where F(x) = s.   Everything is computed for x minus the largest u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization
from provenn.verifier.ops.cells import Axes, gathered, log_sum_exp_of_others, scattered, sets
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.monotone import require_axes
from provenn.verifier.ops.relaxed import Relaxed, Relaxer

ULPS = 8
"""Roundings allowed for in an exponential or a logarithm, and in the few products after it."""


@dataclass(frozen=True, eq=False)
class Exponentials:
    """Chords of e^(x - shift) over boxes [batch, *rest, cells], shift the largest upper bound of a set.

    F(x) = total - slope . (u - x), with total = F(u);  least = F(l).
    """

    box: Interval
    shift: Tensor
    slope: Tensor
    total: Tensor
    least: Tensor

    @classmethod
    def of(cls, box: Interval) -> Exponentials:
        """The slope is e^u (1 - e^-w) / w, w the width: it neither overflows nor cancels."""
        shift = box.upper.amax(-1, keepdim=True).detach()
        top = torch.exp(box.upper - shift)
        width = (box.upper - box.lower).clamp(min=torch.finfo(top.dtype).tiny)
        slope = top * (-torch.expm1(-width) / width)
        total = top.sum(-1, keepdim=True)
        return cls(box, shift, slope, total, torch.exp(box.lower - shift).sum(-1, keepdim=True))

    @property
    def unit(self) -> float:
        """The relative rounding of a sum of exponentials, and of a weighted sum of the cells."""
        return (self.slope.shape[-1] + ULPS) * torch.finfo(self.slope.dtype).eps

    @property
    def constant(self) -> Tensor:
        """F(0), and what rounding can add to F: [batch, *rest, 1]."""
        level = self.total - (self.slope * self.box.upper).sum(-1, keepdim=True)
        return level + self.rounding(self.slope) + self.unit * self.total

    def rounding(self, weight: Tensor) -> Tensor:
        """What rounding can add to a sum of the cells with these weights, also where rows over it cancel."""
        farthest = torch.maximum(self.box.lower.abs(), self.box.upper.abs())
        return (self.unit * weight * farthest).sum(-1, keepdim=True)

    def anchor(self, place: Tensor | float) -> Tensor:
        """Number s between F(l) and F(u), kept off 0: [(spec,) batch, *rest, 1 or cells]."""
        least = torch.maximum(self.least, self.total * 2.0**-20)
        return least + place * (self.total - least)

    def tangent(self, place: Tensor | float) -> tuple[Tensor, Tensor]:
        """(p, q) with  p . x + q <= log E(x)  for every x in the box: the tangent plane at a point of it."""
        lower, upper = self.box.lower, self.box.upper
        z = torch.minimum(lower + place * (upper - lower), upper) - self.shift
        slope = torch.softmax(z, -1)
        level = torch.logsumexp(z, -1, keepdim=True) - (slope * z).sum(-1, keepdim=True)
        # The sum of the slopes is 1 up to rounding, which counts where the shift is large.
        level = level + self.shift * (1 - slope.sum(-1, keepdim=True))
        # Where it is clamped the slope is 0, and 0 times an overflow would not be.
        turned = (1 + z.amax(-1, keepdim=True) - z).clamp(max=1e4) * (1 + upper - lower)
        error = self.unit * (1 + (slope * (turned - z)).sum(-1, keepdim=True))
        return slope, level - error - self.rounding(slope)


@dataclass(frozen=True)
class LogSumExp(Relaxed):
    """log(sum of exp(x)) along node axes.

    The lines are those at the head of this file; their free parameters are the point z and the number s.
    """

    axes: tuple[int, ...]
    keepdims: bool

    onnx = ("ReduceLogSumExp",)

    def __post_init__(self) -> None:
        require_axes(self.axes, "LogSumExp")
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise InvalidModel(f"LogSumExp: axes {self.axes} must be some, each named once")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The logarithm, without overflow."""
        return torch.logsumexp(inputs[0], tuple(axis + 1 for axis in self.axes), self.keepdims)

    def interval(self, *inputs: Interval) -> Interval:
        """Values at the ends, widened by their rounding: it increases with every cell."""
        ends = []
        for end, sign in ((inputs[0].lower, -1), (inputs[0].upper, 1)):
            value, cells = self.forward(end), gathered(end, self.axes)
            most = cells.amax(-1)
            error = Exponentials.of(Interval(cells, cells)).unit * (1 + (value.reshape(most.shape) - most).abs())
            ends.append(value + sign * (error + torch.finfo(value.dtype).eps * most.abs()).reshape(value.shape))
        return Interval(*ends)

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Cells weighed by their shares."""
        share, shape = shares(sets(scope.boxes()[0], self.axes)), self.forward(inputs[0].like).shape[1:]
        cells = inputs[0].through(lambda x: gathered(x, self.axes))
        return weighed_sum(cells, share, scope).through(lambda x: x.reshape(len(x), *shape))

    def free(self, *inputs: Interval) -> Tensor | None:
        """Where z lies in the box, and s between F(l) and F(u): in the middle. [1, batch, *rest, cells + 1]."""
        box = sets(inputs[0], self.axes)
        return torch.full_like(torch.nn.functional.pad(box.lower, (0, 1)), 0.5).unsqueeze(0)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The tangent plane below, the logarithm's tangent over the chords above."""
        shape, terms = inputs[0].lower.shape[1:], Exponentials.of(sets(inputs[0], self.axes))

        def lines(parameters: Tensor | None) -> Linearization:
            point, place = (0.5, 0.5) if parameters is None else (parameters[..., :-1], parameters[..., -1:])
            s, log = terms.anchor(place), torch.log(terms.anchor(place))
            above = terms.shift + log - 1 + terms.constant / s + terms.unit * (2 + log.abs() + terms.shift.abs())
            slope, below = terms.tangent(point)
            return lined((slope, below), (terms.slope / s, above), self.axes, shape)

        return lines


def lined(low: tuple[Tensor, Tensor], high: tuple[Tensor, Tensor], axes: Axes, shape: torch.Size) -> Linearization:
    """Bounds of one value a set by two lines (slope [.., cells], offset [.., 1]) in the cells along `axes`."""

    def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        rows = coefficients.reshape(*coefficients.shape[:2], *low[1].shape[-len(shape) - 1 + len(axes) :])
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        pulled = scattered(torch.addcmul(positive * low[0], negative, high[0]), axes, shape, 2)
        return (pulled,), (positive * low[1] + negative * high[1]).flatten(2).sum(2)

    return pull


def extremes(box: Interval) -> Interval:
    """The range of x_i - log E(x) over boxes [batch, *rest, cells], widened by its rounding.

    It increases with x_i and falls with every other cell, so it is -log(1 + e^-d), d = x_i - log(sum of the others'
    e^x_j), at the ends.
    """
    shift, tiny = box.upper.amax(-1, keepdim=True).detach(), torch.finfo(box.lower.dtype).tiny
    low, high = box.lower - shift, box.upper - shift
    ends = []
    for own, others, sign in ((low, high, -1), (high, low, 1)):
        rest = log_sum_exp_of_others(others)
        unit = torch.finfo(low.dtype).eps
        size = own.abs() + rest.clamp(min=others.amin(-1, keepdim=True)).abs()
        # Of a size beside a mask the product with the unit must come first: four times the size would overflow.
        error = unit * (low.shape[-1] + 8) + (4 * unit) * size
        # Computed to a few roundings of itself however large d is, as it is beside a mask; of what underflows, to tiny.
        value = torch.nn.functional.logsigmoid(own - rest + sign * error)
        ends.append(value + sign * (4 * unit * value.abs() + tiny))
    return Interval(ends[0], ends[1].clamp(max=0))


def shares(box: Interval) -> Interval:
    """The range of e^x_i / E(x), a cell's share of the sum, over boxes [batch, *rest, cells], widened by rounding."""
    g = extremes(box)
    numbers = torch.finfo(g.lower.dtype)
    lower = torch.exp(g.lower) * (1 - 4 * numbers.eps) - numbers.tiny
    upper = torch.exp(g.upper) * (1 + 4 * numbers.eps) + numbers.tiny
    return Interval(lower.clamp(min=0), upper.clamp(max=1))


def weighed_sum(cells: Increments, share: Interval, scope: Scope) -> Increments:
    """The increments of log E, [*rest, 1], from those of the cells, over sets where shares lie in `share`.

    log E(x) - log E(y) = s . (x - y), where s is the mean of softmax over the segment from y to x: that lies in the
    box, where every cell of the softmax is in its range, and so is its mean.
    """
    return scope.units(cells, share.lower, share.upper).through(lambda x: x.sum(-1, keepdim=True))
