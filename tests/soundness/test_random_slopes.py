"""Optimised free parameters of every op, in random deep networks: never below CROWN, and sound."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import OUTPUTS, random_graph
from table import CASES
from test_random_graphs import DEPTH, GROUPS, ROUNDING, largest, points, region

from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.slopes import Effort, optimised_lower
from provenn.verifier.ops.base import Op
from provenn.verifier.region import Region


@pytest.mark.parametrize("ops", GROUPS, ids=lambda ops: "-".join(op.__name__ for op in ops))
@settings(max_examples=1, deadline=None)
@given(seed=st.integers(0, 2**30), radius=st.sampled_from((0.0, 0.1, 1.0)))
def test_optimised_bounds_hold(ops: tuple[type[Op], ...], seed: int, radius: float) -> None:
    rows = [[case for case in CASES if type(case.op) is op] for op in ops]
    generator = torch.Generator().manual_seed(seed)
    graph = random_graph(seed, DEPTH, [some[seed % len(some)] for some in rows])
    box = region(graph, radius, generator)
    relaxed = crown(graph, Region(box))
    matrix = torch.randn((4, 1, OUTPUTS), generator=generator, dtype=torch.float64)
    found = optimised_lower(relaxed, matrix, Effort(iterations=6))
    slack = ROUNDING * (1 + largest(list(relaxed.bounds)))
    assert (found.lower >= relaxed.output_lower(matrix)).all()
    for parameters in found.parameters.values():
        assert parameters.isfinite().all() and (parameters >= 0).all() and (parameters <= 1).all()
    image = graph.forward(points(box, generator))
    assert (image @ matrix[:, 0].T >= found.lower.T - slack).all()
