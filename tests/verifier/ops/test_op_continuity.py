"""Which ops jump: looked for along segments between random inputs, by halving those on which the value changes most."""

from __future__ import annotations

import pytest
import torch
from table import CASES, Case

from provenn.verifier.continuity import CONTINUOUS, JUMPING, jump
from provenn.verifier.graph import Graph, Node
from provenn.verifier.ops.exponential import Softplus
from provenn.verifier.ops.table import OPS

SEGMENTS, HALVINGS, CELLS = 64, 40, 2


def steepest(case: Case) -> float:
    """What is left of the change of some cells' values where a segment has become a point; 0 of continuous ops."""
    starts, ends = (case.inputs(SEGMENTS, seed, torch.float64) for seed in (0, 1))
    worst = 0.0
    for cell in range(min(CELLS, case.op.forward(*starts).flatten(1).shape[1])):
        low, high = starts, ends

        def value(points: tuple[torch.Tensor, ...], cell: int = cell) -> torch.Tensor:
            return case.op.forward(*points).flatten(1)[:, cell]

        for _ in range(HALVINGS):
            middle = tuple((a + b) / 2 for a, b in zip(low, high, strict=True))
            first = (value(middle) - value(low)).abs() >= (value(high) - value(middle)).abs()

            def chosen(one: torch.Tensor, other: torch.Tensor, first: torch.Tensor = first) -> torch.Tensor:
                return torch.where(first.reshape(-1, *(1,) * (one.dim() - 1)), one, other)

            low, high = (
                tuple(chosen(a, m) for a, m in zip(low, middle, strict=True)),
                tuple(chosen(m, b) for m, b in zip(middle, high, strict=True)),
            )
        worst = max(worst, float((value(high) - value(low)).abs().max()))
    return worst


@pytest.mark.parametrize("case", [c for c in CASES if not isinstance(c.op, Softplus)], ids=lambda case: case.name)
def test_the_ops_that_jump_are_known(case: Case) -> None:
    inputs = [Node(f"x{i}", None, (), shape) for i, shape in enumerate(case.shapes[:1])]
    known = jump(Graph((*inputs, Node("op", case.op, (0,) * len(case.shapes), case.shapes[0])))) is not None
    assert (steepest(case) > 1e-2) == known, case.name


def test_every_op_is_sorted() -> None:
    assert set(OPS) <= CONTINUOUS | JUMPING
    assert not CONTINUOUS & JUMPING


def test_a_threshold_jumps() -> None:
    """By 2e-9 only, where torch has it: too little to be found by halving."""
    nodes = (Node("x", None, (), (1,)), Node("soft", Softplus(20.0), (0,), (1,)))
    found = jump(Graph(nodes))
    assert found is not None
    assert found.name == "soft"
    assert jump(Graph((nodes[0], Node("soft", Softplus(), (0,), (1,))))) is None
