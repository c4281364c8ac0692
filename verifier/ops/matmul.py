"""Products of two computed matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Shape
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.monotone import aligned, summed_to
from provenn.verifier.ops.relaxed import Relaxed, Relaxer

ELEMENTS = 1 << 22
"""Products of ends that the interval of a matrix product holds at once."""


@dataclass(frozen=True)
class MatMul(Relaxed):
    """x [.., m, k] y [.., k, n], the leading axes broadcast as numpy does.

    With centres c, d and radii r, s of the boxes and X = x - c, Y = y - d, every term has, for a, b in [-1, 1],

        a (s X + r Y) - r s  <=  X Y  <=  b (s X - r Y) + r s      (McCormick's planes, mixed and centred)

    and  x y = d x + c y - c d + X Y.  With a and b one number an entry of x, all sums over k are matrix products:
    nothing of size m k n is made for a row. A unit row reads k terms, each with a mixture of its own.
    Rounded to nearest: wrong by at most 4 (k + 4) roundings of |x| |y|.   Source of the planes: McCormick 1976.
    """

    onnx = ("MatMul", "Gemm", "Einsum")

    def forward(self, *inputs: Tensor) -> Tensor:
        """X y."""
        x, y = self._aligned(*inputs)
        return x @ y

    def interval(self, *inputs: Interval) -> Interval:
        """Sums of the extremes of the products of ends, some columns of x and rows of y at a time: exact."""
        x, y = self._boxes(inputs)
        inner, each = x.lower.shape[-1], x.lower[..., :1].numel() * y.lower.shape[-1]
        lower, upper = [], []
        size = max(1, ELEMENTS // max(each, 1))
        for start in range(0, inner, size):
            part = slice(start, start + size)
            left = [end[..., part].unsqueeze(-1) for end in (x.lower, x.upper)]
            right = [end[..., part, :].unsqueeze(-3) for end in (y.lower, y.upper)]
            ends = torch.stack([a * b for a in left for b in right])
            lower.append(ends.amin(0).sum(-2))
            upper.append(ends.amax(0).sum(-2))
        return Interval(torch.stack(lower).sum(0), torch.stack(upper).sum(0))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """Entries that meet an open entry, and are open."""
        x, y = self._boxes(inputs)
        wide, tall = x.lower < x.upper, y.lower < y.upper
        masks = wide & tall.any(-1).unsqueeze(-2), tall & wide.any(-2).unsqueeze(-1)
        shapes = [tuple(b.lower.shape[1:]) for b in inputs]
        return tuple(summed_to(m.to(x.lower.dtype), s) > 0 for m, s in zip(masks, shapes, strict=True))

    def free(self, *inputs: Interval) -> Tensor | None:
        """The mixtures below and above of every entry of x, half and half: [1, batch, 2, .., m, k]."""
        x, _ = self._boxes(inputs)
        return torch.full_like(x.lower, 0.5).unsqueeze(1).repeat_interleave(2, 1).unsqueeze(0)

    def relaxer(self, inputs: Sequence[Interval]) -> Relaxer:
        """The mixed planes; by default half and half, which leaves  d x + c y - c d -/+ r s."""
        x, y = self._boxes(inputs)
        (c, r), (d, s) = _centred(x), _centred(y)
        shapes = [tuple(b.lower.shape[1:]) for b in inputs]
        centre, radius = c @ d, r @ s

        def lines(parameters: Tensor | None) -> Linearization:
            def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
                left, right = _times(coefficients, d, "mn,kn->mk"), _times(coefficients, c, "mn,mk->kn")
                constant = -(coefficients * centre + coefficients.abs() * radius).flatten(2).sum(2)
                if parameters is not None:
                    turned, lifted = _turned(coefficients, (r, s), 1 - 2 * parameters)
                    left, right = left + turned, right + lifted
                    constant = constant - (c * turned).flatten(2).sum(2) - (d * lifted).flatten(2).sum(2)
                return (_returned(left, shapes[0]), _returned(right, shapes[1])), constant

            return pull

        return lines

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """Two units for every product of entries, [.., m, k, n], as those of `Multiply`, summed over k."""
        x, y = self._boxes(scope.boxes())
        left, right = _apart(x, -1), _apart(y, -3)
        shape, rank = (*x.lower.shape[1:], y.lower.shape[-1]), x.lower.dim() - 1

        def products(d: Increments, apart: int, box: Interval) -> Increments:
            spread = d.through(lambda v: aligned(v, rank).unsqueeze(apart).expand(len(v), *shape))
            return scope.units(spread, box.lower.expand(1, *shape), box.upper.expand(1, *shape))

        return (products(inputs[0], -1, right) + products(inputs[1], -3, left)).through(lambda v: v.sum(-2))

    def _aligned(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        rank = max(x.dim(), y.dim()) - 1
        return aligned(x, rank), aligned(y, rank)

    def _boxes(self, inputs: Sequence[Interval]) -> tuple[Interval, Interval]:
        """Both boxes, repeated along their leading axes."""
        x, y = inputs
        low, other_low = self._aligned(x.lower, y.lower)
        high, other_high = self._aligned(x.upper, y.upper)
        lead = [max(extents) for extents in zip(low.shape[:-2], other_low.shape[:-2], strict=True)]
        first = Interval(*(end.expand(*lead, *end.shape[-2:]) for end in (low, high)))
        return first, Interval(*(end.expand(*lead, *end.shape[-2:]) for end in (other_low, other_high)))


def _apart(box: Interval, axis: int) -> Interval:
    """With an axis of length 1 more."""
    return Interval(box.lower.unsqueeze(axis), box.upper.unsqueeze(axis))


def _centred(box: Interval) -> tuple[Tensor, Tensor]:
    """Centre and radius: the ball has both ends in it, up to a rounding of the radius."""
    centre = box.lower / 2 + box.upper / 2
    return centre, torch.maximum(box.upper - centre, centre - box.lower)


def _times(rows: Tensor, matrix: Tensor, letters: str) -> Tensor:
    """Rows [spec, batch, ..] times a matrix [batch, ..], or [spec, batch, ..] where every row has its own."""
    first, _, rest = letters.partition(",")
    second, _, result = rest.partition("->")
    own = "S" if matrix.dim() == rows.dim() else ""
    return torch.einsum(f"SZ...{first},{own}Z...{second}->SZ...{result}", rows, matrix)


def _turned(rows: Tensor, radii: tuple[Tensor, Tensor], mixed: Tensor) -> tuple[Tensor, Tensor]:
    """What a and b, [spec, batch, 2, .., m, k], add to the coefficients of x and of y."""
    (r, s), (a, b) = radii, mixed.unbind(2)
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    left = a * _times(positive, s, "mn,kn->mk") + b * _times(negative, s, "mn,kn->mk")
    return left, _times(positive, a * r, "mn,mk->kn") - _times(negative, b * r, "mn,mk->kn")


def _returned(rows: Tensor, shape: Shape) -> Tensor:
    """Summed over what was repeated: [spec, batch, .., i, j] -> [spec, batch, *shape]."""
    return summed_to(rows.flatten(0, 1), shape).reshape(*rows.shape[:2], *shape)
