"""The softmax and its logarithm along one axis.

Both take their lines from those of log E, E = sum_j e^x_j (see `log_sum_exp`).   Source of the softmax's: Wei et al.
2023, "Convex bounds on the softmax function with applications to robustness verification", the bounds by log-sum-exp.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization
from provenn.verifier.ops.cells import gathered, scattered, sets
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.log_sum_exp import Exponentials, extremes, shares, weighed_sum
from provenn.verifier.ops.monotone import require_axes
from provenn.verifier.ops.relaxed import Relaxed, Relaxer


@dataclass(frozen=True, eq=False)
class Bent:
    """Lines  diagonal_i x_i - share_i (weight . x) + offset_i  for every cell i of a set.

    Each [batch, *rest, cells], or [spec, batch, *rest, cells].
    """

    diagonal: Tensor
    share: Tensor
    weight: Tensor
    offset: Tensor

    def pulled(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Rows over the lines -> rows over x, and what the offsets add: [spec, batch].

        What rounding leaves of rows that cancel, at large x, the offsets allow for: see `Exponentials.rounding`.
        """
        common = (rows * self.share).sum(-1, keepdim=True)
        return rows * self.diagonal - common * self.weight, (rows * self.offset).flatten(2).sum(2)


@dataclass(frozen=True)
class AlongAxis(Relaxed):
    """What the softmax and its logarithm share."""

    axis: int

    parts: ClassVar[int]
    """How many free parameters a cell has."""

    def __post_init__(self) -> None:
        require_axes((self.axis,), type(self).__name__)

    @abstractmethod
    def bent(self, box: Interval) -> Callable[[Sequence[Tensor | float]], tuple[Bent, Bent]]:
        """Over a box of sets, for free parameters at some places, the lines below and above."""

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """dx_i - s . dx, and what becomes of that: see `weighed_sum` and `received`."""
        box, shape = sets(scope.boxes()[0], (self.axis,)), inputs[0].like.shape[1:]
        share, count = shares(box), box.lower.shape[-1]
        cells = inputs[0].through(lambda x: gathered(x, (self.axis,)))
        common = weighed_sum(cells, share, scope).through(lambda x: x.expand(*x.shape[:-1], count))
        return self.received(cells - common, share, scope).through(lambda x: scattered(x, (self.axis,), shape))

    @abstractmethod
    def received(self, logarithms: Increments, share: Interval, scope: Scope) -> Increments:
        """The increments of the values from those of log p, over sets where p lies in `share`."""

    def free(self, *inputs: Interval) -> Tensor | None:
        """In the middle: [1, batch, *rest, parts cells]."""
        lower = gathered(inputs[0].lower, (self.axis,))
        return lower.new_full((1, *lower.shape[:-1], self.parts * lower.shape[-1]), 0.5)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The two lines of every cell."""
        shape, bent = inputs[0].lower.shape[1:], self.bent(sets(inputs[0], (self.axis,)))

        def lines(parameters: Tensor | None) -> Linearization:
            below, above = bent((0.5,) * self.parts if parameters is None else parameters.chunk(self.parts, -1))

            def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
                rows = gathered(coefficients, (self.axis,), 2)
                first, constant = below.pulled(rows.clamp(min=0))
                second, other = above.pulled(rows.clamp(max=0))
                return (scattered(first + second, (self.axis,), shape, 2),), constant + other

            return pull

        return lines


@dataclass(frozen=True)
class LogSoftmax(AlongAxis):
    """x_i - log E(x): the lines of log E, turned over."""

    onnx = ("LogSoftmax",)
    parts = 2

    def forward(self, *inputs: Tensor) -> Tensor:
        """The logarithm of the softmax, without underflow."""
        return torch.log_softmax(inputs[0], self.axis + 1)

    def interval(self, *inputs: Interval) -> Interval:
        """Exact up to rounding (see `extremes`)."""
        return _restored(extremes(sets(inputs[0], (self.axis,))), self.axis, inputs[0])

    def received(self, logarithms: Increments, share: Interval, scope: Scope) -> Increments:
        """Themselves."""
        return logarithms

    def bent(self, box: Interval) -> Callable[[Sequence[Tensor | float]], tuple[Bent, Bent]]:
        """x_i - log s_i + 1 - F(x) / s_i  below,  x_i - log E(z) - p . (x - z)  above."""
        terms, one = Exponentials.of(box), torch.ones_like(box.lower)

        def lines(places: Sequence[Tensor | float]) -> tuple[Bent, Bent]:
            s, (p, q) = terms.anchor(places[0]), terms.tangent(places[1])
            log = torch.log(s)
            error = terms.unit * (2 + log.abs() + terms.shift.abs())
            below = Bent(one, 1 / s, terms.slope, 1 - log - terms.shift - terms.constant / s - error)
            return below, Bent(one, one, p, -q)

        return lines


@dataclass(frozen=True)
class Softmax(AlongAxis):
    """p_i = e^x_i / E(x).

    Below: e^x_i / E(x) >= e^x_i / F(x) =: f, and log f = x_i - log F(x) is convex, so f is; with its tangent plane at
    x_i = t, F(x) = s, where its value is f_0 = e^t / s,

        p_i >= f_0 (2 - t + x_i - F(x) / s)    for every t and every s > 0.

    Above: p_i = e^g with g = x_i - log E(x), which is concave. On [a, b], the range of g, e^g lies below its chord, of
    slope k >= 0, and g below its tangent plane at any point z:

        p_i <= e^b - k (b - g) <= e^b - k (b - x_i + log E(z) + p(z) . (x - z)).

    Free are t and s for every cell, and z for every set.
    """

    onnx = ("Softmax",)
    parts = 3

    def forward(self, *inputs: Tensor) -> Tensor:
        """The softmax, without overflow."""
        return torch.softmax(inputs[0], self.axis + 1)

    def interval(self, *inputs: Interval) -> Interval:
        """Exact up to rounding, within [0, 1]."""
        return _restored(shares(sets(inputs[0], (self.axis,))), self.axis, inputs[0])

    def received(self, logarithms: Increments, share: Interval, scope: Scope) -> Increments:
        """Each p = e^g: by the mean value theorem the slope is a value between the two p, in the range."""
        return scope.units(logarithms, share.lower, share.upper)

    def bent(self, box: Interval) -> Callable[[Sequence[Tensor | float]], tuple[Bent, Bent]]:
        """The lines of the class's head."""
        terms, numbers = Exponentials.of(box), torch.finfo(box.lower.dtype)
        unit, width, g = 4 * numbers.eps, box.upper - box.lower, extremes(box)
        # A smaller k is sound: 0 where it underflows, as it does beside masks, whose a can be -infinity. A raised a
        # would make it larger; a raised b is sound, e^b is still 0, and 0 times b is a number.
        b = g.upper.clamp(min=numbers.min / 8)
        top, span = torch.exp(b), (b - g.lower).clamp(min=numbers.tiny)
        k = torch.nn.functional.threshold(top * (-torch.expm1(-span) / span), numbers.tiny, 0.0)

        def lines(places: Sequence[Tensor | float]) -> tuple[Bent, Bent]:
            s, (p, q) = terms.anchor(places[1]), terms.tangent(places[2])
            t = torch.minimum(box.lower + places[0] * width, box.upper)
            start = torch.exp(t - terms.shift) / s
            error = start * (terms.unit + unit * (t - terms.shift).abs()) + numbers.tiny
            error = error * (2 + width + terms.total / s)
            offset = start * (2 - t - terms.constant / s) - error - unit * start * t.abs()
            above = top * (1 + 4 * unit) + numbers.tiny - k * (b + q - unit * (b.abs() + q.abs()))
            return Bent(start, start / s, terms.slope, offset), Bent(k, k, p, above)

        return lines


def _restored(box: Interval, axis: int, like: Interval) -> Interval:
    """Sets along `axis` put back into the node's shape."""
    shape = like.lower.shape[1:]
    return Interval(scattered(box.lower, (axis,), shape), scattered(box.upper, (axis,), shape))
