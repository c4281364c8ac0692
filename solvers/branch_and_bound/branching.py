"""Which value to split: by what its relaxation loses to the row of a part."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from provenn.verifier.bounds.beta import Cut
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Op

EDGE = 0.25
"""Share of an interval that a threshold without a better place keeps on either side."""


def thresholds(op: Op, box: Interval) -> Tensor:
    """Where to split an argument of an op: at its kink where the interval has it, else at 0 or near the middle."""
    lower, upper = box.lower, box.upper
    if isinstance(op, Elementwise) and op.kink is not None:
        inside = (lower < op.kink) & (upper > op.kink)
        return torch.where(inside, op.kink, lower / 2 + upper / 2)
    margin = EDGE * (upper - lower)
    return torch.minimum(torch.maximum(torch.zeros_like(lower), lower + margin), upper - margin)


def losses(relaxed: Cut, seen: Mapping[int, Tensor], slopes: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
    """What every value's relaxation may lose to the row of its part, -1 where nothing, and its threshold.

    Both [batch, values]. seen: the rows at every node, [1, batch, *node]; slopes: the free parameters in use.
    Source: for a ReLU with a negative coefficient this is BaBSR's score (Bunel et al. 2020).
    """
    graph, arguments = relaxed.graph, relaxed.arguments
    batch = relaxed.region.batch
    like = relaxed.region.box.lower
    count = max(arguments.total, 1)
    score, place = like.new_full((batch, count), -1.0), like.new_zeros((batch, count))
    for reader, node in enumerate(graph.nodes):
        if node.op is None or node.op.affine:
            continue
        boxes = [relaxed.bounds[i] for i in node.inputs]
        for source, mask in zip(node.inputs, node.op.improvable(*boxes), strict=True):
            if mask is None or source not in arguments.first or reader not in seen:
                continue
            box = relaxed.bounds[source]
            at = thresholds(node.op, box)
            rows = seen[reader][0], seen.get(source)
            lost = _lost(node.op, box, rows, at, slopes.get(reader))
            able = mask & (at > box.lower) & (at < box.upper)
            some = slice(arguments.first[source], arguments.first[source] + lost[0].numel())
            score[:, some] = torch.maximum(score[:, some], lost.masked_fill(~able, -1.0).flatten(1))
            place[:, some] = at.flatten(1)
    return score.nan_to_num(nan=-1.0), place


def _lost(op: Op, box: Interval, rows: tuple[Tensor, Tensor | None], at: Tensor, slopes: Tensor | None) -> Tensor:
    """[batch, *argument]: the gap between function and line, where the coefficient uses it, times the coefficient.

    For ops of several arguments: how much the row changes over the argument's interval.
    """
    coefficient, pulled = rows
    if not isinstance(op, Elementwise):
        return box.upper - box.lower if pulled is None else pulled[0].abs() * (box.upper - box.lower)
    lower, upper = box.lower, box.upper
    lines = op.relax(lower, upper, slopes)
    below = torch.zeros_like(lower) if lines.lower_intercept is None else lines.lower_intercept
    gaps = []
    for z in (lower, at, upper):
        value = op.forward(z)
        gaps.append((value - lines.lower_slope * z - below, lines.upper_slope * z + lines.upper_intercept - value))
    under, over = (torch.maximum(m, torch.minimum(a, b)) for a, m, b in zip(*gaps, strict=True))
    lost = torch.where(coefficient >= 0, coefficient * under, -coefficient * over)
    return lost.reshape(lower.shape)
