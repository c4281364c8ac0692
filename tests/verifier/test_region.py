"""Minima over boxes, cut balls and linear constraints: never above the exact ones, and as good as promised."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, linprog
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.region import NARROW, SMALL, Constraints, Region, box_minimum
from provenn.verifier.spec import Ball, Constraint, InputSet

NORMS = [1.0, 2.0]
PLACES = ["inside", "outside", "edge"]


def drawn(n: int, norm: float | None, place: str, seed: int, dtype: torch.dtype = torch.float64) -> Region:
    """Two regions around 0 with the centre inside, outside or on the edge of the box, none of them empty."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(2, n, generator=generator, dtype=torch.float64)

    lower, upper, centre = uniform(-1, 0), uniform(0, 1), uniform(-0.9, 0.9)
    if place == "inside":
        centre = torch.minimum(torch.maximum(centre, lower), upper)
    if place == "edge":
        centre = torch.where(uniform(0, 1) < 0.5, lower, upper)
    if norm is None:
        return Region(Interval(lower.to(dtype), upper.to(dtype)))
    near = torch.minimum(torch.maximum(centre, lower), upper) - centre
    far = torch.maximum(upper - centre, centre - lower)
    least, most = (torch.linalg.vector_norm(v, ord=norm, dim=1) for v in (near, far))
    share = torch.tensor([0.02, 0.4]) if seed % 2 else torch.tensor([0.2, 1.1])
    radius = least + (most - least) * share
    return Region(Interval(lower.to(dtype), upper.to(dtype)), centre.to(dtype), radius.to(dtype), norm)


def rows(region: Region, count: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *region.box.lower.shape)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(region.box.lower.dtype)


def exact(region: Region, a: np.ndarray, b: int) -> float:
    """The minimum of a x over region b: a linear program, or bisection of the multiplier to the last digit."""
    lower, upper = (end[b].double().numpy() for end in (region.box.lower, region.box.upper))
    matrix, bound = np.zeros((0, len(a))), np.zeros(0)
    if region.constraints is not None:
        matrix, bound = region.constraints.matrix[:, b].numpy(), region.constraints.bound[:, b].numpy()
    if region.centre is None or region.radius is None:
        found = linprog(a, A_ub=matrix, b_ub=bound, bounds=np.c_[lower, upper])
        return float(found.fun)
    centre, radius, n = region.centre[b].double().numpy(), float(region.radius[b]), len(a)
    if region.norm == 1:
        same = np.eye(n)
        block = np.block([[same, -same], [-same, -same], [np.zeros((1, n)), np.ones((1, n))]])
        block = np.vstack([block, np.hstack([matrix, np.zeros_like(matrix)])])
        limits = np.r_[centre, -centre, radius, bound]
        ends = np.r_[np.c_[lower, upper], np.c_[np.zeros(n), np.full(n, np.inf)]]
        return float(linprog(np.r_[a, np.zeros(n)], A_ub=block, b_ub=limits, bounds=ends).fun)

    def excess(log_multiplier: float) -> float:
        x = np.clip(centre - a / np.exp(log_multiplier), lower, upper)
        return float(((x - centre) ** 2).sum() - radius**2)

    if excess(-60) <= 0:
        return float(a @ np.where(a > 0, lower, upper))
    return float(a @ np.clip(centre - a / np.exp(brentq(excess, -60, 60, xtol=1e-13)), lower, upper))


def minima(region: Region, a: Tensor) -> Tensor:
    """`exact` for every row and region: [spec, batch]."""
    spec, batch = a.shape[:2]
    found = [[exact(region, a[s, b].double().numpy(), b) for b in range(batch)] for s in range(spec)]
    return torch.tensor(found, dtype=torch.float64)


def feasible(region: Region, count: int, seed: int) -> Tensor:
    """Random points of box and ball, corners among them: [count, batch, n], drawn toward a point of both."""
    generator = torch.Generator().manual_seed(seed)
    lower, upper = region.box.lower, region.box.upper
    unit = torch.rand((count, *lower.shape), generator=generator, dtype=torch.float64)
    unit[::3] = unit[::3].round()
    x = lower + unit * (upper - lower)
    if region.centre is None or region.radius is None:
        return x
    inner = torch.minimum(torch.maximum(region.centre, lower), upper)
    low, high = torch.zeros(x.shape[:2]), torch.ones(x.shape[:2])
    for _ in range(40):
        half = (low + high) / 2
        point = inner + half.unsqueeze(-1) * (x - inner) - region.centre
        near = torch.linalg.vector_norm(point, ord=region.norm, dim=-1) <= region.radius
        low, high = torch.where(near, half, low), torch.where(near, high, half)
    return inner + low.unsqueeze(-1) * (x - inner)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [1, 2, 7, 40])
def test_a_cut_balls_minimum_is_the_exact_one(norm: float, place: str, n: int) -> None:
    for seed in range(4):
        region = drawn(n, norm, place, seed)
        a = rows(region, 3, seed)
        best, scale = minima(region, a), a.abs().sum(-1)
        found, reached = region.concretize(a), (a * region.minimizer(a)).sum(-1)
        assert ((best - 5e-3 * scale <= found) & (found <= best + 1e-8 * scale)).all()
        assert ((best - 1e-8 * scale <= reached) & (reached <= best + 2e-2 * scale)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_with_the_centre_in_the_box_the_search_ends(norm: float) -> None:
    """A few steps reach the exact minimum where few coordinates meet the box, as around images."""
    region = drawn(200, norm, "inside", 1)
    a = rows(region, 20)
    found = region.concretize(a)
    best = minima(region, a)
    assert (found >= best - 1e-3 * best.abs()).all()
    assert (found <= best + 1e-8).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_ten_thousand_points_lie_above(norm: float | None, place: str, dtype: torch.dtype) -> None:
    exactly = drawn(12, norm, place, 3)
    points = feasible(exactly, 10_000, 0)
    box = Interval(exactly.box.lower.to(dtype), exactly.box.upper.to(dtype))
    region = exactly
    if dtype == torch.float32:
        centre, radius = (None if v is None else v.to(dtype) for v in (exactly.centre, exactly.radius))
        region = Region(box, centre, radius, norm)
    a = rows(region, 5)
    values = torch.einsum("sbn,pbn->spb", a.double(), points).amin(1)
    slack = 100 * torch.finfo(dtype).eps * a.double().abs().sum(-1)
    assert (region.concretize(a).double() <= values + slack).all()


@pytest.mark.parametrize("norm", NORMS)
def test_it_is_never_worse_than_the_box_alone_or_the_ball_alone(norm: float) -> None:
    for place in PLACES:
        region = drawn(30, norm, place, 2)
        assert region.centre is not None
        assert region.radius is not None
        a = rows(region, 50)
        box = Region(region.box).concretize(a)
        dual = torch.linalg.vector_norm(a, ord={1.0: torch.inf, 2.0: 2.0}[norm], dim=-1)
        ball = torch.einsum("sbn,bn->sb", a, region.centre) - dual * region.radius
        least = torch.maximum(box, ball) if place != "outside" else box
        assert (region.concretize(a) >= least - 1e-9).all()


@pytest.mark.parametrize("norm", NORMS)
def test_minimizers_lie_in_the_region(norm: float) -> None:
    for place in PLACES:
        region = drawn(30, norm, place, 1)
        assert region.centre is not None
        assert region.radius is not None
        x = region.minimizer(rows(region, 50))
        assert ((region.box.lower <= x) & (x <= region.box.upper)).all()
        length = torch.linalg.vector_norm(x - region.centre, ord=norm, dim=-1)
        assert (length <= region.radius * (1 + 1e-12)).all()


def around(
    centre: list[float], box: tuple[list[float], list[float]], radius: float, norm: float, dtype: torch.dtype
) -> Region:
    ends = [torch.tensor([end], dtype=dtype) for end in box]
    middle = torch.tensor([centre], dtype=dtype)
    return Region(Interval(*ends), middle, torch.tensor([radius], dtype=dtype), norm)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e6])
def test_degenerate_regions(norm: float, scale: float, dtype: torch.dtype) -> None:
    a = torch.tensor([[[1.0, -2.0]], [[0.0, 0.0]], [[0.0, 3.0]]], dtype=dtype)

    def check(region: Region, expected: list[float], loss: float = 0.0) -> None:
        for factor in (1.0, 1e-20, 1e20):
            found = region.concretize(a * factor)[:, 0] / (factor * scale)
            best = torch.tensor(expected, dtype=dtype)
            slack = 20 * torch.finfo(dtype).eps
            assert ((best - loss - slack <= found) & (found <= best + slack)).all()
        assert region.minimizer(a).isfinite().all()

    ends = ([-scale, -scale], [scale, scale])
    check(around([0.5 * scale, 0.25 * scale], ends, 0.0, norm, dtype), [0.0, 0.0, 0.75])
    point = [0.5 * scale, 0.25 * scale]
    check(around([0.0, 0.0], (point, point), scale, norm, dtype), [0.0, 0.0, 0.75])
    check(around([0.0, 0.0], ends, 4 * scale, norm, dtype), [-3.0, 0.0, -3.0])
    inner = {1.0: [-0.5, 0.0, -0.75], 2.0: [-(5**0.5) / 4, 0.0, -0.75]}[norm]
    check(around([0.0, 0.0], ends, 0.25 * scale, norm, dtype), inner)
    check(around([2 * scale, 0.0], ends, scale, norm, dtype), [1.0, 0.0, 0.0], {1.0: 0.0, 2.0: 0.1}[norm])


@pytest.mark.parametrize("norm", NORMS)
def test_not_a_number_is_not_hidden(norm: float) -> None:
    region = drawn(3, norm, "inside", 0)
    a = rows(region, 2)
    a[0, 1, 2] = torch.nan
    for some in (region, Region(region.box)):
        assert some.concretize(a).isnan().tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("norm", [None, *NORMS])
def test_the_gradient_is_that_of_the_minimum(norm: float | None) -> None:
    region = drawn(6, norm, "inside", 1)
    a = rows(region, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(region.concretize(a).sum(), a)
    step = 1e-6
    for i in range(6):
        shift = torch.zeros_like(a)
        shift[..., i] = step
        with torch.no_grad():
            slope = (region.concretize(a + shift) - region.concretize(a - shift)) / (2 * step)
        assert torch.allclose(slope, gradient[..., i], atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 2, 5), (SMALL // 100, 2, 3 * NARROW), (SMALL // 40, 1, 60)])
def test_both_formulas_of_a_boxs_minimum(shape: tuple[int, int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(shape, generator=generator, dtype=torch.float64)
    lower = torch.randn(shape[1:], generator=generator, dtype=torch.float64)
    upper = lower + torch.rand(shape[1:], generator=generator, dtype=torch.float64)
    expected = (a.clamp(min=0) * lower + a.clamp(max=0) * upper).sum(-1)
    assert torch.allclose(box_minimum(a, lower, upper), expected, atol=1e-11)


def constrained(n: int, count: int, seed: int, norm: float | None = None) -> Region:
    region = drawn(n, norm, "inside", seed)
    generator = torch.Generator().manual_seed(seed + 100)
    matrix = torch.randn(count, 2, n, generator=generator, dtype=torch.float64)
    inside = region.centre if region.centre is not None else (region.box.lower + region.box.upper) / 2
    room = 0.2 * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    constraints = Constraints(matrix, torch.einsum("kbn,bn->kb", matrix, inside) + room)
    return Region(region.box, region.centre, region.radius, region.norm, constraints)


def test_one_linear_constraint_is_used_exactly() -> None:
    for seed in range(8):
        region = constrained(6, 1, seed)
        a = rows(region, 4, seed)
        assert torch.allclose(region.concretize(a), minima(region, a), atol=1e-7)


@pytest.mark.parametrize("norm", [None, 1.0])
@pytest.mark.parametrize("count", [2, 5])
def test_several_constraints_tighten_and_stay_below(norm: float | None, count: int) -> None:
    gained = 0
    for seed in range(4):
        region = constrained(5, count, seed, norm)
        a = rows(region, 4, seed)
        found, without = region.concretize(a), Region(region.box, region.centre, region.radius, norm).concretize(a)
        assert (found >= without).all()
        gained += int((found > without + 1e-3).sum())
        assert (found <= minima(region, a) + 1e-7).all()
    assert gained > 8


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", [1.0, 2.0])
def test_constraints_that_leave_one_value_of_fixed_inputs_do_not_multiply_roundings(
    norm: float, dtype: torch.dtype
) -> None:
    """Nothing can be gained from them; the multipliers, which nothing holds back, times a rounding are not small."""
    for seed in range(30):
        generator = torch.Generator().manual_seed(seed)
        lower = 100 * torch.randn(12, generator=generator)
        fixed = torch.rand(12, generator=generator) < 0.6
        upper = torch.where(fixed, lower, lower + torch.rand(12, generator=generator))
        matrix = torch.randn((3, 12), generator=generator) * fixed
        point = [Fraction(v) for v in lower.tolist()]
        rows_ = [tuple(Fraction(v) for v in row) for row in matrix.tolist()]
        touching = [
            Constraint(row, sum((p * x for p, x in zip(row, point, strict=True)), Fraction(0))) for row in rows_
        ]
        ball = Ball(tuple(x + Fraction(1, 100) for x in point), Fraction(1), norm)
        ends = tuple(point), tuple(Fraction(v) for v in upper.tolist())
        region = Region.of([InputSet(*ends, ball, tuple(touching))], (12,), "cpu", dtype)
        a = torch.randn((4, 1, 12), generator=generator)
        exact = (a.double() @ lower.double()).squeeze(1)
        size = (a.abs() @ torch.maximum(lower.abs(), upper.abs())).squeeze(1)
        found = region.concretize(a.to(dtype)).squeeze(1)
        assert (found.double() <= exact + 4 * torch.finfo(dtype).eps * size).all()


def test_any_multipliers_are_sound_and_can_be_optimised() -> None:
    region = constrained(5, 3, 1)
    a = rows(region, 4)
    best = minima(region, a)
    free = torch.full((4, 3, 2), 0.1, dtype=torch.float64, requires_grad=True)
    start = region.concretize(a, free).detach()
    optimizer = torch.optim.Adam([free], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        lower = region.concretize(a, free)
        assert (lower <= best + 1e-8).all()
        (-lower.sum()).backward()
        optimizer.step()
        free.data.clamp_(min=0)
    assert (region.concretize(a, free) > start).all()
    assert (region.concretize(a, free) >= best - 0.1).all()
    assert (region.concretize(a, -free.abs()) <= best + 1e-8).all()
    assert region.multipliers(a).shape == free.shape


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_the_image_of_an_exact_set_loses_no_point(data: st.DataObject) -> None:
    """float32 points of the exact set satisfy the rounded constraints as computed in exact numbers."""
    number = st.fractions(-3, 3, max_denominator=50)
    row = data.draw(st.lists(number, min_size=3, max_size=3).map(tuple))
    point = np.array(data.draw(st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3)), np.float32)
    reached = sum((p * Fraction(float(v)) for p, v in zip(row, point, strict=True)), Fraction(0))
    low, high = (Fraction(-1),) * 3, (Fraction(1),) * 3
    inputs = InputSet(low, high, None, (Constraint(row, reached),))
    assert inputs.contains(point)
    for dtype in (torch.float32, torch.float64):
        constraints = Region.of([inputs, InputSet(low, high)], (3,), "cpu", dtype).constraints
        assert constraints is not None
        p, q = constraints.matrix[0, 0].tolist(), float(constraints.bound[0, 0])
        assert sum(Fraction(v) * Fraction(float(x)) for v, x in zip(p, point, strict=True)) <= Fraction(q)
        assert constraints.matrix[0, 1].abs().sum() == 0


def test_select_keeps_everything() -> None:
    region = constrained(4, 2, 0, 2.0)
    a = rows(region, 3)
    for b in range(2):
        alone = region.select(slice(b, b + 1))
        assert alone.batch == 1
        assert torch.allclose(alone.concretize(a[:, b : b + 1])[:, 0], region.concretize(a)[:, b], atol=1e-12)
    assert not region.is_box
    assert Region(region.box).is_box


def test_of_exact_sets_with_a_ball() -> None:
    half = Fraction(1, 2)
    ball = Ball((Fraction(1, 3), Fraction(1, 7)), Fraction(1, 10), 2.0)
    region = Region.of([InputSet((-half, -half), (half, half), ball)], (2,), "cpu", torch.float32)
    assert region.norm == 2
    assert float(region.concretize(torch.tensor([[[1.0, 0.0]]]))) == pytest.approx(1 / 3 - 1 / 10, abs=1e-5)
