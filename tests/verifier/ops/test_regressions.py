"""Boxes on which lines or slopes of single ops were once wrong."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import PRelu
from provenn.verifier.ops.base import Elementwise
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.exponential import Exp
from provenn.verifier.ops.gated import HardSwish, Mish
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.log_sum_exp import extremes
from provenn.verifier.ops.normalization import Band
from provenn.verifier.ops.power import Pow
from provenn.verifier.ops.root_mean_square import RootMeanSquare
from provenn.verifier.ops.sigmoid import Sigmoid
from provenn.verifier.ops.softmax import Softmax
from provenn.verifier.ops.steps import Ceil, Floor, Round, Sign
from provenn.verifier.ops.tanh import Tanh

DTYPES = pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)

SIDES = [(0.0, 1.0), (1.0, 0.0), (0.3, 0.7)]


def box(pairs: list[tuple[float, float]], dtype: torch.dtype) -> Interval:
    ends = torch.tensor(pairs, dtype=torch.float64).T.to(dtype)
    return Interval(ends[0, None], ends[1, None])


def lines(op: Elementwise, b: Interval, parameter: float | None) -> tuple[Tensor, ...]:
    """The four numbers of the lines, default ones or with all free parameters alike; [batch, *node]."""
    start = op.free(b)
    parameters = None if parameter is None or start is None else torch.full_like(start, parameter)
    found = op.relax(b.lower, b.upper, parameters)
    intercept = torch.zeros_like(found.lower_slope) if found.lower_intercept is None else found.lower_intercept
    parts = found.lower_slope, intercept, found.upper_slope, found.upper_intercept
    return tuple(p.reshape(b.lower.shape) for p in parts)


def assert_enclosed(op: Elementwise, b: Interval, parameter: float | None) -> None:
    shares = torch.linspace(0, 1, 10_001, dtype=torch.float64)[:, None, None]
    z = torch.minimum(b.lower.double() + shares * (b.upper.double() - b.lower.double()), b.upper.double())
    low, level, high, top = (p.double() for p in lines(op, b, parameter))
    image, unit = op.forward(z), 4 * torch.finfo(b.lower.dtype).eps
    for slope, intercept, sign in ((low, level, 1), (high, top, -1)):
        rounding = unit * (image.abs() + (slope * z).abs() + intercept.abs())
        assert (sign * (image - slope * z - intercept) >= -rounding).all()


@DTYPES
@pytest.mark.parametrize("parameter", (None, 0.0, 1.0), ids=str)
@pytest.mark.parametrize("alpha, beta", [(1.0, 0.3), (1.0, 0.1), (10.0, 0.01), (0.01, 0.99), (1e6, 0.6), (1e-6, 0.3)])
def test_kinks_that_are_no_round_numbers(
    alpha: float, beta: float, parameter: float | None, dtype: torch.dtype
) -> None:
    """A coordinate beside a kink was rounded to its other side: HardSwish(1, 0.3) on [-0.3, 0.7] was 0.02 off."""
    op = HardSwish(alpha, beta)
    start, end = op.ends
    widths = [share * (end - start) for share in (1e-3, 0.3, 1.0, 9.0)]
    pairs = [(k - w * left, k + w * right) for k in (start, end, 0.0) for w in widths for left, right in SIDES]
    assert_enclosed(op, box(pairs, dtype), parameter)


def test_derivative_has_both_sides_of_a_kink_within_the_box() -> None:
    op = HardSwish(10.0, 0.01)
    found = op.derivative(box([(-1e6, -5e-4)], torch.float64))
    assert found.lower.item() <= -0.01 and found.upper.item() >= 0


@DTYPES
@pytest.mark.parametrize("z", (1e12, 1e20, 1e30))
def test_slope_of_mish_is_one_far_out(z: float, dtype: torch.dtype) -> None:
    """The second term was z times what exp(30) leaves: 3.5e4 at 1e30."""
    found = Mish().derivative(box([(z, z)], dtype))
    assert found.lower.item() <= 1 <= found.upper.item() < 1.001


@DTYPES
@pytest.mark.parametrize("op", (Sign(), Floor(), Ceil(), Round(), Tanh(), Sigmoid(), Clip(0.0, 6.0)), ids=str)
def test_lines_and_gradients_over_the_narrowest_boxes_are_finite(op: Elementwise, dtype: torch.dtype) -> None:
    """Slopes over a width of subnormal size overflowed: nan lines of Sign, nan gradients of the others."""
    tiny = 0.01 * torch.finfo(dtype).tiny
    places = (-tiny, 0.0, tiny / 4, tiny)
    b = box([*itertools.combinations(places, 2), (6.0, 6.0 + 1e-6), (-1e-6, 0.0), (6.0, 6.0)], dtype)
    for parameter in (None, 0.0, 1.0):
        moving = Interval(b.lower.clone().requires_grad_(), b.upper.clone().requires_grad_())
        found = lines(op, moving, parameter)
        assert all(part.isfinite().all() for part in found)
        total = torch.stack([part.sum() for part in found]).sum()
        gradients = torch.autograd.grad(total, [moving.lower, moving.upper], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("exponent", (33.0, 64.0, 33.5, -3.0, -7.0))
def test_powers_that_do_not_overflow_have_finite_lines(exponent: float) -> None:
    """The largest boxes that a power takes in float32: a slope times an end overflowed where the value did not."""
    op = Pow(exponent)
    sizes = torch.logspace(-12, 12, 2001)
    taken = sizes[~op.outside(sizes, sizes)]
    least, most = taken.min().item(), taken.max().item()
    b = box([(least, most), (least, least * 1.5), (most / 1.5, most)], torch.float32)
    for parameter in (None, 0.0, 1.0):
        assert all(part.isfinite().all() for part in lines(op, b, parameter))
        assert_enclosed(op, b, parameter)


@DTYPES
@pytest.mark.parametrize("parameter", (None, 0.0, 0.3, 1 - 1e-6, 1.0), ids=str)
@pytest.mark.parametrize("slope", (1e4, -1e4, 1e6, -1e6))
def test_steep_leaks_do_not_cancel(slope: float, parameter: float | None, dtype: torch.dtype) -> None:
    """s + (1 - s) u / (u - l): over [-9.8e-11, 1.6e-4] a line of LeakyRelu(1e4) was above the value by 7e-4 of it."""
    pairs = [(-left, right) for left in (9.8e-11, 1e-6, 0.3, 7.0) for right in (1.6e-4, 0.1, 3.0, 1e3)]
    b = box([*pairs, (1.0, 2.0), (-2.0, -1.0), (0.0, 1.0), (-1.0, 0.0), (0.0, 0.0)], dtype)
    for op in (LeakyRelu(slope), PRelu(torch.tensor(slope, dtype=dtype))):
        assert_enclosed(op, b, parameter)
        below, level, above, top = (p.double() for p in lines(op, b, parameter))
        stable = (b.lower >= 0) | (b.upper <= 0)
        exact = torch.where(b.lower >= 0, 1.0, slope)
        assert torch.equal(below[stable], exact[stable].double()) and torch.equal(above[stable], below[stable])
        assert not level[stable].any() and not top[stable].any()


@pytest.mark.parametrize("op", (Sigmoid(), Tanh(), Exp()), ids=str)
def test_values_and_slopes_that_underflow_are_enclosed(op: Elementwise) -> None:
    """Of a subnormal number a few roundings are not a small part of it."""
    ends = torch.cat([torch.linspace(-120, -80, 4001), -torch.logspace(-46, -36, 1001)])[None]
    b, z = Interval(ends, ends), ends.double().requires_grad_()
    image = op.forward(z)
    (slope,) = torch.autograd.grad(image.sum(), z)
    if isinstance(op, Tanh):
        slope = 1 / torch.cosh(z) ** 2
    for found, exact in ((op.interval(b), image), (op.derivative(b), slope)):
        assert (found.lower.double() <= exact).all() and (exact <= found.upper.double()).all()


@DTYPES
@pytest.mark.parametrize("size", (1.0, 0.4, 0.2))
def test_a_mask_of_the_least_number_has_probability_0(size: float, dtype: torch.dtype) -> None:
    """Four times its size overflowed: g was in [-inf, 0], -inf was raised, and the line above said p <= -7."""
    mask = size * torch.finfo(dtype).min
    b = box([(mask, mask), (0.0, 1.0), (1.0, 2.0)], dtype)
    assert extremes(b).upper[0, 0] < 0.9 * mask
    rows = torch.cat([torch.eye(3), -torch.eye(3)]).to(dtype)[:, None]
    (pulled,), constant = Softmax(0).backward(rows, [b])
    assert constant is not None
    for x in (b.lower, b.upper):
        lowest = (pulled.double() * x.double()).sum(-1) + constant.double()
        assert (lowest <= (rows.double() * torch.softmax(x.double(), -1)).sum(-1)).all()
        assert lowest[0] >= -1e-37 and lowest[3] >= -1e-37


@DTYPES
@pytest.mark.parametrize("count", (4, 64))
def test_lines_of_normalized_cells_hold_on_narrow_and_on_large_boxes(count: int, dtype: torch.dtype) -> None:
    """A chord's slope that came out negative took its error off the line; of large cells a root's cube overflowed."""
    generator = torch.Generator().manual_seed(2)
    drawn = torch.randn((200, count), generator=generator, dtype=torch.float64)
    for factor in (1e-3, 1.0, 100.0, 1e13, 1e17):
        lower = (factor * drawn).to(dtype)
        upper = lower
        for width in (1, 2, 3, 0.5):
            above = torch.nextafter(upper, torch.full_like(upper, torch.inf))
            upper = above if width >= 1 else lower + width * factor
            band = Band.of(Interval(lower, upper), 1e-5, False)
            for place in (0.0, 0.5, 1.0):
                slope, intercept = (part.double() for part in band.line(place))
                for share in (0.0, 0.5, 1.0):
                    c = lower.double() + share * (upper.double() - lower.double())
                    image = c / torch.sqrt((c * c).mean(-1, keepdim=True) + 1e-5)
                    assert (image <= slope * c + intercept + 1e-15 * (1 + image.abs())).all()


@DTYPES
def test_a_root_of_squares_that_overflow_has_a_lower_bound(dtype: torch.dtype) -> None:
    """It was infinite."""
    largest = torch.finfo(dtype).max
    for size in (2 * largest**0.5, 0.9 * largest):
        found = RootMeanSquare((0,), 1.0).interval(box([(size, size), (0.0, 1.0), (-size, size)], dtype))
        assert 0 < found.lower.item() <= size * (1 / 3) ** 0.5 and found.upper.item() >= size * (2 / 3) ** 0.5
