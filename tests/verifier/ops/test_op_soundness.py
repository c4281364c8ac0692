"""Bounds of every op hold at sampled points and corners of boxes of every kind, and are as tight as they claim."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import BOXES, CASES, ELEMENTWISE, NONLINEAR, Case, box, few, points
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Op
from provenn.verifier.ops.clip import Clip
from provenn.verifier.ops.lines import chord
from provenn.verifier.ops.s_shaped import SShaped

POINTS = 2000
ROUNDING = 1e-13
"""Relative to the sum of the absolute terms of the inequality: float64 sums of a few dozen of them."""

kinds, seeds = st.sampled_from(BOXES), st.integers(0, 2**20)
every_op = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def values(op: Op, sampled: list[Tensor]) -> Tensor:
    """op at [points, batch, *node] -> [points, batch, *output]."""
    count, batch = sampled[0].shape[:2]
    return op.forward(*(x.flatten(0, 1) for x in sampled)).unflatten(0, (count, batch))


def drawn(case: Case, kind: str, seed: int) -> tuple[list[Interval], list[Tensor], torch.Generator]:
    generator = torch.Generator().manual_seed(seed)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    size = sum(b.lower.numel() for b in boxes)
    return boxes, [points(b, min(POINTS, 60_000 // size), generator) for b in boxes], generator


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
    assert right.isfinite().all()
    assert (left >= right - ROUNDING * scale).all()
    if case.op.affine:
        assert ((left - right).abs() <= ROUNDING * scale).all()


def product(rows: Tensor, x: Tensor) -> Tensor:
    """[spec, batch, *node] and [points, batch, *node] -> [points, spec, batch]."""
    return torch.einsum("sbn,pbn->psb", rows.flatten(2), x.flatten(2))


@every_op
@few
@given(kind=kinds, seed=seeds)
def test_bounds_of_a_batch_are_those_of_its_entries(case: Case, kind: str, seed: int) -> None:
    boxes, _, generator = drawn(case, kind, seed)
    whole = case.op.interval(*boxes)
    rows = torch.randn((3, *whole.lower.shape), generator=generator, dtype=torch.float64)
    pulled, constant = case.op.backward(rows, boxes)
    for entry in range(2):
        alone = [Interval(b.lower[entry, None], b.upper[entry, None]) for b in boxes]
        single = case.op.interval(*alone)
        torch.testing.assert_close(whole.lower[entry], single.lower[0], rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(whole.upper[entry], single.upper[0], rtol=1e-12, atol=1e-12)
        parts, offset = case.op.backward(rows[:, entry, None], alone)
        for part, mine in zip(parts, pulled, strict=True):
            torch.testing.assert_close(mine[:, entry], part[:, 0], rtol=1e-12, atol=1e-12)
        if constant is not None and offset is not None:
            torch.testing.assert_close(constant[:, entry], offset[:, 0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", NONLINEAR, ids=lambda case: case.name)
@few
@given(kind=kinds, seed=seeds)
def test_what_cannot_improve_is_exact(case: Case, kind: str, seed: int) -> None:
    """Where no input coordinate is `improvable`, the linear bound is the function itself: nothing is gained there."""
    boxes, sampled, generator = drawn(case, kind, seed)
    (mask,) = case.op.improvable(*boxes)
    assert mask is not None and mask.shape == boxes[0].lower.shape and mask.dtype == torch.bool
    fixed = Interval(boxes[0].lower, torch.where(mask, boxes[0].lower, boxes[0].upper))
    (still,) = case.op.improvable(fixed)
    assert still is not None and not (still & mask).any()
    if still.any():
        return
    image = values(case.op, [torch.minimum(sampled[0], fixed.upper)])
    rows = torch.randn((2, *image.shape[1:]), generator=generator, dtype=torch.float64)
    (pulled,), constant = case.op.backward(rows, [fixed])
    assert constant is not None
    left = product(rows, image)
    right = product(pulled, torch.minimum(sampled[0], fixed.upper)) + constant
    scale = product(rows.abs(), image.abs()) + product(pulled.abs(), sampled[0].abs()) + constant.abs()
    assert ((left - right).abs() <= 1e-13 * (scale + rows.abs().flatten(2).sum(2))).all()


@pytest.mark.parametrize("case", ELEMENTWISE, ids=lambda case: case.name)
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


PIECEWISE = [case for case in ELEMENTWISE if not isinstance(case.op, SShaped)]


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
