"""What keeps interval bounds narrow and ReLUs of both kinds alive while the radius grows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise

LEAST = 1e-12


def regulariser(graph: Graph, bounds: Sequence[Interval], tolerance: float = 0.5) -> Tensor:
    """The sum of two penalties, each averaged over the activations; 0 where all ratios are at least the tolerance t.

    Tightness: max(0, t - r_0 / r) / t, r and r_0 the mean radii of an activation's and of the network's input.
    Balance, for activations that bend at 0: the same of how alike active neurons (lower > 0) and inactive ones
    (upper < 0) are, in the sum of their centres and in their variance about the mean of all centres.
    Usually weighted with lambda (1 - radius / largest radius).   Source: Shi et al. 2021.
    """
    first = _radius(bounds[0])
    penalties = []
    for node in graph.nodes[1:]:
        if isinstance(node.op, Elementwise):
            box = bounds[node.inputs[0]]
            ratios = [first / _radius(box).clamp(min=LEAST)]
            if node.op.kink == 0:
                ratios += _balance(box)
            penalties.append(torch.stack([(1 - ratio / tolerance).clamp(min=0) for ratio in ratios]).sum())
    return torch.stack(penalties).mean() if penalties else torch.zeros_like(first)


def _radius(box: Interval) -> Tensor:
    return (box.upper - box.lower).mean() / 2


def _balance(box: Interval) -> list[Tensor]:
    """How alike active and inactive neurons are: in [0, 1], 1 where they agree."""
    centre = (box.lower + box.upper) / 2
    active, inactive = (mask.to(centre.dtype) for mask in (box.lower > 0, box.upper < 0))
    spread = (centre - centre.mean()) ** 2
    pairs = (
        ((active * centre).sum(), -(inactive * centre).sum()),
        ((active * spread).sum(), (inactive * spread).sum()),
    )
    return [torch.minimum(a, b) / torch.maximum(a, b).clamp(min=LEAST) for a, b in pairs]
