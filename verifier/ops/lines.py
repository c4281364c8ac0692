"""Lines through two points, as relaxations need them."""

from __future__ import annotations

from copy import copy
from typing import TypeVar

import torch
from torch import Tensor

Tensors = TypeVar("Tensors")


def held(z: Tensor, lower: Tensor, upper: Tensor) -> Tensor:
    """The number of [lower, upper] that is nearest to z."""
    return torch.minimum(torch.maximum(z, lower), upper)


def chord(x: Tensor, fx: Tensor, y: Tensor, fy: Tensor) -> tuple[Tensor, Tensor]:
    """(slope, intercept) of the line through (x, fx) and (y, fy), x <= y; (0, fx) where x = y.

    The slope is exactly 1 where fy - fx is y - x. The intercept is taken at the end nearer to 0: taken at an end of
    size 1e6 it would be wrong by 1e6 roundings, which at the other end is far more than the function's own rounding.
    """
    slope = (fy - fx) / (y - x).clamp(min=torch.finfo(x.dtype).tiny)
    nearer = y.abs() < x.abs()
    return slope, torch.where(nearer, fy - slope * y, fx - slope * x)


def together(choices: Tensor) -> Tensor:
    """One choice for each of k lines, [k, batch, *node], as free parameters [1, batch, k channels, *size].

    The lines share the axis of channels because rows over windows look parameters up as they look up a node.
    """
    shape = choices.shape[2:] or (1,)
    return choices.transpose(0, 1).reshape(1, choices.shape[1], choices.shape[0] * shape[0], *shape[1:])


def apart(parameters: Tensor, lower: Tensor, count: int) -> Tensor:
    """`together` undone for every row: [spec, batch, k channels, *size] -> [k, spec, batch, *node]."""
    return parameters.reshape(*parameters.shape[:2], count, *lower.shape[1:]).movedim(2, 0)


def per_row(tensors: Tensors) -> Tensors:
    """A copy of an object whose tensors [sides, batch, ..] get an axis for the rows: [sides, 1, batch, ..]."""
    other = copy(tensors)
    for name, value in vars(tensors).items():
        if isinstance(value, Tensor):
            setattr(other, name, value.unsqueeze(1))
    return other
