"""Gains and transposes: what derivatives are made of."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import BOXES, CASES, Case, box, few

from provenn.verifier.interval import Interval
from provenn.verifier.ops.adjoint import Adjoint, linear_part, transposed
from provenn.verifier.ops.base import Affine
from provenn.verifier.ops.gain import Gain

SHAPE, SAMPLES = (4, 5), 2_000


def drawn(kind: str, seed: int) -> tuple[Interval, Interval, torch.Tensor, torch.Tensor]:
    """Boxes of gains and of values, and samples of both, ends and zeros among them."""
    generator = torch.Generator().manual_seed(seed)
    gains = Interval(*(torch.randn(2, 1, *SHAPE, generator=generator, dtype=torch.float64).sort(0).values))
    gains.lower[:, :2] = gains.lower[:, :2].clamp(0, 1)
    gains.upper[:, 1:3] = gains.lower[:, 1:3]
    gains = Interval(torch.minimum(gains.lower, gains.upper), torch.maximum(gains.lower, gains.upper))
    values = box(kind, SHAPE, generator)
    share = torch.rand(2, SAMPLES, 1, *SHAPE, generator=generator, dtype=torch.float64)
    share[:, : SAMPLES // 2] = share[:, : SAMPLES // 2].round()
    d, z = (b.lower + s * (b.upper - b.lower) for b, s in zip((gains, values), share, strict=True))
    d, z = (torch.minimum(torch.maximum(x, b.lower), b.upper) for x, b in ((d, gains), (z, values)))
    return gains, values, d, z


@few
@given(kind=st.sampled_from(BOXES), seed=st.integers(0, 2**20), fixed=st.booleans())
def test_lines_and_boxes_hold_for_every_gain(kind: str, seed: int, fixed: bool) -> None:
    gains, values, d, z = drawn(kind, seed)
    op = Gain(gains.lower[0], gains.upper[0], fixed)
    products, found, lines = d * z, op.interval(values), op.relax(values.lower, values.upper)
    largest = torch.maximum(gains.lower.abs(), gains.upper.abs()) * torch.maximum(
        values.lower.abs(), values.upper.abs()
    )
    assert (found.lower <= products).all()
    assert (products <= found.upper).all()
    assert lines.lower_intercept is not None
    slack = 1e-13 * largest + 1e-300
    assert (lines.lower_slope * z + lines.lower_intercept <= products + slack).all()
    assert (products <= lines.upper_slope * z + lines.upper_intercept + slack).all()
    derivative = op.derivative(values)
    assert torch.equal(derivative.lower, gains.lower.expand_as(values.lower))
    exact = ~op.improvable(values)[0]
    if not fixed:
        for end in (values.lower, values.upper):
            least, most = (torch.minimum(a * end, b * end) for a, b in ((gains.lower, gains.upper),) * 2)
            assert (lines.lower_slope * end + lines.lower_intercept >= least - slack).all()
            assert (most <= lines.upper_slope * end + lines.upper_intercept + slack)[exact].all()


def test_a_gain_between_0_and_1_has_the_chords_of_relu() -> None:
    op = Gain(torch.zeros(3).double(), torch.ones(3).double())
    lower, upper = torch.tensor([[-1.0, 2.0, -4.0]]).double(), torch.tensor([[3.0, 5.0, -2.0]]).double()
    lines = op.relax(lower, upper)
    assert lines.lower_slope.tolist() == [[0.25, 0.0, 1.0]]
    assert lines.upper_slope.tolist() == [[0.75, 1.0, 0.0]]
    assert lines.upper_intercept.tolist() == [[0.75, 0.0, 0.0]]
    constant = Gain(op.lower, op.upper, fixed=True).relax(lower, upper)
    assert constant.lower_slope.tolist() == [[0.0, 0.0, 1.0]]
    assert constant.upper_intercept.tolist() == [[3.0, 0.0, 0.0]]


AFFINE = [case for case in CASES if isinstance(case.op, Affine)]


@pytest.mark.parametrize("case", AFFINE, ids=lambda case: case.name)
def test_transposes_of_linear_parts(case: Case) -> None:
    """<J x, g> = <x, J' g>, |J'| r is the sum of absolute products, and an adjoint's own adjoint is the op."""
    assert isinstance(case.op, Affine)
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(3, *shape, generator=generator, dtype=torch.float64) for shape in case.shapes]
    linear = linear_part(case.op, case.shapes)
    zeros = [torch.zeros_like(part) for part in x]
    assert not linear.apply(*zeros).any()
    torch.testing.assert_close(linear.apply(*x), case.op.apply(*x) - case.op.apply(*zeros))
    image = linear.apply(*x)
    g = torch.randn(image.shape, generator=generator, dtype=torch.float64)
    total = torch.zeros(3, dtype=torch.float64)
    for position, part in enumerate(x):
        back = transposed(linear, case.shapes, position)
        pulled = back.apply(g)
        assert pulled.shape == part.shape
        total += (pulled * part).flatten(1).sum(1)
        assert (back.magnitude(g.abs()) >= pulled.abs() * (1 - 1e-12)).all()
        alone = [part if i == position else zero for i, zero in enumerate(zeros)]
        (again,) = back.adjoint(part, [tuple(g.shape[1:])])
        torch.testing.assert_close(again, linear.apply(*alone))
        if isinstance(back, Adjoint):
            assert back.to("cpu", torch.float32).apply(g.float()).dtype == torch.float32
    torch.testing.assert_close(total, (image * g).flatten(1).sum(1))
    assert math.prod(image.shape)
