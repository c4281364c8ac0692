"""Bounds of a network's Jacobian over a region, and of its rows' norms, from the graph that computes it.

A row c J is the output of verifier.derivative's graph for the seed c: rows are a batch, and intervals or CROWN bound
them like any other output. Its l1 norm, which is the Lipschitz constant of c f against the largest change of an input,
is bounded as one more pair of nodes, |.| and a sum, so that signs cancel as far as linear bounds allow (Shi et al.
2022). Search results, rounded to nearest: the proof is made again by provenn.verifier.check.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from provenn.verifier.bounds import schedule
from provenn.verifier.bounds.backward import Relaxed, crown, crown_ibp
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.bounds.slopes import Effort, alpha_crown
from provenn.verifier.derivative import vector_jacobian
from provenn.verifier.errors import BackendError, InvalidSpecification
from provenn.verifier.graph import Graph, Node
from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import Abs
from provenn.verifier.ops.base import Op, Shape
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.shape import Reshape
from provenn.verifier.region import Region

METHODS = {
    "ibp": "intervals, of the network and of its Jacobian",
    "recurjac": "CROWN's bounds of the network; its Jacobian by lines where signs are known, by intervals elsewhere",
    "crown": "CROWN's bounds of the network and of its Jacobian",
    "alpha-crown": "the same with optimised slopes in the network",
}
"""Ways to bound a Jacobian, the cheapest first. Time: that of a bound of every input's entry for every row, so about
inputs x rows backward passes; memory: `schedule.MEMORY` MiB beyond a few times the network's values a row."""


def forward_bounds(graph: Graph, region: Region, method: str) -> list[Interval]:
    """Enclosures of every node over one region, [1, *node].   Raises: BackendError for an unknown method."""
    with torch.no_grad():
        match method:
            case "ibp":
                return propagate(graph, region.box)
            case "recurjac" | "crown":
                return crown(graph, region).bounds
            case "alpha-crown":
                return alpha_crown(graph, region, Effort()).bounds
    raise BackendError(method, f"no such method for a Jacobian; there are {', '.join(METHODS)}")


def jacobian(
    graph: Graph, bounds: Sequence[Interval], rows: Float[Tensor, "rows outputs"], method: str = "crown"
) -> Interval:
    """An enclosure of the entries of C J, each end [rows, inputs], from enclosures of the network's nodes.

    Raises: UnsupportedOp naming the node whose slopes are not bounded.
    """
    with torch.no_grad():
        seeds = _seeds(graph, rows)
        graph = vector_jacobian(graph, bounds, method == "recurjac").to(rows.device, rows.dtype)
        if method == "ibp":
            found = propagate(graph, seeds.box)[-1]
            return Interval(found.lower.flatten(1), found.upper.flatten(1))
        size = torch.Size(graph.output_shape).numel()
        relaxed = _relaxed(graph, seeds, method)
        unit = torch.eye(size, dtype=rows.dtype, device=rows.device).unsqueeze(1).expand(size, len(rows), size)
        sides = [relaxed.output_lower(sign * unit) for sign in (1, -1)]
        return Interval(sides[0].T, -sides[1].T)


def row_norms(
    graph: Graph,
    bounds: Sequence[Interval],
    rows: Float[Tensor, "rows outputs"],
    method: str = "crown",
    scale: Float[Tensor, " inputs"] | None = None,
) -> Float[Tensor, " rows"]:
    """Upper bounds of  sum_j |c J|_j / scale_j  for every row c: |c (f(x) - f(y))| <= that times max_j scale_j |x-y|_j.

    bounds: enclosures of every node over a convex region, [1, *node]; scale > 0, None for ones.
    Raises: UnsupportedOp naming the node whose slopes are not bounded.
    """
    with torch.no_grad():
        derivative = vector_jacobian(graph, bounds, method == "recurjac")
        normed = _with_norm(derivative, scale).to(rows.device, rows.dtype)
        seeds = _seeds(graph, rows)
        if method == "ibp":
            return propagate(normed, seeds.box)[-1].upper[:, 0]
        return -_relaxed(normed, seeds, method).output_lower(rows.new_full((1, len(rows), 1), -1.0))[0]


def _relaxed(graph: Graph, seeds: Region, method: str) -> Relaxed:
    return crown_ibp(graph, seeds) if method == "recurjac" else crown(graph, seeds, schedule.MEMORY)


def _seeds(graph: Graph, rows: Tensor) -> Region:
    """One region of one point a row."""
    size = torch.Size(graph.output_shape).numel()
    if rows.dim() != 2 or rows.shape[1] != size or not len(rows):
        raise InvalidSpecification(f"rows of shape {tuple(rows.shape)}; expected [rows, {size}] for {size} outputs")
    points = rows.reshape(-1, *graph.output_shape)
    return Region(Interval(points, points))


def _with_norm(graph: Graph, scale: Tensor | None) -> Graph:
    """The graph, and the weighted sum of its output's absolute values."""
    size = torch.Size(graph.output_shape).numel()
    ones = torch.ones(size, dtype=torch.float64)
    weight = ones if scale is None else 1 / scale.to(torch.float64)
    parts: list[tuple[str, Op, Shape]] = [
        ("absolute", Abs(), graph.output_shape),
        ("entries", Reshape((size,)), (size,)),
        ("norm", Linear(weight[None], weight.new_zeros(1)), (1,)),
    ]
    nodes = list(graph.nodes)
    for name, op, shape in parts:
        nodes.append(Node(name, op, (len(nodes) - 1,), shape))
    return Graph(tuple(nodes))
