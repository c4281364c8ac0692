"""Tangents and chords of tanh and sigmoid: sound without tolerance, and the tightest of their family."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from provenn.verifier.ops.s_shaped import SShaped, tangent_point
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.tanh import Tanh

OPS = (Tanh(), Sigmoid())
every_op = pytest.mark.parametrize("op", OPS, ids=lambda op: type(op).__name__)

ends = st.one_of(
    st.floats(-3, 3, width=32),
    st.floats(-30, 30, width=32),
    st.floats(-(2.0**20), 2.0**20, width=32),
    st.floats(-(2.0**-20), 2.0**-20, width=32),
    st.just(0.0),
)
widths = st.one_of(st.just(0.0), st.floats(0, 1e-5), st.floats(0, 10))


def boxes(drawn: list[tuple[float, float]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    lower = torch.tensor([[low for low, _ in drawn]], dtype=dtype)
    upper = torch.tensor([[low + width for low, width in drawn]], dtype=dtype)
    return lower, torch.maximum(lower, upper)


def grid(lower: Tensor, upper: Tensor) -> Tensor:
    """Points of every box, dense at both ends and around 0: [points, 1, boxes] of float64."""
    low, high = lower.double(), upper.double()
    even = torch.linspace(0, 1, 257, dtype=torch.float64).reshape(-1, 1, 1)
    near = torch.logspace(-9, 0, 128, dtype=torch.float64).reshape(-1, 1, 1)
    around = torch.cat([-32 * near, 32 * near]).expand(-1, *low.shape)
    z = torch.cat([low + even * (high - low), low + near * (high - low), high - near * (high - low), around])
    return torch.minimum(torch.maximum(z, low), high)


@every_op
@given(st.lists(st.tuples(ends, widths), min_size=1, max_size=20), st.booleans())
@settings(deadline=None, max_examples=80)
def test_float32_lines_enclose_the_function_without_tolerance(
    op: SShaped, drawn: list[tuple[float, float]], far: bool
) -> None:
    """The lines that float32 finds, read as real numbers: the widened intercepts pay for every rounding in them."""
    lower, upper = boxes(drawn, torch.float32)
    if far:
        lower = torch.minimum(lower, -upper.abs() * 7)
    lines = op.relax(lower, upper)
    z = grid(lower, upper)
    assert lines.lower_intercept is not None
    below = lines.lower_slope.double() * z + lines.lower_intercept.double()
    above = lines.upper_slope.double() * z + lines.upper_intercept.double()
    assert (below <= op.forward(z)).all() and (above >= op.forward(z)).all()


@every_op
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_no_box_is_too_large(op: SShaped, dtype: torch.dtype) -> None:
    sizes = torch.logspace(-30, 37, 300, dtype=dtype)[None]
    for lower, upper in ((-sizes, sizes), (-sizes, sizes.flip(1)), (sizes.flip(1) / 3, sizes.flip(1))):
        lines = op.relax(lower, upper)
        assert lines.lower_intercept is not None
        for line in (lines.lower_slope, lines.lower_intercept, lines.upper_slope, lines.upper_intercept):
            assert line.isfinite().all()
        for z in (lower.double(), upper.double(), torch.zeros_like(lower).double().clamp(min=lower.double())):
            slack = 0 if dtype == torch.float32 else 1e-15
            below = lines.lower_slope.double() * z + lines.lower_intercept.double()
            above = lines.upper_slope.double() * z + lines.upper_intercept.double()
            assert (below <= op.forward(z) + slack).all() and (above >= op.forward(z) - slack).all()


def test_tangent_point_is_the_root_and_never_left_of_it() -> None:
    """G changes sign within the promised distance; where G drowns in its own rounding (a < 1e-4), d is near a / 2."""
    a = torch.cat([torch.logspace(-4, 8, 2000).double(), torch.logspace(8, 300, 400, dtype=torch.float64)])
    d = tangent_point(a)

    def excess(d: Tensor) -> Tensor:
        tail = torch.exp(-2 * d)
        return torch.tanh(d) + torch.tanh(a) - 4 * tail / (1 + tail) ** 2 * (d + a)

    rounding = 4e-16 * torch.tanh(a)
    assert (excess(d) >= -rounding).all()
    assert (excess(d * (1 - 4e-6)) <= rounding).all()
    small = torch.logspace(-12, -4, 500, dtype=torch.float64)
    assert (tangent_point(small) <= small).all() and (tangent_point(small) >= 0).all()
    torch.testing.assert_close(tangent_point(a[:1]), a[:1] / 2, rtol=1e-3, atol=0)


@every_op
@given(st.floats(-8, 8), st.floats(0.01, 12))
@settings(deadline=None, max_examples=60)
def test_no_other_sound_line_of_the_family_encloses_less(op: SShaped, low: float, width: float) -> None:
    """The chord, and the tangents at 700 points: of those above the function none is lower at the midpoint."""
    lower = torch.full((1, 1), low, dtype=torch.float64)
    upper = lower + width
    lines = op.relax(lower, upper)
    middle = (lower + upper) / 2
    z = torch.linspace(0, 1, 701, dtype=torch.float64)[:, None] * width + lower
    image = op.forward(z)
    slope = torch.cat([op.slope(z), (image[-1:] - image[:1]) / width])
    through, value = torch.cat([z, z[:1]]), torch.cat([image, image[:1]])
    family = value + slope * (z.T - through)
    at_middle = value + slope * (middle - through)
    above = (family >= image.T - 1e-12).all(1)
    below = (family <= image.T + 1e-12).all(1)
    assert above.any() and below.any()
    # The grid's tangents may miss the best one by a cell, never beat ours beyond the distance to the root.
    best_above, best_below = at_middle[above].min(), at_middle[below].max()
    assert (lines.upper_slope * middle + lines.upper_intercept <= best_above + 1e-5 * width).all()
    assert (lines.lower_slope * middle + lines.lower_intercept >= best_below - 1e-5 * width).all()


@every_op
def test_derivative_is_the_derivative(op: SShaped) -> None:
    z = torch.linspace(-40, 40, 801, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(op.forward(z).sum(), z)
    torch.testing.assert_close(op.slope(z), expected, rtol=0, atol=1e-15)
    far = torch.tensor([300.0], dtype=torch.float64)
    torch.testing.assert_close(op.slope(far), op.slope(-far), rtol=0, atol=0)
    assert (op.slope(far) > 0).all()
