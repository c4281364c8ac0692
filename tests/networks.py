"""Small random networks and regions for tests."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from provenn.verifier.graph import Graph, Node, sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.arithmetic import Add, Scale
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.conv import Conv
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.region import Region


class GraphExecutor:
    """The graph in float32, for networks that exist as a graph only; onnxruntime stands here in the api's tests."""

    name = "graph"

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.to("cpu", torch.float32)

    def run(self, inputs: np.ndarray) -> np.ndarray:
        return self.graph.forward(torch.as_tensor(inputs)).numpy()


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


def convolution(inputs: int, outputs: int, stride: int, generator: torch.Generator) -> Conv:
    weight = torch.randn(outputs, inputs, 3, 3, generator=generator, dtype=torch.float64) / (9 * inputs) ** 0.5
    bias = 0.3 * torch.randn(outputs, generator=generator, dtype=torch.float64)
    return Conv(weight, bias, (stride, stride), (1, 1, 1, 1), (1, 1), 1)


def convolutional(seed: int, skip: bool) -> Graph:
    """Three convolutions on 2 x 12 x 12, the last one beside a skip connection or not, and a linear map."""
    generator = torch.Generator().manual_seed(seed)
    ops: list[tuple[Op, tuple[int, ...]]] = [
        (convolution(2, 3, 1, generator), (0,)),
        (Relu(), (1,)),
        (convolution(3, 4, 2, generator), (2,)),
        (Relu(), (3,)),
        (convolution(4, 4, 1, generator), (4,)),
        (Add(), (3, 5))
        if skip
        else (Scale(torch.full((4, 1, 1), 1.5), torch.ones(4, 1, 1)).to("cpu", torch.float64), (5,)),
        (Relu(), (6,)),
        (Reshape((4 * 36,)), (7,)),
        (linear(4 * 36, 3, generator), (8,)),
    ]
    nodes, values = [Node("input", None, (), (2, 12, 12))], [torch.zeros((1, 2, 12, 12), dtype=torch.float64)]
    for number, (op, inputs) in enumerate(ops, start=1):
        values.append(op.forward(*(values[i] for i in inputs)))
        nodes.append(Node(f"node{number}", op, inputs, tuple(values[-1].shape[1:])))
    return Graph(tuple(nodes))


def box(centre: Tensor, radius: float | Tensor) -> Region:
    return Region(Interval(centre - radius, centre + radius))


def regions(graph: Graph, radius: float, seed: int, norm: float | None = None, batch: int = 2) -> Region:
    """Boxes of random widths around random points, or balls cut by them."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, *graph.input_shape)
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    around = box(centre, radius * torch.rand(shape, generator=generator, dtype=torch.float64))
    if norm is None:
        return around
    return Region(around.box, centre, torch.full((batch,), radius / 2, dtype=torch.float64), norm)


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
