"""Bounds of random deep networks of all ops hold at ten thousand points, and what is not a number is refused."""

from __future__ import annotations

import os

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from random_graphs import OUTPUTS, all_values, random_graph
from table import CASES
from torch import Tensor

from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import propagate
from provenn.verifier.errors import InvalidBounds
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.table import OPS
from provenn.verifier.region import Region

POINTS = 10_000
STRIDE = -(-len(OPS) // 3)
DEPTH = 10
INTERVAL_ROUNDING = 1e-12
"""Of an interval bound, relative to the largest value among the bounds: float64 sums of some dozen terms a node."""
ROUNDING = 1e-10
"""Of a linear bound, relative to the largest value among all bounds: every node's coefficients round once more."""

GROUPS = tuple(OPS[i::STRIDE] for i in range(STRIDE))
"""Every op is in every run, three or so to a network; the other ops of the network are drawn."""
RADII = (0.0, 1e-12, 1e-3, 0.1, 1.0, 1e6)
some = settings(
    max_examples=int(os.environ.get("PROVENN_EXAMPLES", "2")),
    deadline=None,
    # A smaller seed is not a simpler network.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)


def region(graph: Graph, radius: float, generator: torch.Generator) -> Interval:
    """A box of that half-width along most coordinates, and of none along others."""
    centre = torch.randn((1, *graph.input_shape), generator=generator, dtype=torch.float64)
    width = radius * (torch.rand(centre.shape, generator=generator, dtype=torch.float64) + 0.5).clamp(max=1)
    width = width * (torch.rand(centre.shape, generator=generator) < 0.9)
    return Interval(centre - width, centre + width)


def points(box: Interval, generator: torch.Generator) -> Tensor:
    """Inner points and corners."""
    place = torch.rand((POINTS, *box.lower.shape[1:]), generator=generator, dtype=torch.float64)
    place = torch.where(torch.rand((POINTS, 1, 1), generator=generator) < 0.5, place.round(), place)
    return torch.minimum(torch.maximum(box.lower + place * (box.upper - box.lower), box.lower), box.upper)


def largest(bounds: list[Interval]) -> float:
    return max(float(torch.maximum(b.lower.abs(), b.upper.abs()).max()) for b in bounds)


def require_enclosed(graph: Graph, bounds: list[Interval], values: list[Tensor], slack: float) -> None:
    for node, b, value in zip(graph.nodes, bounds, values, strict=True):
        assert (value >= b.lower - slack).all() and (value <= b.upper + slack).all(), node.name


@pytest.mark.parametrize("ops", GROUPS, ids=lambda ops: "-".join(op.__name__ for op in ops))
@some
@given(seed=st.integers(0, 2**30), radius=st.sampled_from(RADII))
def test_bounds_of_every_node_hold(ops: tuple[type[Op], ...], seed: int, radius: float) -> None:
    """On boxes of width 1e6 an op may overflow: then nothing is returned. Narrow boxes always have bounds."""
    rows = [[case for case in CASES if type(case.op) is op] for op in ops]
    generator = torch.Generator().manual_seed(seed)
    graph = random_graph(seed, DEPTH, [some_rows[seed % len(some_rows)] for some_rows in rows])
    box = region(graph, radius, generator)
    try:
        enclosure = propagate(graph, box)
        relaxed = crown(graph, Region(box))
    except InvalidBounds:
        assert radius > 1
        return
    values = all_values(graph, points(box, generator))
    require_enclosed(graph, enclosure, values, INTERVAL_ROUNDING * (1 + largest(enclosure)))
    slack = ROUNDING * (1 + largest(list(relaxed.bounds)))
    require_enclosed(graph, list(relaxed.bounds), values, slack)
    matrix = torch.randn((6, 1, OUTPUTS), generator=generator, dtype=torch.float64)
    lower = relaxed.output_lower(matrix)
    assert lower.isfinite().all()
    assert (values[-1] @ matrix[:, 0].T >= lower.T - slack).all()


@pytest.mark.parametrize("bad", ("nan", "infinite", "crossed", "overflow"))
@pytest.mark.parametrize("method", (propagate, lambda graph, box: crown(graph, Region(box))), ids=("interval", "crown"))
@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_a_number_is_refused(bad: str, method: object, seed: int) -> None:
    graph = random_graph(seed, DEPTH, [CASES[0]])
    box = region(graph, 0.1, torch.Generator().manual_seed(seed))
    lower, upper = box.lower.clone(), box.upper.clone()
    if bad == "nan":
        lower[0, 0, 1] = float("nan")
    elif bad == "infinite":
        upper[0, 1, 2] = float("inf")
    elif bad == "crossed":
        lower[0, 1, 0], upper[0, 1, 0] = 1.0, 0.0
    else:
        lower, upper = torch.full_like(lower, -1.7e308), torch.full_like(upper, 1.7e308)
    assert callable(method)
    with pytest.raises(InvalidBounds):
        method(graph, Interval(lower, upper))
