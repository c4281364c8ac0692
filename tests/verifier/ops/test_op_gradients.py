"""Bounds of every op can be differentiated in its parameters and in the boxes: what training needs."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from op_case import Case
from table import CASES, box
from torch import Tensor

from provenn.verifier.interval import Interval

STEP, AGREEMENT = 1e-6, 1e-3
"""Tangent points that are searched for are found to about AGREEMENT."""


@pytest.mark.parametrize("what", ["interval", "linear"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_gradients_agree_with_finite_differences(case: Case, what: str) -> None:
    generator = torch.Generator().manual_seed(3)

    def normal(shape: torch.Size | tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    boxes = [case.within(box("wide", shape, generator)) for shape in case.shapes]
    parameters = {f.name: getattr(case.op, f.name) for f in fields(case.op)}
    floating = {n: p for n, p in parameters.items() if isinstance(p, Tensor) and p.is_floating_point()}
    directions = {name: normal(p.shape) for name, p in floating.items()}
    moves = [(0.3 * normal(b.lower.shape), 0.3 * normal(b.lower.shape)) for b in boxes]
    shape = case.op.forward(*(b.lower for b in boxes)).shape
    rows, low, high = normal((3, *shape)), normal(shape), normal(shape)
    points = [normal((3, *b.lower.shape)) for b in boxes]

    def value(t: Tensor) -> Tensor:
        op = replace(case.op, **{n: p + t * directions[n] for n, p in floating.items()})
        ends = [Interval(b.lower + t * m, b.upper + t * n) for b, (m, n) in zip(boxes, moves, strict=True)]
        if what == "interval":
            found = op.interval(*ends)
            return (found.lower * low + found.upper * high).sum()
        pulled, constant = op.backward(rows, ends)
        total = sum(((p * x).sum() for p, x in zip(pulled, points, strict=True)), torch.zeros(()))
        return total if constant is None else total + constant.sum()

    t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    result = value(t)
    slope = torch.autograd.grad(result, t, materialize_grads=True)[0] if result.requires_grad else torch.zeros(())
    with torch.no_grad():
        ahead, behind = (value(torch.tensor(s * STEP, dtype=torch.float64)) for s in (1.0, -1.0))
    wanted = float(ahead - behind) / (2 * STEP)
    assert abs(float(slope) - wanted) <= AGREEMENT * (1 + abs(wanted))
