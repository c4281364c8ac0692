"""Lines through two points, as relaxations need them."""

from __future__ import annotations

import torch
from torch import Tensor


def chord(x: Tensor, fx: Tensor, y: Tensor, fy: Tensor) -> tuple[Tensor, Tensor]:
    """(slope, intercept) of the line through (x, fx) and (y, fy), x <= y; (0, fx) where x = y.

    The slope is exactly 1 where fy - fx is y - x. The intercept is taken at the end nearer to 0: taken at an end of
    size 1e6 it would be wrong by 1e6 roundings, which at the other end is far more than the function's own rounding.
    """
    slope = (fy - fx) / (y - x).clamp(min=torch.finfo(x.dtype).tiny)
    nearer = y.abs() < x.abs()
    return slope, torch.where(nearer, fy - slope * y, fx - slope * x)
