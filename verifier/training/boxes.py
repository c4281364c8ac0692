"""Boxes to train on: whole ones around inputs, and small ones where the network is worst."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval

STRIDE = 2.5
"""What the steps of an attack add up to, in half widths of the box."""


Number = float | Tensor
"""One for all, or a tensor that broadcasts against a batch of inputs."""


def around(
    inputs: Float[Tensor, "batch *input"], radius: Number, domain: tuple[Number, Number] | None = None
) -> Interval:
    """The ball of `radius` in the largest norm around every input, cut to the domain, in which the inputs lie."""
    lower, upper = inputs - radius, inputs + radius
    if domain is None:
        return Interval(lower, upper)
    least, most = (torch.as_tensor(end, dtype=inputs.dtype, device=inputs.device) for end in domain)
    return Interval(torch.maximum(lower, least), torch.minimum(upper, most))


def ascend(
    graph: Graph, box: Interval, labels: Int[Tensor, "batch"], steps: int, generator: torch.Generator | None = None
) -> Float[Tensor, "batch *input"]:
    """Points of the box where the cross entropy is large: steps along the gradient's signs from a random point.

    No gradients; the graph's parameters are not touched.   Source: Madry et al. 2018 (PGD).
    """
    lower, upper = box.lower.detach(), box.upper.detach()
    half = (upper - lower) / 2
    draw = torch.rand(lower.shape, generator=generator, dtype=lower.dtype, device=lower.device)
    x = lower + 2 * half * draw
    for _ in range(steps):
        with torch.enable_grad():
            x.requires_grad_()
            loss = functional.cross_entropy(graph.forward(x), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, x)
        x = torch.minimum(torch.maximum(x.detach() + STRIDE / steps * half * slope.sign(), lower), upper)
    return x


def small_boxes(
    graph: Graph,
    box: Interval,
    labels: Int[Tensor, "batch"],
    share: float,
    steps: int = 8,
    generator: torch.Generator | None = None,
) -> Interval:
    """Boxes `share` times as wide, inside of the given ones, around points that `ascend` finds in what is left.

    A bound over them says nothing of the whole box: less regularisation than IBP, for networks that are certified by
    tighter methods.   Raises: ValueError for a share beyond 0 to 1.   Source: Müller et al. 2023 (SABR), where `share`
    is lambda.
    """
    require_share(share)
    half = share * (box.upper - box.lower) / 2
    x = ascend(graph, Interval(box.lower + half, box.upper - half), labels, steps, generator)
    return Interval(x - half, x + half)


def require_share(share: float) -> None:
    """Raises: ValueError unless it is from 0 to 1."""
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share}: it must be from 0 to 1")
