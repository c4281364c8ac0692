"""Weights to begin with whose interval bounds neither explode nor vanish with depth."""

from __future__ import annotations

import math

import torch
from torch import nn

MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


@torch.no_grad()
def initialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Redraws all matrices and kernels but the last with mean 0 and standard deviation sqrt(2 pi) / fan-in.

    With n weights a neuron the width of its interval is the sum of |w| times those it reads, on average
    n sqrt(2 / pi) sigma times theirs; a ReLU halves it: times 1 if sigma = sqrt(2 pi) / n. The last layer is bounded
    together with the specification and keeps its weights. "Last" is the order in which the module names its parts.
    Source: Shi et al. 2021.
    """
    layers = [part for part in module.modules() if isinstance(part, MATRICES)]
    for layer in layers[:-1]:
        fan_in = layer.weight[0].numel()
        layer.weight.normal_(0, math.sqrt(2 * math.pi) / fan_in, generator=generator)
