"""The relaxation of the whole region, from which neuron splits start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from provenn.solvers.packing import Packed
from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Edge, Relaxed
from provenn.verifier.bounds.beta import LEVELS
from provenn.verifier.bounds.slopes import INTERMEDIATE, Effort, Optimum, alpha_crown
from provenn.verifier.graph import Graph
from provenn.verifier.ops.relu import Relu


@dataclass(frozen=True, eq=False)
class Rooted:
    """Slopes of the rows that gave one node's bounds over the whole region, for a proof.

    reader: the node that they were computed for; index, sign [rows]: which bound; slopes: node -> uint8 [rows, *any].
    """

    reader: int
    index: Tensor
    sign: Tensor
    slopes: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class Root:
    """alpha-CROWN's relaxation of the whole region, and the slopes of its rows."""

    relaxed: Relaxed
    rows: list[Rooted] = field(default_factory=list)

    @property
    def open(self) -> dict[int, NDArray[np.int64]]:
        """For every ReLU node the neurons that the bounds leave open."""
        nodes, bounds = self.relaxed.graph.nodes, self.relaxed.bounds
        relus = {i: bounds[node.inputs[0]] for i, node in enumerate(nodes) if isinstance(node.op, Relu)}
        return {i: np.flatnonzero(box.unstable[0].cpu().numpy()) for i, box in relus.items()}

    @classmethod
    def of(cls, graph: Graph, packed: Packed, over: Callable[[], bool]) -> Root:
        """Made within the time, else with fewer optimised bounds.   Raises: Unbounded; what `over` raises."""
        rows: list[Rooted] = []
        relus = {i for i, node in enumerate(graph.nodes) if isinstance(node.op, Relu)}

        def record(relaxed: Relaxed, edge: Edge, some: schedule.Chunk, found: Optimum) -> None:
            slopes = {i: in_bytes(found.over(i, graph.nodes[i].shape)[:, 0]) for i in found.parameters if i in relus}
            rows.append(Rooted(edge.reader, some.index[:, 0], some.sign[:, 0], slopes))

        return cls(alpha_crown(graph, packed.region, Effort(INTERMEDIATE.iterations, over=over), record), rows)


def in_bytes(parameters: Tensor) -> Tensor:
    """Multiples of 1 / LEVELS as uint8."""
    return (parameters.detach() * LEVELS).round().to(torch.uint8)
