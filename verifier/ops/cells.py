"""Sets of cells along one or several axes of a node, laid out along one last axis."""

from __future__ import annotations

import torch
from torch import Tensor

from provenn.verifier.interval import Interval

Axes = tuple[int, ...]


def gathered(x: Tensor, axes: Axes, before: int = 1) -> Tensor:
    """Tensor [*before, *node] -> its sets [*before, *rest, cells]; axes count the node's, `before` axes come first."""
    last = list(range(-len(axes), 0))
    return x.movedim([axis + before for axis in axes], last).flatten(-len(axes))


def scattered(cells: Tensor, axes: Axes, shape: torch.Size, before: int = 1) -> Tensor:
    """`gathered` undone: [*before, *rest, cells] -> [*before, *shape]."""
    apart = cells.reshape(*cells.shape[:-1], *(shape[axis] for axis in axes))
    return apart.movedim(list(range(-len(axes), 0)), [axis + before for axis in axes])


def sets(box: Interval, axes: Axes) -> Interval:
    """The box of the sets: [batch, *rest, cells]."""
    return Interval(gathered(box.lower, axes), gathered(box.upper, axes))


def sum_of_others(x: Tensor) -> Tensor:
    """For every cell the sum of the other cells of its set, none of them negative: sums only, so nothing cancels."""
    before, after = x.cumsum(-1), x.flip(-1).cumsum(-1).flip(-1)
    nothing = torch.zeros_like(x[..., :1])
    return torch.cat([nothing, before[..., :-1]], -1) + torch.cat([after[..., 1:], nothing], -1)


def log_sum_exp_of_others(x: Tensor) -> Tensor:
    """For every cell log(sum of exp) of the other cells of its set; hugely negative where there are none."""
    before, after = x.logcumsumexp(-1), x.flip(-1).logcumsumexp(-1).flip(-1)
    nothing = torch.full_like(x[..., :1], torch.finfo(x.dtype).min / 4)
    return torch.logaddexp(torch.cat([nothing, before[..., :-1]], -1), torch.cat([after[..., 1:], nothing], -1))
