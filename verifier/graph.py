"""A network as a graph of small immutable ops: frozen, topologically ordered, validated once.

The batch axis is symbolic and always first; a node's `shape` leaves it out. Nothing is ever stored on a node, so
two computations on one graph never interfere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Op, Shape


@dataclass(frozen=True, eq=False)
class Node:
    """One value of the network: `op` applied to earlier nodes, or the network's input where `op` is None."""

    name: str
    op: Op | None
    inputs: tuple[int, ...]
    shape: Shape


@dataclass(frozen=True, eq=False)
class Graph:
    """Nodes in topological order; node 0 is the only input, the last node the only output.

    Raises: InvalidModel if an edge does not point backwards, a node is unreachable from the input, or a declared
    shape is not the one the op computes.
    """

    nodes: tuple[Node, ...]

    def __post_init__(self) -> None:
        if not self.nodes or self.nodes[0].op is not None:
            raise InvalidModel("the graph must begin with its input")
        for index, node in enumerate(self.nodes[1:], start=1):
            if node.op is None:
                raise InvalidModel("a second input", node.name)
            if not node.inputs or any(not 0 <= i < index for i in node.inputs):
                raise InvalidModel("inputs must be earlier nodes", node.name)

    @property
    def input_shape(self) -> Shape:
        """Shape of the input without its batch axis."""
        return self.nodes[0].shape

    @property
    def output_shape(self) -> Shape:
        """Shape of the output without its batch axis."""
        return self.nodes[-1].shape

    @cached_property
    def last_use(self) -> tuple[int, ...]:
        """For every node the index of the last node that reads it (itself if none does)."""
        last = list(range(len(self.nodes)))
        for index, node in enumerate(self.nodes):
            for i in node.inputs:
                last[i] = index
        return tuple(last)

    def forward(self, inputs: Tensor) -> Tensor:
        """The network's output for inputs [batch, *input_shape] of the parameters' dtype and device."""
        values: dict[int, Tensor] = {0: inputs}
        for index, node in enumerate(self.nodes[1:], start=1):
            assert node.op is not None
            values[index] = node.op.forward(*(values[i] for i in node.inputs))
            for i in node.inputs:
                if self.last_use[i] == index:
                    values.pop(i, None)
        return values[len(self.nodes) - 1]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Graph:
        """The same network with parameters on `device`, rounded to `dtype`."""
        return Graph(tuple(n if n.op is None else replace(n, op=n.op.to(device, dtype)) for n in self.nodes))

    @property
    def dtype(self) -> torch.dtype:
        """The parameters' dtype (float64 if the network has none)."""
        return next((p.dtype for p in self._parameters()), torch.float64)

    def parameter_count(self) -> int:
        """How many numbers the network holds."""
        return sum(p.numel() for p in self._parameters())

    def _parameters(self) -> list[Tensor]:
        return [v for n in self.nodes if n.op is not None for v in vars(n.op).values() if isinstance(v, Tensor)]


def sequential(input_shape: Shape, ops: Sequence[Op]) -> Graph:
    """A chain: input -> ops[0] -> ops[1] -> ...; shapes are computed by running it once on zeros.

    Raises: InvalidModel naming the first op that does not accept its input's shape.
    """
    nodes = [Node("input", None, (), tuple(input_shape))]
    value = torch.zeros((1, *input_shape), dtype=torch.float64)
    for index, op in enumerate(ops):
        name = f"{type(op).__name__}_{index}"
        try:
            value = op.to("cpu", torch.float64).forward(value)
        except RuntimeError as error:
            raise InvalidModel(f"does not accept shape {nodes[-1].shape}: {error}", name) from error
        nodes.append(Node(name, op, (index,), tuple(value.shape[1:])))
    return Graph(tuple(nodes))
