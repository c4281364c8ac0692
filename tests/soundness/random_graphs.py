"""Random networks made of the table of ops: deep, with skip connections, joined branches, conv and dense parts.

Every op of the table can follow every other: between them lies an affine map to the shape that the op needs. Values
are kept near 1, and within an op's domain by a sigmoid where it has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

import torch
from table import CASES, Case
from torch import Tensor

from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.arithmetic import Add, Scale, Sub
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.larger import Larger
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.shape import Concat, Reshape
from provenn.verifier.ops.sigmoid import Sigmoid

INPUT = (2, 3)
OUTPUTS = 4


def random_graph(seed: int, depth: int, first: Sequence[Case] = ()) -> Graph:
    """A network of `depth` ops of the table, one after the other, among them `first`."""
    builder = Builder(torch.Generator().manual_seed(seed))
    cases = [*first, *(CASES[builder.below(len(CASES))] for _ in range(depth - len(first)))]
    for place in torch.randperm(len(cases), generator=builder.generator).tolist():
        builder.follow(cases[place])
        if builder.below(5) == 0:
            builder.compare(smallest=bool(builder.below(2)))
    return builder.graph()


@dataclass(frozen=True)
class Builder:
    """Nodes so far, and their values at some inputs."""

    generator: torch.Generator
    nodes: list[Node] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)
    results: list[int] = field(default_factory=list)
    """Nodes that are an op's result (or the input): what later ops may read."""

    def __post_init__(self) -> None:
        self.nodes.append(Node("input", None, (), INPUT))
        self.values.append(torch.randn((8, *INPUT), generator=self.generator, dtype=torch.float64))
        self.results.append(0)

    def follow(self, case: Case) -> None:
        """The op of the case: its first input from the newest result, others from any (skip connections)."""
        sources = [self.results[-1], *(self.results[self.below(len(self.results))] for _ in case.shapes[1:])]
        inputs = [self.adapted(source, shape, case) for source, shape in zip(sources, case.shapes, strict=True)]
        self.results.append(self.add(case.op, *inputs))

    def compare(self, smallest: bool) -> None:
        """The larger or smaller of the newest result and another, as the reader decomposes it."""
        x, y = (self.adapted(i, (4,)) for i in (self.results[-1], self.results[self.below(len(self.results))]))
        positive = self.add(Relu(), self.add(Sub(), x, y))
        value = self.add(Sub(), x, positive) if smallest else self.add(Add(), y, positive)
        self.results.append(self.add(Larger(smallest), value, x, y))

    def graph(self) -> Graph:
        """The newest result and two others, joined, then an affine map."""
        ends = [self.results[-1], *(self.results[self.below(len(self.results))] for _ in range(2))]
        parts = [self.adapted(end, (5,)) for end in ends]
        self.add(self.linear(15, OUTPUTS), self.add(Concat(0), *parts))
        return Graph(tuple(self.nodes))

    def adapted(self, source: int, shape: tuple[int, ...], case: Case | None = None) -> int:
        """The source itself if it fits, else an affine image of it in `shape`; within the op's domain."""
        domain = None if case is None else safe(case.domain)
        size = self.values[source].abs().amax().item()
        if self.nodes[source].shape == shape and size < 4 and domain is None and self.below(4):
            return source
        count = torch.Size(shape).numel()
        flat = self.add(Reshape((self.values[source][0].numel(),)), source)
        mapped = self.add(self.linear(self.values[flat].shape[1], count, 1 / max(size, 0.1)), flat)
        if domain is not None:
            low, width = (torch.tensor(number, dtype=torch.float64) for number in domain)
            mapped = self.add(Scale(width, low), self.add(Sigmoid(), mapped))
        return self.add(Reshape(shape), mapped)

    def linear(self, inputs: int, outputs: int, factor: float = 1.0) -> Linear:
        """Weights whose absolute row sums are at most 2, most of them zero."""
        weight = torch.randn((outputs, inputs), generator=self.generator, dtype=torch.float64)
        weight = weight * (torch.rand(weight.shape, generator=self.generator) < max(0.3, 2 / inputs))
        weight = 2 * factor * weight / weight.abs().sum(1, keepdim=True).clamp(min=1)
        return Linear(weight, torch.randn(outputs, generator=self.generator, dtype=torch.float64) / 4)

    def add(self, op: Op, *inputs: int) -> int:
        """A new node."""
        value = op.forward(*(self.values[i] for i in inputs))
        assert value.isfinite().all(), f"{type(op).__name__} leaves its domain"
        self.nodes.append(Node(f"{type(op).__name__}_{len(self.nodes)}", op, inputs, tuple(value.shape[1:])))
        self.values.append(value)
        return len(self.nodes) - 1

    def below(self, count: int) -> int:
        """A random whole number."""
        return int(torch.randint(count, (1,), generator=self.generator))


def safe(domain: tuple[float, float]) -> tuple[float, float] | None:
    """(low, width) of a part of the domain of moderate numbers, away from its ends; None where all numbers will do."""
    low, high = domain
    if not isfinite(low) and not isfinite(high):
        return None
    start = max(low + 0.3, min(-1.5, high - 3.3))
    return start, min(high - 0.3, start + 3.0) - start


def all_values(graph: Graph, inputs: Tensor) -> list[Tensor]:
    """Every node's value, the network's way of computing it."""
    values = [inputs]
    for node in graph.nodes[1:]:
        assert node.op is not None
        values.append(node.op.forward(*(values[i] for i in node.inputs)))
    return values
