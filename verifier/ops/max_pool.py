"""Maximum over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op, Shape
from provenn.verifier.ops.conv import padded
from provenn.verifier.ops.lines import chord
from provenn.verifier.ops.pool import Axis, axes_of

_MAXIMUM = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)

Ints = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Lines:
    """x[lowest] <= max over the window <= slope x[highest] + intercept, for every window: [batch, channels, windows].

    lowest, highest: positions of cells in the flattened input; undecided: where the upper line is not exact.
    """

    lowest: Tensor
    highest: Tensor
    slope: Tensor
    intercept: Tensor
    undecided: Tensor


@dataclass(frozen=True)
class MaxPool(Op):
    """Maximum over windows of x [channels, *size];  padding: ONNX's, all beginnings then all ends, never selected.

    Raises: InvalidModel if a window lies in the padding entirely.
    """

    kernel: Ints
    stride: Ints
    padding: Ints
    dilation: Ints
    ceil_mode: bool

    onnx = ("MaxPool", "GlobalMaxPool")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The largest cell of each window."""
        axes = self._axes(tuple(inputs[0].shape[2:]))
        begin, end = tuple(a.begin for a in axes), tuple(a.overhang for a in axes)
        framed = padded(inputs[0], begin, end, -float("inf"))
        return _MAXIMUM[len(axes) - 1](framed, self.kernel, self.stride, 0, self.dilation)

    def interval(self, *inputs: Interval) -> Interval:
        """The maxima of the lower and of the upper bounds: exact."""
        return Interval(self.forward(inputs[0].lower), self.forward(inputs[0].upper))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The cells that can win a window that no cell wins for certain."""
        lower, upper = inputs[0].lower.flatten(2), inputs[0].upper.flatten(2)
        cells = self._cells(inputs[0].lower)
        lines = self._lines(inputs[0], cells)
        best = lower.gather(2, lines.lowest).unsqueeze(-1)
        rivals = lines.undecided.unsqueeze(-1) & (_windows(upper, cells) > best)
        places = cells.expand(*lower.shape[:2], -1, -1).flatten(2)
        hits = lower.new_zeros((*lower.shape[:2], lower.shape[2] + 1))
        hits = hits.scatter_add(2, places, rivals.flatten(2).to(lower.dtype))[..., :-1]
        return ((hits > 0).reshape(inputs[0].lower.shape),)

    def linearize(self, inputs: Sequence[Interval]) -> Linearization:
        """Lower line: the cell with the largest lower bound. Upper line: the chord of max(x_k, m), as for a ReLU.

        k is the cell with the largest upper bound and m the largest upper bound of the others, so the maximum is at
        most max(x_k, m). Where l_k >= m the line is x_k itself, exactly; it never exceeds the constant max of u.
        """
        shape = inputs[0].lower.shape
        lines = self._lines(inputs[0], self._cells(inputs[0].lower))

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            rows = coefficients.flatten(3)
            negative = rows.clamp(max=0)
            # Windows overlap: a cell collects what every window that selected it sends back.
            pulled = rows.new_zeros((*rows.shape[:3], shape[2:].numel()))
            pulled.scatter_add_(3, lines.lowest.expand(rows.shape), rows.clamp(min=0))
            pulled.scatter_add_(3, lines.highest.expand(rows.shape), negative * lines.slope)
            constant = torch.einsum("sbcn,bcn->sb", negative, lines.intercept)
            return (pulled.reshape(rows.shape[0], *shape),), constant

        return pull

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the two lines of `linearize`."""
        return self.linearize(inputs)(coefficients)

    def _axes(self, size: Shape) -> tuple[Axis, ...]:
        return axes_of(size, self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode)

    def _cells(self, like: Tensor) -> Tensor:
        """Positions of every window's cells in the flattened input, one past its end for padding: [windows, cells]."""
        size = like.shape[2:]
        place = torch.zeros((1, 1), dtype=torch.int64, device=like.device)
        for axis in self._axes(tuple(size)):
            steps = torch.arange(axis.kernel, device=like.device) * axis.dilation
            along = axis.starts(like)[:, None] + steps
            # Minus the number of cells keeps a position negative whatever the other axes add to it.
            along = torch.where((along >= 0) & (along < axis.size), along, -size.numel())
            both = place[:, None, :, None] * axis.size + along[None, :, None, :]
            place = both.reshape(both.shape[0] * both.shape[1], -1)
        return torch.where(place < 0, size.numel(), place)

    def _lines(self, box: Interval, cells: Tensor) -> Lines:
        """The two lines of every window over the box."""
        lower, upper = box.lower.flatten(2), box.upper.flatten(2)
        if cells.shape[1] == 1:
            only = cells[:, 0].expand(*lower.shape[:2], -1)
            ones = torch.ones_like(only, dtype=lower.dtype)
            return Lines(only, only, ones, torch.zeros_like(ones), torch.zeros_like(only, dtype=torch.bool))
        candidates = cells.expand(*lower.shape[:2], -1, -1)
        lowest = candidates.gather(3, _windows(lower, cells).argmax(3, keepdim=True)).squeeze(3)
        top, which = _windows(upper, cells).topk(2, dim=3)
        highest = candidates.gather(3, which[..., :1]).squeeze(3)
        low, high = lower.gather(2, highest), top[..., 0]
        others = torch.maximum(top[..., 1], low)
        return Lines(lowest, highest, *chord(low, others, high, high), others > low)


def _windows(flat: Tensor, cells: Tensor) -> Tensor:
    """[batch, channels, size] -> its windows [batch, channels, windows, cells], -infinity for padding."""
    return torch.nn.functional.pad(flat, (0, 1), value=-float("inf"))[..., cells]
