"""Bounds of every op hold at sampled points and corners of boxes of every kind, and are as tight as they claim."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import BOXES, CASES, ELEMENTWISE, NONLINEAR, Case, box, few, fewer, points
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.abs import PRelu
from provenn.verifier.ops.base import Elementwise, Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.leaky_relu import LeakyRelu
from provenn.verifier.ops.lines import chord
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.relu import Relu
from provenn.verifier.ops.s_shaped import SShaped
from provenn.verifier.ops.univariate import Univariate

POINTS = 4_000
ROUNDING = 1e-13
"""Relative to the sum of the absolute terms of the inequality: float64 sums of a few dozen of them."""

PLANE = 32 * torch.finfo(torch.float64).eps
"""Of a plane that bounds a product, relative to the largest product; see `Multiply` and `MatMul`."""

kinds, seeds = st.sampled_from(BOXES), st.integers(0, 2**20)
every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def values(op: Op, sampled: list[Tensor]) -> Tensor:
    """op at [points, batch, *node] -> [points, batch, *output]."""
    count, batch = sampled[0].shape[:2]
    return op.forward(*(x.flatten(0, 1) for x in sampled)).unflatten(0, (count, batch))


def drawn(case: Case, kind: str, seed: int) -> tuple[list[Interval], list[Tensor], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    boxes = [case.within(box(kind, shape, generator)) for shape in case.shapes]
    return boxes, [points(b, POINTS, generator) for b in boxes], generator


@every_op
@few
@given(kind=kinds, seed=seeds)
def test_interval_encloses_every_value(case: Case, kind: str, seed: int) -> None:
    boxes, sampled, _ = drawn(case, kind, seed)
    enclosure = case.op.interval(*boxes)
    image = values(case.op, sampled)
    scale = 1e-12 * torch.maximum(enclosure.lower.abs(), enclosure.upper.abs()).amax()
    assert (enclosure.lower <= enclosure.upper).all()
    assert (image >= enclosure.lower - scale).all() and (image <= enclosure.upper + scale).all()


@every_op
@few
@given(kind=kinds, seed=seeds)
def test_linear_bound_lies_below(case: Case, kind: str, seed: int) -> None:
    """A op(x) >= sum_i B_i x_i + c for random rows A, and rows of one sign."""
    boxes, sampled, generator = drawn(case, kind, seed)
    image = values(case.op, sampled)
    rows = torch.randn((5, *image.shape[1:]), generator=generator, dtype=torch.float64)
    rows[0], rows[1], rows[2] = rows[0].abs(), -rows[1].abs(), rows[2] * (rows[2] > 1)
    pulled, constant = case.op.backward(rows, boxes)
    left, scale = product(rows, image), product(rows.abs(), image.abs())
    right = torch.zeros_like(left)
    for part, x in zip(pulled, sampled, strict=True):
        assert part.shape == (5, *x.shape[1:])
        right = right + product(part, x)
        scale = scale + product(part.abs(), x.abs())
    if isinstance(case.op, Elementwise):
        # Relaxation.backward adds the difference of two slopes, which rounds like the larger of them.
        lines = case.op.relax(boxes[0].lower, boxes[0].upper)
        steepest = torch.maximum(lines.lower_slope.abs(), lines.upper_slope.abs())
        scale = scale + product(rows.abs() * steepest, sampled[0].abs())
    if constant is not None:
        assert constant.shape == (5, 2)
        right, scale = right + constant, scale + constant.abs()
    if isinstance(case.op, Multiply | MatMul):
        # Their planes are wrong by a few roundings of the largest product over the box, wherever the point is.
        enclosure = case.op.interval(*boxes)
        largest = torch.maximum(enclosure.lower.abs(), enclosure.upper.abs())
        scale = scale + PLANE / ROUNDING * product(rows.abs(), largest.unsqueeze(0))
    assert right.isfinite().all()
    assert (left >= right - ROUNDING * scale).all()
    if case.op.affine:
        assert ((left - right).abs() <= ROUNDING * scale).all()


def product(rows: Tensor, x: Tensor) -> Tensor:
    """[spec, batch, *node] and [points, batch, *node] -> [points, spec, batch]."""
    return torch.einsum("sbn,pbn->psb", rows.flatten(2), x.flatten(2))


@every_op
@fewer
@given(kind=kinds, seed=seeds)
def test_bounds_of_a_batch_are_those_of_its_entries(case: Case, kind: str, seed: int) -> None:
    boxes, _, generator = drawn(case, kind, seed)
    whole = case.op.interval(*boxes)
    rows = torch.randn((3, *whole.lower.shape), generator=generator, dtype=torch.float64)
    pulled, constant = case.op.backward(rows, boxes)
    # A vectorised exp rounds by the place in memory; where a tangent touches, found by bisection, moves far more.
    same = 1e-8 if isinstance(case.op, Univariate) else 1e-11
    for entry in range(2):
        alone = [Interval(b.lower[entry, None], b.upper[entry, None]) for b in boxes]
        single = case.op.interval(*alone)
        torch.testing.assert_close(whole.lower[entry], single.lower[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(whole.upper[entry], single.upper[0], rtol=1e-12, atol=1e-12)
        parts, offset = case.op.backward(rows[:, entry, None], alone)
        for part, mine in zip(parts, pulled, strict=True):
            torch.testing.assert_close(mine[:, entry], part[:, 0], rtol=same, atol=same)
        if constant is not None and offset is not None:
            torch.testing.assert_close(constant[:, entry], offset[:, 0], rtol=100 * same, atol=100 * same)


@pytest.mark.parametrize("case", NONLINEAR, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_what_cannot_improve_is_exact(case: Case, kind: str, seed: int) -> None:
    """Where no input coordinate is `improvable`, the linear bound is the function itself: nothing is gained there."""
    boxes, sampled, generator = drawn(case, kind, seed)
    masks = case.op.improvable(*boxes)
    for mask, b in zip(masks, boxes, strict=True):
        assert mask is not None and mask.shape == b.lower.shape and mask.dtype == torch.bool
    pairs = list(zip(boxes, masks, strict=True))
    fixed = [Interval(b.lower, torch.where(mask, b.lower, b.upper)) for b, mask in pairs if mask is not None]
    still = [s & m for s, m in zip(case.op.improvable(*fixed), masks, strict=True) if s is not None and m is not None]
    assert not any(s.any() for s in still)
    if any(s is not None and s.any() for s in case.op.improvable(*fixed)):
        return
    sampled = [torch.minimum(x, b.upper) for x, b in zip(sampled, fixed, strict=True)]
    image = values(case.op, sampled)
    rows = torch.randn((2, *image.shape[1:]), generator=generator, dtype=torch.float64)
    pulled, constant = case.op.backward(rows, fixed)
    assert constant is not None
    left, right = product(rows, image), constant + sum(product(p, x) for p, x in zip(pulled, sampled, strict=True))
    scale = product(rows.abs(), image.abs()) + constant.abs()
    scale = scale + sum(product(p.abs(), x.abs()) for p, x in zip(pulled, sampled, strict=True))
    # The lines of a softmax allow for roundings of the differences of its inputs, however flat they are.
    largest = 0.0 if case.op.separable else max(float(b.upper.abs().max()) for b in boxes)
    assert ((left - right).abs() <= 1e-13 * (scale + rows.abs().flatten(2).sum(2) * (1 + largest))).all()


def relaxed(case: Case, b: Interval, parameters: Tensor | None) -> tuple[Tensor, ...]:
    """The four numbers of the lines, each [spec, batch, *node]."""
    assert isinstance(case.op, Elementwise)
    found = case.op.relax(b.lower, b.upper, parameters)
    intercept = torch.zeros_like(found.lower_slope) if found.lower_intercept is None else found.lower_intercept
    parts = (found.lower_slope, intercept, found.upper_slope, found.upper_intercept)
    return tuple(p.unsqueeze(0) if p.dim() == b.lower.dim() else p for p in parts)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
@few
@given(kind=kinds, seed=seeds, extreme=st.sampled_from((None, 0.0, 1.0)))
def test_any_parameters_are_sound(case: Case, dtype: torch.dtype, kind: str, seed: int, extreme: float | None) -> None:
    """Every row with its own, 10,000 points a box; an extreme is taken by the first row."""
    (whole,), _, generator = drawn(case, kind, seed)
    b = Interval(whole.lower[:, :1, :3].to(dtype), whole.upper[:, :1, :3].to(dtype))
    op = _small(case.op)
    start = op.free(b)
    if start is None:
        return
    assert start.shape[:2] == (1, 2) and ((start >= 0) & (start <= 1)).all()
    parameters = torch.rand((3, *start.shape[1:]), generator=generator, dtype=dtype)
    if extreme is not None:
        parameters[0] = extreme
    low, low_level, high, high_level = (p.double() for p in relaxed(replace(case, op=op), b, parameters))
    z = points(Interval(b.lower.double(), b.upper.double()), 10_000, generator)[:, None]
    image = op.forward(z.flatten(0, 2)).reshape(z.shape)
    unit = 8 * torch.finfo(dtype).eps
    for line, sign in ((low * z + low_level, 1), (high * z + high_level, -1)):
        size = image.abs() + z.abs() * torch.maximum(low.abs(), high.abs())
        assert (sign * (image - line) >= -unit * size).all()


def _small(op: Op) -> Op:
    """The op on the first channel and three of its neurons."""
    return replace(op, slope=op.slope[:1, :3]) if isinstance(op, PRelu) else op


@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case.name)
@fewer
@given(kind=kinds, seed=seeds)
def test_start_is_the_default_and_gradients_are_finite(case: Case, kind: str, seed: int) -> None:
    (b,), _, generator = drawn(case, kind, seed)
    b = Interval(b.lower.requires_grad_(), b.upper.requires_grad_())
    start = case.op.free(b)
    default = relaxed(case, b, None)
    if start is not None:
        for own, first in zip(relaxed(case, b, start.detach()), default, strict=True):
            torch.testing.assert_close(own, first, rtol=1e-9, atol=1e-9)
    some = None if start is None else torch.rand((4, *start.shape[1:]), generator=generator, dtype=torch.float64)
    for parameters in (None, some, start if start is None else start.detach().clone()):
        inputs = [b.lower, b.upper] if parameters is None else [b.lower, b.upper, parameters.requires_grad_()]
        total = sum(part.sum() for part in relaxed(case, b, parameters))
        assert isinstance(total, Tensor) and total.isfinite()
        if total.requires_grad:
            gradients = torch.autograd.grad(total, inputs, allow_unused=True)
            assert all(g is None or g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_derivative_encloses_difference_quotients(case: Case, kind: str, seed: int) -> None:
    (b,), (z,), _ = drawn(case, kind, seed)
    assert isinstance(case.op, Elementwise)
    enclosure = case.op.derivative(b)
    other = z.flip(0)
    gap = other - z
    first, second = (
        case.op.forward(z.flatten(0, 1)).reshape(z.shape),
        case.op.forward(other.flatten(0, 1)).reshape(z.shape),
    )
    wide = gap.abs() > 1e-6 * (1 + z.abs())
    quotient = (second - first) / torch.where(wide, gap, 1.0)
    # Of an interval's ends, which may be infinite, only a relative slack makes sense.
    rounding = 1e-9 * (1 + quotient.abs() + (first.abs() + second.abs()) / torch.where(wide, gap.abs(), 1.0) * 1e-6)
    assert ((quotient >= enclosure.lower - rounding) | ~wide).all()
    assert ((quotient <= enclosure.upper + rounding) | ~wide).all()


PIECEWISE = [case for case in ELEMENTWISE if isinstance(case.op, Relu | LeakyRelu | PRelu | Clip)]
TOUCHING = [case for case in ELEMENTWISE if case in PIECEWISE or isinstance(case.op, SShaped)]


@pytest.mark.parametrize("case", TOUCHING, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_lines_touch_the_function(case: Case, kind: str, seed: int) -> None:
    """A sound line that touches the function cannot be moved closer without being turned."""
    op = case.op
    assert isinstance(op, Elementwise)
    (b,), _, _ = drawn(case, kind, seed)
    grid = torch.linspace(0, 1, 4001, dtype=torch.float64).reshape(-1, 1, 1, 1)
    z = torch.minimum(b.lower + grid * (b.upper - b.lower), b.upper)
    z = torch.cat([z, torch.minimum(b.lower.clamp(min=0), b.upper)[None]])
    kinks = [k for k in (getattr(op, "minimum", 0.0), getattr(op, "maximum", 0.0)) if abs(k) < 1e9]
    z = torch.cat([z] + [torch.minimum(b.lower.clamp(min=k), b.upper)[None] for k in kinks])
    image = op.forward(z)
    lines = op.relax(b.lower, b.upper)
    intercept = torch.zeros_like(b.lower) if lines.lower_intercept is None else lines.lower_intercept
    below = (image - lines.lower_slope * z - intercept).amin(0)
    above = (lines.upper_slope * z + lines.upper_intercept - image).amin(0)
    scale = 1 + torch.maximum(b.lower.abs(), b.upper.abs())
    # Between grid points a smooth function leaves its tangent by at most width^2 / 8 of a cell, with |phi''| < 1.
    slack = 1e-12 * scale + ((b.upper - b.lower) / 4000).clamp(max=1) ** 2
    if kind != "huge":
        assert (below <= slack).all() and (above <= slack).all()
    assert (below >= -1e-13 * scale).all() and (above >= -1e-13 * scale).all()


@pytest.mark.parametrize("case", PIECEWISE, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_no_line_through_two_corners_encloses_less(case: Case, kind: str, seed: int) -> None:
    """Least area is least height at the midpoint, and a piecewise linear function's envelope has corners of its own."""
    op = case.op
    assert isinstance(op, Elementwise)
    (b,), _, _ = drawn(case, kind, seed)
    inside = (op.minimum, op.maximum) if isinstance(op, Clip) else (0.0,)
    z = torch.stack([b.lower, b.upper] + [b.lower.clamp(min=kink).minimum(b.upper) for kink in inside])
    image, middle = op.forward(z), (b.lower + b.upper) / 2
    lines = op.relax(b.lower, b.upper)
    intercept = torch.zeros_like(b.lower) if lines.lower_intercept is None else lines.lower_intercept
    ours = lines.lower_slope * middle + intercept, lines.upper_slope * middle + lines.upper_intercept
    rounding = 1e-9 * (1 + torch.maximum(b.lower.abs(), b.upper.abs()))
    for i, j in itertools.combinations(range(len(z)), 2):
        wide = (z[i] - z[j]).abs() > 1e-3
        slope = torch.where(wide, (image[i] - image[j]) / torch.where(wide, z[i] - z[j], 1.0), 0.0)
        line = image[i] + slope * (z - z[i])
        height = image[i] + slope * (middle - z[i])
        above, below = (line >= image - rounding).all(0) & wide, (line <= image + rounding).all(0) & wide
        assert (~above | (ours[1] <= height + rounding)).all()
        assert (~below | (ours[0] >= height - rounding)).all()


def test_a_chord_is_anchored_where_it_rounds_least() -> None:
    """From (-1e6, -1e6) to (1/3, 1/7): the near end is met to its own rounding, not to that of the far end."""
    x, y = torch.tensor(-1e6).double(), torch.tensor(1 / 3).double()
    fx, fy = x, torch.tensor(1 / 7).double()
    slope, intercept = chord(x, fx, y, fy)
    assert abs(Fraction(slope.item()) * Fraction(y.item()) + Fraction(intercept.item()) - Fraction(fy.item())) < 1e-16
    slope, intercept = chord(-y, -fy, -x, -fx)
    assert abs(Fraction(slope.item()) * Fraction(-y.item()) + Fraction(intercept.item()) + Fraction(fy.item())) < 1e-16
