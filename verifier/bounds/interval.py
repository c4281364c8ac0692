"""Interval bound propagation (IBP): an enclosure of every node by one forward traversal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from provenn.verifier.errors import InvalidBounds
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval


def propagate(graph: Graph, box: Interval) -> list[Interval]:
    """Lower and upper bounds of every node over a box of inputs, in node order; each [batch, *node].

    Raises: InvalidBounds if a bound is not a number (an overflow, or an input that is not finite).
    Source: Gowal et al. 2018.   Time and memory: about two forward passes, linear in the batch.
    """
    bounds = [box]
    for index in range(1, len(graph.nodes)):
        bounds.append(step(graph, index, bounds))
    require_valid(graph, bounds)
    return bounds


def step(graph: Graph, index: int, bounds: Sequence[Interval]) -> Interval:
    """The enclosure of node `index` from those of its inputs."""
    node = graph.nodes[index]
    assert node.op is not None
    return node.op.interval(*(bounds[i] for i in node.inputs))


def require_valid(graph: Graph, bounds: Sequence[Interval]) -> None:
    """Raises: InvalidBounds naming the first node with lower > upper or a bound that is not finite."""
    checks = [(b.lower <= b.upper).all() & b.lower.isfinite().all() & b.upper.isfinite().all() for b in bounds]
    valid = torch.stack(checks).tolist()
    if not all(valid):
        name = graph.nodes[valid.index(False)].name
        raise InvalidBounds(f"node '{name}': a bound is not finite, or a lower bound lies above its upper bound")
