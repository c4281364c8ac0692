"""Maximum over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op, Shape
from provenn.verifier.ops.increments import Increments, Scope
from provenn.verifier.ops.maximum import Largest
from provenn.verifier.ops.pool import Axis, axes_of
from provenn.verifier.ops.pull import weighed
from provenn.verifier.ops.window import padded

_MAXIMUM = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)

Ints = tuple[int, ...]


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

    def free(self, *inputs: Interval) -> Tensor | None:
        """The weights of each window's cells in the lower line: all on one."""
        cells = self._cells(inputs[0].lower)
        return None if cells.shape[1] == 1 else Largest.of(*_bounds(inputs[0], cells)).start(cells.shape[1])

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """A running maximum over every window's cells: m <- m + relu(x_j - m), stage j for windows with a j-th cell."""
        like = inputs[0].like
        cells = self._cells(like)
        padding = like.shape[2:].numel()
        places = cells.sort(-1).values  # the cells of the padding, whose place is the largest number, come last
        flat = inputs[0].through(lambda x: x.flatten(2))
        best = flat.at(places[:, 0])
        for stage in range(1, cells.shape[1]):
            windows = (places[:, stage] < padding).nonzero()[:, 0]
            place = places[windows, stage]
            gain = scope.rectified(flat.at(place) - best.at(windows))
            place = torch.full((len(cells),), len(windows)).index_copy(0, windows, torch.arange(len(windows)))
            best = best + gain.through(_with_zero).at(place)
        size = self.forward(like).shape[1:]
        return best.through(lambda x: x.reshape(len(x), *size))

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The cells that can win a window that no cell wins for certain."""
        lower = inputs[0].lower.flatten(2)
        cells = self._cells(inputs[0].lower)
        rivals = Largest.of(*_bounds(inputs[0], cells)).rivals(*_bounds(inputs[0], cells))
        places = cells.expand(*lower.shape[:2], -1, -1).flatten(2)
        hits = lower.new_zeros((*lower.shape[:2], lower.shape[2] + 1))
        hits = hits.scatter_add(2, places, rivals.flatten(2).to(lower.dtype))[..., :-1]
        return ((hits > 0).reshape(inputs[0].lower.shape),)

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """Lower line: a convex combination of the window's cells, by default the one with the largest lower bound.

        Upper line: the chord of max(x_k, m), as for a ReLU (see `Largest`).
        """
        shape, cells = inputs[0].lower.shape, self._cells(inputs[0].lower)
        lines = Largest.of(*_bounds(inputs[0], cells))
        places = cells.expand(*shape[:2], -1, -1)
        top = places.gather(3, lines.top.unsqueeze(-1)).squeeze(3)
        present = (cells < shape[2:].numel()).to(lines.slope.dtype)
        if parameters is None:
            places = places.gather(3, lines.best.unsqueeze(-1))

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            rows = coefficients.flatten(3)
            positive, negative = rows.clamp(min=0).unsqueeze(-1), rows.clamp(max=0)
            # Parameters change between calls.
            share = 1.0 if parameters is None else lines.below(cells.shape[1], parameters, present)
            below = (positive * share).flatten(3)
            # Windows overlap: a cell collects what every window that selected it sends back.
            pulled = rows.new_zeros((*rows.shape[:3], shape[2:].numel() + 1))
            pulled = pulled.scatter_add(3, places.flatten(2).expand(below.shape), below)
            pulled = pulled.scatter_add(3, top.expand(rows.shape), negative * lines.slope)[..., :-1]
            constant = weighed(negative, lines.intercept)
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


def _with_zero(x: Tensor) -> Tensor:
    """One more cell, 0, at the end of the last axis."""
    return torch.nn.functional.pad(x, (0, 1))


def _bounds(box: Interval, cells: Tensor) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of every window's cells."""
    return _windows(box.lower.flatten(2), cells), _windows(box.upper.flatten(2), cells)


def _windows(flat: Tensor, cells: Tensor) -> Tensor:
    """[batch, channels, size] -> its windows [batch, channels, windows, cells], -infinity for padding."""
    return torch.nn.functional.pad(flat, (0, 1), value=-float("inf"))[..., cells]
