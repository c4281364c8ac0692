"""Free parameters of maxima, order statistics, and nodes that are known to be one of two others."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import BOXES, CASES, Case, box, few, points
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.interval import Interval
from provenn.verifier.ops.larger import Either, Larger
from provenn.verifier.ops.max_pool import MaxPool
from provenn.verifier.ops.maximum import Extreme, Maximum, Minimum, ReduceMax
from provenn.verifier.ops.sort import Ranked, Sort

FREE = [case for case in CASES if isinstance(case.op, Extreme | MaxPool) and "kernel-1" not in case.name]
SORTS = [case for case in CASES if isinstance(case.op, Sort)]
kinds, seeds = st.sampled_from(BOXES), st.integers(0, 2**20)


def doubles(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float64)


def rows_of(case: Case, boxes: list[Interval], generator: torch.Generator, count: int) -> Tensor:
    shape = case.op.interval(*boxes).lower.shape
    return torch.randn((count, *shape), generator=generator, dtype=torch.float64)


def value(pulled: tuple[Tensor, ...], constant: Tensor, sampled: list[Tensor]) -> Tensor:
    """The linear bound at points [points, batch, *node]: [points, spec, batch]."""
    parts = [torch.einsum("sbn,pbn->psb", p.flatten(2), x.flatten(2)) for p, x in zip(pulled, sampled, strict=True)]
    return constant + sum(parts)


@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds, own=st.booleans(), extreme=st.sampled_from((None, 0.0, 1.0)))
def test_any_parameters_are_sound(case: Case, kind: str, seed: int, own: bool, extreme: float | None) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    rows = rows_of(case, boxes, generator, 3)
    start = case.op.free(*boxes)
    assert start is not None and start.shape[:2] == (1, 2)
    parameters = torch.rand((3 if own else 1, *start.shape[1:]), generator=generator, dtype=torch.float64)
    if extreme is not None:
        parameters = torch.full_like(parameters, extreme)
    pulled, constant = case.op.linearize(boxes, parameters)(rows)
    assert constant is not None
    sampled = [points(b, 200, generator) for b in boxes]
    image = case.op.forward(*(x.flatten(0, 1) for x in sampled)).unflatten(0, (200, 2))
    exact = torch.einsum("sbn,pbn->psb", rows.flatten(2), image.flatten(2))
    size = torch.einsum("sbn,pbn->psb", rows.abs().flatten(2), image.abs().flatten(2)) + constant.abs()
    size = size + value(tuple(p.abs() for p in pulled), torch.zeros_like(constant), [x.abs() for x in sampled])
    assert (exact >= value(pulled, constant, sampled) - 1e-13 * size).all()


@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_parameters_start_at_the_default_lines(case: Case, kind: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    rows = rows_of(case, boxes, generator, 2)
    start = case.op.free(*boxes)
    assert start is not None and ((start == 0) | (start == 1)).all()
    plain, constant = case.op.backward(rows, boxes)
    free, same = case.op.linearize(boxes, start)(rows)
    for one, other in zip(plain, free, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(constant, same, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("case", FREE + SORTS, ids=lambda case: case.name)
@pytest.mark.parametrize("kind", BOXES)
def test_gradients_are_numbers(case: Case, kind: str) -> None:
    """Also where boxes have no width, windows lie in the padding partly, and everything is decided."""
    generator = torch.Generator().manual_seed(3)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    ends = [Interval(b.lower.requires_grad_(), b.upper.clone().requires_grad_()) for b in boxes]
    start = case.op.free(*boxes)
    leaves = [t for b in ends for t in (b.lower, b.upper)]
    if start is not None:
        start = (start * 0.9).requires_grad_()
        leaves.append(start)
    rows = rows_of(case, boxes, generator, 2)
    pulled, constant = case.op.linearize(ends, start)(rows)
    assert constant is not None
    total = constant.sum() + sum((p * b.lower.detach()).sum() for p, b in zip(pulled, boxes, strict=True))
    for gradient in torch.autograd.grad(total, leaves, allow_unused=True):
        assert gradient is None or gradient.isfinite().all()


def test_parameters_find_the_better_combination() -> None:
    """min over [-1, 1]^2 of max(x, y) - (x + y) / 2 is 0; following one input alone leaves -1."""
    x = Interval(-torch.ones((1, 1)).double(), torch.ones((1, 1)).double())
    rows = torch.ones((1, 1, 1)).double()

    def bound(parameters: Tensor | None) -> float:
        (a, b), constant = Maximum().linearize([x, x], parameters)(rows)
        assert constant is not None
        return float(constant - (a - 0.5).abs() - (b - 0.5).abs())

    assert bound(None) == -1
    assert bound(torch.tensor([[[[1.0, 1.0]]]]).double()) > -1e-3


@pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
def test_parameters_may_change_between_calls(case: Case) -> None:
    """The optimiser moves them in place and asks the same lines again."""
    generator = torch.Generator().manual_seed(5)
    boxes = [box("wide", shape, generator) for shape in case.shapes]
    start = case.op.free(*boxes)
    assert start is not None
    moved, rows = start.clone(), rows_of(case, boxes, generator, 2)
    lines = case.op.linearize(boxes, moved)
    lines(rows)
    moved.copy_(torch.rand(start.shape, generator=generator))
    for one, other in zip(lines(rows)[0], case.op.linearize(boxes, moved)(rows)[0], strict=True):
        assert torch.equal(one, other)


def test_parameters_leave_decided_maxima_alone() -> None:
    low, high = Interval(doubles(0.0), doubles(1.0)), Interval(doubles(1.0), doubles(3.0))
    (a, b), constant = Maximum().linearize([low, high], torch.ones((1, 1, 1, 2)).double())(
        torch.ones((1, 1, 1)).double()
    )
    assert (a.item(), b.item(), constant.item()) == (0, 1, 0)
    (a, b), constant = Minimum().linearize([low, high], torch.zeros((1, 1, 1, 2)).double())(
        -torch.ones((1, 1, 1)).double()
    )
    assert (a.item(), b.item(), constant.item()) == (-1, 0, 0)


def test_padding_gets_no_weight() -> None:
    pool = MaxPool((3,), (2,), (1, 1), (1,), False)
    x = Interval(doubles(-3.0, -2.0, -4.0)[None], doubles(-1.0, -1.5, -0.5)[None])
    (pulled,), constant = pool.linearize([x], torch.ones((1, 1, 1, 2, 3)).double())(torch.ones((1, 1, 1, 2)).double())
    assert pulled.sum().item() == pytest.approx(2, abs=1e-12)
    assert not constant.any()


@pytest.mark.parametrize("case", SORTS, ids=lambda case: case.name)
@few
@given(seed=seeds)
def test_disjoint_boxes_are_permuted_exactly(case: Case, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    (shape,) = case.shapes
    order = torch.rand((2, *shape), generator=generator).argsort(case.op.axis + 1).double()
    box_ = Interval(order, order + torch.rand(order.shape, generator=generator).double())
    (mask,) = case.op.improvable(box_)
    assert not mask.any()
    rows = rows_of(case, [box_], generator, 2)
    (pulled,), constant = case.op.backward(rows, [box_])
    x = points(box_, 50, generator)
    exact = torch.einsum("sbn,pbn->psb", rows.flatten(2), case.op.forward(x.flatten(0, 1)).reshape(50, 2, -1))
    torch.testing.assert_close(value((pulled,), constant, [x]), exact, rtol=1e-12, atol=1e-12)


@few
@given(kind=kinds, seed=seeds, size=st.integers(2, 7))
def test_lines_of_a_rank_stay_within_its_interval(kind: str, seed: int, size: int) -> None:
    """Over its own cell's box the upper line ends at the rank's largest value, the lower one at its smallest."""
    x = box(kind, (4, size), torch.Generator().manual_seed(seed))
    exact = Sort(1, True).interval(x)
    below, above = Ranked.below(x.lower, x.upper), Ranked.above(x.lower, x.upper)
    scale = 1e-13 * (1 + torch.maximum(x.lower.abs(), x.upper.abs()).amax())
    top = above.slope * x.upper.gather(-1, above.cell) + above.intercept
    low = below.slope * x.lower.gather(-1, below.cell) + below.intercept
    assert (above.slope >= 0).all() and ((top - exact.upper).abs() <= scale).all()
    assert (below.slope >= 0).all() and ((low - exact.lower).abs() <= scale).all()


def test_a_value_known_otherwise_is_cut_by_what_is_known() -> None:
    x, y, z = (Interval(doubles(a), doubles(b)) for a, b in ((0, 2), (-1, 3), (-5, 9)))
    for op, ends in ((Larger(), (0, 3)), (Larger(True), (-1, 2)), (Either(), (-1, 3))):
        cut = op.interval(z, x, y)
        assert (cut.lower.item(), cut.upper.item()) == ends
        rows = torch.full((1, 1, 1), -2.0).double()
        pulled, constant = op.backward(rows, [z, x, y])
        assert [p.item() for p in pulled] == [-2, 0, 0] and constant is None
        assert op.improvable(z, x, y) == (None, None, None)


def test_boxes_that_miss_each_other_by_roundings_are_joined() -> None:
    x, z = (Interval(doubles(a), doubles(a)) for a in (1.0, 1.0 + 2.0**-52))
    cut = Larger().interval(z, x, x)
    assert (cut.lower.item(), cut.upper.item()) == (1.0, 1.0 + 2.0**-52)


def test_axes_are_named_once() -> None:
    for axes in ((), (1, 1), (-1,)):
        with pytest.raises(InvalidModel):
            ReduceMax(axes, True)
    with pytest.raises(InvalidModel):
        Sort(-1, True)
