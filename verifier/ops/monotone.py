"""Affine ops without negative coefficients, and the arithmetic of node shapes they share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Affine, Shape


@dataclass(frozen=True)
class Monotone(Affine):
    """x <= y implies f(x) <= f(y): the ends of a box map to the ends of its image, without rounding a centre."""

    def interval(self, *inputs: Interval) -> Interval:
        """[f(lower), f(upper)], exactly the image's hull."""
        return Interval(self.apply(*(x.lower for x in inputs)), self.apply(*(x.upper for x in inputs)))


def aligned(x: Tensor, rank: int) -> Tensor:
    """The tensor x with axes of length 1 put after the batch axis, until its node has `rank` axes."""
    missing = rank + 1 - x.dim()
    return x.reshape(x.shape[0], *(1,) * missing, *x.shape[1:]) if missing > 0 else x


def summed_to(rows: Tensor, shape: Shape) -> Tensor:
    """The adjoint of broadcasting a node of `shape`: [rows, *output] summed to [rows, *shape]."""
    shape = tuple(shape)
    if rows.shape[1:] == shape:
        return rows
    full = (1,) * (rows.dim() - 1 - len(shape)) + shape
    axes = [i for i, size in enumerate(full, start=1) if size == 1 and rows.shape[i] != 1]
    return (rows.sum(axes, keepdim=True) if axes else rows).reshape(rows.shape[0], *shape)


def require_axes(axes: tuple[int, ...], op: str) -> None:
    """Raises: InvalidModel if an axis is negative: it could name the batch axis, across which nothing may mix."""
    if any(axis < 0 for axis in axes):
        raise InvalidModel(f"{op}: axes {axes} must count the node's axes from 0 (the batch axis is not among them)")
