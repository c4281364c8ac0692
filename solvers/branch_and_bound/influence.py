"""How much each input matters to the rows of a part: what a split of it may gain."""

from __future__ import annotations

import torch
from torch import Tensor

from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import Unbounded
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval


def influence(graph: Graph, box: Interval, slopes: Tensor, matrix: Tensor, elements: int) -> Tensor:
    """For every input of every part a score, [batch, n]: the larger, the more a split of it may gain.

    slopes [batch, n]: of the linear functions below the part's open rows, absolute and added up; matrix [spec,
    outputs]; elements: values of all nodes that may be held at once. Half of the score is slope times width. Alone it
    goes round in circles where the functions are nearly flat and what is lost is lost by relaxations on the way; so the
    other half is how far the rows go by interval arithmetic when that input alone leaves the centre. Each half is a
    share of its sum over the inputs.   Time: one pass of interval arithmetic for every input of some width.
    """
    width = (box.upper - box.lower).flatten(1)
    return _shares(slopes * width) + _shares(_reached(graph, box, matrix.abs(), elements))


def _shares(score: Tensor) -> Tensor:
    """Of every part's sum; nothing where that is no number or none."""
    return (score / score.sum(1, keepdim=True)).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _reached(graph: Graph, box: Interval, size: Tensor, elements: int) -> Tensor:
    """How far the rows go together when one input alone leaves the centre: [batch, n]."""
    lower, upper = box.lower.flatten(1), box.upper.flatten(1)
    middle, batch = lower / 2 + upper / 2, len(lower)
    reached = torch.zeros_like(lower)
    wide = torch.nonzero((lower < upper).any(0))[:, 0]
    values = sum(torch.Size(node.shape).numel() for node in graph.nodes)
    for some in torch.split(wide, max(1, elements // (values * batch))):
        at = torch.arange(lower.shape[1], device=lower.device) == some.unsqueeze(1)
        ends = (torch.where(at, x.unsqueeze(1), middle.unsqueeze(1)) for x in (lower, upper))
        alone = Interval(*(x.reshape(-1, *graph.input_shape) for x in ends))
        try:
            output = propagate(graph, alone)[-1]
        except Unbounded:
            return torch.zeros_like(lower)
        radius = ((output.upper - output.lower) / 2).flatten(1)
        reached[:, some] = (radius @ size.T).sum(1).reshape(batch, -1)
    return reached
