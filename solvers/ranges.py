"""What entries of a Jacobian reach at points of a region: bounds from within, in float64."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provenn.verifier.graph import Graph
from provenn.verifier.region import Region

BATCH, ROUNDS = 32, 32
"""Points at once, and how often."""

BESIDE = 1e-3
"""Share of the region within which the first point lies beside its middle."""

ROUNDING = 1e-9
"""Share of the largest entry by which float64 derivatives may err, as a guess: ranges are that much narrower."""


@dataclass(frozen=True, eq=False)
class Ranges:
    """The least and the greatest value of each entry, each [rows, inputs]; empty (lower > upper) where hardly seen."""

    lower: NDArray[np.float64]
    upper: NDArray[np.float64]


def seen(graph: Graph, region: Region, rows: Tensor, seconds: float, seed: int = 0) -> Ranges:
    """Of C J beside the region's middle and at random points of it. rows: C [rows, outputs] float64.

    Not at the middle itself, nor on walls: kinks are often there, and float64 has no derivative at them.
    """
    until, generator = time.monotonic() + seconds, torch.Generator().manual_seed(seed)
    lower, upper = region.box.lower[0], region.box.upper[0]
    least = torch.full((len(rows), lower.numel()), torch.inf, dtype=torch.float64)
    most = -least
    for number in range(ROUNDS):
        unit = torch.rand((BATCH, *lower.shape), generator=generator, dtype=torch.float64)
        unit[::2] = unit[::2].round() * 0.998 + 0.001  # near corners
        if number == 0:
            unit[0] = 0.5 + BESIDE * (torch.rand(lower.shape, generator=generator, dtype=torch.float64) - 0.5)
        points = torch.lerp(lower, upper, unit)
        if region.centre is not None and region.radius is not None and region.norm is not None:
            away = points - region.centre
            length = torch.linalg.vector_norm(away.flatten(1), ord=region.norm, dim=1).clamp(min=1e-30)
            scale = (region.radius * (1 - 1e-6) / length).clamp(max=1)
            points = region.centre + away * scale.reshape(-1, *(1,) * lower.dim())
            points = torch.minimum(torch.maximum(points, lower), upper)
        found = _derivatives(graph, points, rows)
        unknown = found.isnan()
        least = torch.minimum(least, found.masked_fill(unknown, torch.inf).amin(0))
        most = torch.maximum(most, found.masked_fill(unknown, -torch.inf).amax(0))
        if time.monotonic() > until:
            break
    size = torch.maximum(least.abs(), most.abs())
    error = ROUNDING * size[size.isfinite()].max() if size.isfinite().any() else 0.0
    return Ranges((least + error).numpy(), (most - error).numpy())


def _derivatives(graph: Graph, points: Tensor, rows: Tensor) -> Tensor:
    """C J at points [batch, *input]: [batch, rows, inputs]."""
    points = points.requires_grad_()
    outputs = graph.forward(points).flatten(1) @ rows.T
    found = []
    for k in range(len(rows)):
        (gradient,) = torch.autograd.grad(outputs[:, k].sum(), points, retain_graph=True, allow_unused=True)
        found.append(torch.zeros_like(points) if gradient is None else gradient)
    return torch.stack([gradient.flatten(1) for gradient in found], 1).detach()
