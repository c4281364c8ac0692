"""How the difference of two executions passes through an op: linear maps of a few coordinates, and scalar units.

Two executions of a network differ by dx in the input and, at every scalar function w = phi(v), by dw in its result.
These are the coordinates z = (dx, dw_1, .., dw_K), one block for the input and one for every layer of units; all other
differences are linear maps of them. What is known of a unit is its slope: a <= dw / dv <= b (lipschitz.md; Fazlyab et
al. 2019), so that (dw - a dv)(b dv - dw) >= 0.

Functions of several values are units too, with slopes known from boxes: whatever the two executions in the boxes are,
dw = d dv for some d of the range, secants and so derivatives. Every rule says which d that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from provenn.verifier.interval import Interval


@dataclass(frozen=True, eq=False)
class Increments:
    """A value's difference: the sum over blocks k of  z_k  times blocks[k], each [size_k, *node], row by coordinate."""

    blocks: Mapping[int, Tensor]

    def through(self, function: Callable[[Tensor], Tensor]) -> Increments:
        """After a linear function of values [batch, *node]."""
        return Increments({k: function(block) for k, block in self.blocks.items()})

    def at(self, places: Tensor) -> Increments:
        """The cells at these places of the last axis."""
        return Increments({k: block[..., places] for k, block in self.blocks.items()})

    def __add__(self, other: Increments) -> Increments:
        """The sum; both have one shape."""
        total = dict(self.blocks)
        for k, block in other.blocks.items():
            total[k] = total[k] + block if k in total else block
        return Increments(total)

    def __sub__(self, other: Increments) -> Increments:
        """The difference."""
        return self + other.through(torch.neg)

    @property
    def like(self) -> Tensor:
        """Some numbers of the value's shape and kind: [1, *node]."""
        return next(iter(self.blocks.values()))[:1]

    def jointly(self, function: Callable[..., Tensor], others: Sequence[Increments]) -> Increments:
        """After a function that is linear in this value and others together, each [batch, *node_i]."""
        inputs = (self, *others)
        blocks = {}
        for k in sorted({k for x in inputs for k in x.blocks}):
            size = next(len(x.blocks[k]) for x in inputs if k in x.blocks)
            parts = [x.blocks[k] if k in x.blocks else x.like.new_zeros((size, *x.like.shape[1:])) for x in inputs]
            blocks[k] = function(*parts)
        return Increments(blocks)

    def rows(self) -> dict[int, Tensor]:
        """By block the matrix [cells, size_k] that the coordinates are multiplied by."""
        return {k: block.flatten(1).T for k, block in self.blocks.items()}


def jointly(function: Callable[..., Tensor], inputs: Sequence[Increments]) -> Increments:
    """After a function that is linear in all inputs together, each [batch, *node_i]."""
    return inputs[0].jointly(function, inputs[1:])


@runtime_checkable
class Scope(Protocol):
    """What an op may ask while its increments are read."""

    def slopes(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest slope of the op being read, an elementwise one, each [1, *node].

        Raises: UnsupportedOp where one of them is not finite.
        """
        ...

    def boxes(self) -> Sequence[Interval]:
        """Enclosures of the inputs of the op being read, each [1, *input], that hold in both executions.

        Raises: UnsupportedOp where one is not known, as everywhere.
        """
        ...

    def units(self, argument: Increments, lower: Tensor, upper: Tensor) -> Increments:
        """A new layer of units with slopes in [lower, upper], each [1, *argument]; no coordinate where they agree.

        Layers come in the order of these calls.   Raises: UnsupportedOp where a slope is not finite.
        """
        ...

    def rectified(self, gap: Increments) -> Increments:
        """relu(gap), a layer of units; the one there is where gap, or its negative, was rectified before."""
        ...

    def fixed_point(self, weight: Tensor, argument: Increments) -> Increments:
        """A layer of units  w = phi(W w + argument),  W [size, size], with the slopes of the op being read."""
        ...


def larger(first: Increments, second: Increments, scope: Scope) -> tuple[Increments, Increments]:
    """(max, min) of two values, as second + relu(first - second) and first - relu(first - second): one layer of units.

    Their sum is kept exactly, which is what makes MaxMin's constant tight.
    """
    part = scope.rectified(first - second)
    return second + part, first - part
