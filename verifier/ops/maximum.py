"""The largest or smallest of several values: over inputs, or over axes of one input."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Linearization, Op, Shape
from provenn.verifier.ops.increments import Increments, Scope, jointly, larger
from provenn.verifier.ops.lines import chord
from provenn.verifier.ops.monotone import aligned, require_axes, summed_to
from provenn.verifier.ops.pull import weighed

ANCHOR = 2.0**-10
"""Weight that the lower line's first choice has beside the free parameters: they may all be 0."""


@dataclass(frozen=True, eq=False)
class Largest:
    """x_best <= max_i x_i <= slope x_top + intercept  over a box, i along the last axis.

    best, top: positions; open: where no line is exact; all [batch, *sets]; a cell with bounds -infinity is absent.
    """

    best: Tensor
    top: Tensor
    slope: Tensor
    intercept: Tensor
    open: Tensor

    @classmethod
    def of(cls, lower: Tensor, upper: Tensor) -> Largest:
        """From boxes [batch, *sets, cells]: best has the largest lower bound, the upper line is a chord.

        top has the largest upper bound and m is the largest upper bound of the others, so max x <= max(x_top, m),
        which is convex in x_top: its chord lies above. Where l_top >= m the maximum is x_top itself, exactly. The
        chord never exceeds the constant max u, its value at u_top.
        """
        if lower.shape[-1] == 1:
            only, one = torch.zeros_like(lower[..., 0], dtype=torch.int64), torch.ones_like(lower[..., 0])
            return cls(only, only, one, torch.zeros_like(one), only > 0)
        best = lower.argmax(-1)
        high, which = upper.topk(2, dim=-1)
        top = which[..., 0]
        low, high, others = lower.gather(-1, which[..., :1])[..., 0], high[..., 0], high[..., 1]
        is_open = others > low
        # Where it is decided the chord is drawn from 0 to 1, of slope 1: no quotient of roundings, no nan gradient.
        zero = torch.zeros_like(low)
        ends = [torch.where(is_open, end, plain) for end, plain in ((low, zero), (others, zero), (high, zero + 1))]
        slope, intercept = chord(ends[0], ends[1], ends[2], ends[2])
        return cls(torch.where(is_open, best, top), top, slope, intercept, is_open)

    def start(self, cells: int) -> Tensor:
        """Free parameters that choose `best` alone: [1, batch, *sets, cells]."""
        return self._chosen(self.best, cells).unsqueeze(0)

    def below(self, cells: int, parameters: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Weights of a convex combination of the cells, [(spec,) batch, *sets, cells]: never above the maximum.

        Parameters p in [0, 1] give (p + a e) / sum(p + a e) with e the choice of `best` and a the ANCHOR, a convex
        combination whatever they are. present: 1 for cells that exist, else 0; None: all do.
        """
        anchor = self._chosen(self.best, cells)
        if parameters is None:
            return anchor
        free = parameters * self.open.unsqueeze(-1)
        free = free if present is None else free * present
        return (free + ANCHOR * anchor) / (free.sum(-1, keepdim=True) + ANCHOR)

    def above(self, cells: int) -> Tensor:
        """The upper line's slopes: [batch, *sets, cells]."""
        return self._chosen(self.top, cells) * self.slope.unsqueeze(-1)

    def rivals(self, lower: Tensor, upper: Tensor) -> Tensor:
        """The cells that can win a set that no cell wins for certain: [batch, *sets, cells] of bool."""
        best = lower.gather(-1, self.best.unsqueeze(-1))
        return self.open.unsqueeze(-1) & (upper > best)

    def _chosen(self, index: Tensor, cells: int) -> Tensor:
        """1 at one position, 0 elsewhere."""
        places = torch.arange(cells, device=index.device)
        return (index.unsqueeze(-1) == places).to(self.slope.dtype)


@dataclass(frozen=True)
class Extreme(Op):
    """The largest, or where `smallest` the smallest, of sets of cells: what `Maximum` and `ReduceMax` share."""

    smallest: ClassVar[bool] = False

    @abstractmethod
    def _sets(self, *inputs: Tensor) -> Tensor:
        """Inputs [batch, *input_i] -> their sets [batch, *sets, cells]."""

    @abstractmethod
    def _returned(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The adjoint of `_sets`: [rows, *sets, cells] -> [rows, *input_i], summed over what was repeated."""

    def interval(self, *inputs: Interval) -> Interval:
        """That of the lower bounds and that of the upper bounds: exact."""
        return Interval(self.forward(*(x.lower for x in inputs)), self.forward(*(x.upper for x in inputs)))

    def free(self, *inputs: Interval) -> Tensor | None:
        """The weights of the cells in the line that is a convex combination of them: all on one."""
        lower, upper = self._mirrored(inputs)
        return Largest.of(lower, upper).start(lower.shape[-1])

    def improvable(self, *inputs: Interval) -> tuple[Tensor | None, ...]:
        """The cells that can win a set that no cell wins for certain."""
        lower, upper = self._mirrored(inputs)
        rivals = Largest.of(lower, upper).rivals(lower, upper).to(lower.dtype)
        return tuple(part > 0 for part in self._returned(rivals, [tuple(x.lower.shape[1:]) for x in inputs]))

    def increments(self, inputs: Sequence[Increments], scope: Scope) -> Increments:
        """A running maximum, or minimum, over the cells of the sets: a layer of units for each cell after the first."""
        sets = jointly(self._sets, inputs)
        cells = sets.like.shape[-1]
        best = sets.through(lambda x: x[..., 0])
        for cell in torch.arange(1, cells):
            pair = larger(sets.at(cell), best, scope)
            best = pair[1] if self.smallest else pair[0]
        shape = self.forward(*(x.like for x in inputs)).shape[1:]
        return best.through(lambda x: x.reshape(len(x), *shape))

    def linearize(self, inputs: Sequence[Interval], parameters: Tensor | None = None) -> Linearization:
        """The lines of `Largest`;  min x = -max(-x)  mirrors and swaps them."""
        lower, upper = self._mirrored(inputs)
        shapes, sets = [tuple(x.lower.shape[1:]) for x in inputs], lower.shape[1:-1]
        lines, cells = Largest.of(lower, upper), lower.shape[-1]
        chord, intercept = lines.above(cells), -lines.intercept if self.smallest else lines.intercept
        fixed = lines.below(cells) if parameters is None else None

        def pull(coefficients: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
            rows = coefficients.reshape(*coefficients.shape[:2], *sets)
            positive, negative = rows.clamp(min=0), rows.clamp(max=0)
            # Parameters change between calls.
            cell = lines.below(cells, parameters) if fixed is None else fixed
            low, high = (chord, cell) if self.smallest else (cell, chord)
            pulled = torch.addcmul(positive.unsqueeze(-1) * low, negative.unsqueeze(-1), high)
            constant = weighed(positive if self.smallest else negative, intercept)
            parts = self._returned(pulled.flatten(0, 1), shapes)
            return tuple(p.reshape(*rows.shape[:2], *s) for p, s in zip(parts, shapes, strict=True)), constant

        return pull

    def backward(self, coefficients: Tensor, inputs: Sequence[Interval]) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Through the two lines of `linearize`."""
        return self.linearize(inputs)(coefficients)

    def _mirrored(self, inputs: Sequence[Interval]) -> tuple[Tensor, Tensor]:
        """The sets' bounds, those of -x where the smallest is sought."""
        lower, upper = self._sets(*(x.lower for x in inputs)), self._sets(*(x.upper for x in inputs))
        return (-upper, -lower) if self.smallest else (lower, upper)


@dataclass(frozen=True)
class Maximum(Extreme):
    """max(x_1, .., x_k) with numpy broadcasting over the nodes' axes."""

    onnx: ClassVar[tuple[str, ...]] = ("Max",)

    def forward(self, *inputs: Tensor) -> Tensor:
        """The largest input, coordinate by coordinate."""
        sets = self._sets(*inputs)
        return sets.amin(-1) if self.smallest else sets.amax(-1)

    def _sets(self, *inputs: Tensor) -> Tensor:
        rank = max(x.dim() for x in inputs) - 1
        alike = [aligned(x, rank) for x in inputs]
        shape = [max(extents) for extents in zip(*(x.shape for x in alike), strict=True)]
        return torch.stack([x.expand(shape) for x in alike], -1)

    def _returned(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        return tuple(summed_to(part, shape) for part, shape in zip(rows.unbind(-1), shapes, strict=True))


@dataclass(frozen=True)
class Minimum(Maximum):
    """min(x_1, .., x_k) with numpy broadcasting over the nodes' axes."""

    onnx = ("Min",)
    smallest = True


@dataclass(frozen=True)
class ReduceMax(Extreme):
    """Largest value along node axes."""

    axes: tuple[int, ...]
    keepdims: bool

    onnx: ClassVar[tuple[str, ...]] = ("ReduceMax",)

    def __post_init__(self) -> None:
        require_axes(self.axes, type(self).__name__)
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise InvalidModel(f"{type(self).__name__}: axes {self.axes} must be some, each named once")

    def forward(self, *inputs: Tensor) -> Tensor:
        """The largest value along the axes."""
        dims = tuple(axis + 1 for axis in self.axes)
        return inputs[0].amin(dims, self.keepdims) if self.smallest else inputs[0].amax(dims, self.keepdims)

    def _sets(self, *inputs: Tensor) -> Tensor:
        x = inputs[0]
        return x.movedim([axis + 1 for axis in self.axes], list(range(-len(self.axes), 0))).flatten(-len(self.axes))

    def _returned(self, rows: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        cells = rows.reshape(*rows.shape[:-1], *(shapes[0][axis] for axis in self.axes))
        return (cells.movedim(list(range(-len(self.axes), 0)), [axis + 1 for axis in self.axes]),)


@dataclass(frozen=True)
class ReduceMin(ReduceMax):
    """Smallest value along node axes."""

    onnx = ("ReduceMin",)
    smallest = True
