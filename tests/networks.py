"""Small random networks and regions for tests."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import Region


def linear(inputs: int, outputs: int, generator: torch.Generator) -> Linear:
    weight = torch.randn(outputs, inputs, generator=generator, dtype=torch.float64) / inputs**0.5
    return Linear(weight, 0.3 * torch.randn(outputs, generator=generator, dtype=torch.float64))


def mlp(widths: list[int], seed: int, activation: Op | None = None) -> Graph:
    generator = torch.Generator().manual_seed(seed)
    ops: list[Op] = []
    for inputs, outputs in pairwise(widths):
        ops += [linear(inputs, outputs, generator), activation or Relu()]
    return sequential((widths[0],), ops[:-1])


def residual(width: int, blocks: int, outputs: int, seed: int) -> Graph:
    """x -> x + W relu(V x), repeated, then a linear map."""
    generator = torch.Generator().manual_seed(seed)
    nodes = [Node("input", None, (), (width,))]
    for block in range(blocks):
        skip = len(nodes) - 1
        nodes.append(Node(f"in{block}", linear(width, width, generator), (skip,), (width,)))
        nodes.append(Node(f"relu{block}", Relu(), (skip + 1,), (width,)))
        nodes.append(Node(f"out{block}", linear(width, width, generator), (skip + 2,), (width,)))
        nodes.append(Node(f"add{block}", Add(), (skip, skip + 3), (width,)))
    nodes.append(Node("output", linear(width, outputs, generator), (len(nodes) - 1,), (outputs,)))
    return Graph(tuple(nodes))


def box(centre: Tensor, radius: float | Tensor) -> Region:
    return Region(Interval(centre - radius, centre + radius))


def samples(region: Region, count: int, seed: int = 0) -> Tensor:
    """Points of every region of the batch, corners and the centre among them: [count, batch, *input]."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = region.box.lower, region.box.upper
    unit = torch.rand((count, *lower.shape), generator=generator, dtype=lower.dtype)
    unit[: count // 3] = unit[: count // 3].round()
    unit[0] = 0.5
    x = torch.minimum(lower + unit * (upper - lower), upper)
    if region.centre is None or region.radius is None or region.norm is None:
        return x
    away = x - region.centre
    length = torch.linalg.vector_norm(away.flatten(2), ord=region.norm, dim=-1).clamp(min=1e-300)
    scale = (region.radius / length).clamp(max=1).reshape(*length.shape, *(1,) * (x.dim() - 2))
    return torch.minimum(torch.maximum(region.centre + away * scale, lower), upper)
