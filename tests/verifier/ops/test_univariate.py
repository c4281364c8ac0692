"""Functions of one number: lines and boxes hold for the exact function, and are the tightest there are."""

from __future__ import annotations

import math
from collections.abc import Callable

import mpmath
import pytest
import torch
from cases_univariate import UNIVARIATE_CASES
from hypothesis import given
from hypothesis import strategies as st
from op_case import Case
from table import BOXES, box, few
from torch import Tensor

from provenn.verifier.bounds.backward import crown
from provenn.verifier.errors import InvalidBounds, InvalidModel
from provenn.verifier.graph import sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Elementwise, Op
from provenn.verifier.ops.exponential import Cosh, Elu, Exp, Log, Sinh, Softplus
from provenn.verifier.ops.gated import Gelu, GeluTanh, HardSwish, Mish, Silu
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.periodic import Cos, Sin, Tan
from provenn.verifier.ops.power import Pow, Reciprocal, Sqrt
from provenn.verifier.ops.saturating import Atan, Erf, Softsign
from provenn.verifier.ops.univariate import Univariate
from provenn.verifier.region import Region

SMOOTH = [case for case in UNIVARIATE_CASES if isinstance(case.op, Univariate)]
SHORT = [case for case in SMOOTH if not (isinstance(case.op, Pow) and 0 < case.op.exponent < 1)]
"""Those whose graph does not start with an infinite slope, which no grid follows."""

BENT = [case for case in SMOOTH if not (isinstance(case.op, Sin | Cos | Tan) or case.op.form().kinks)]
BENT = [case for case in BENT if not (isinstance(case.op, Softplus) and case.op.threshold < math.inf)]
"""Those whose pieces do not depend on the box, without stretches that stand for kinks, and without a fall."""


def every(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


every_case = every(SMOOTH)
every_dtype = pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
kinds, seeds = st.sampled_from(BOXES), st.integers(0, 2**20)

Number = mpmath.mpf


def gelu_tanh(op: GeluTanh, z: Number) -> Number:
    return z * (1 + mpmath.tanh(mpmath.mpf(op.rate) * (z + mpmath.mpf(op.cubic) * z**3))) / 2


EXACT: dict[type[Op], Callable[..., Number]] = {
    Exp: lambda op, z: mpmath.exp(z),
    Log: lambda op, z: mpmath.log(z),
    Softplus: lambda op, z: z if z > op.threshold else mpmath.log1p(mpmath.exp(z)),
    Elu: lambda op, z: op.scale * (z if z > 0 else mpmath.mpf(op.alpha) * mpmath.expm1(z / op.width)),
    Sinh: lambda op, z: mpmath.sinh(z),
    Cosh: lambda op, z: mpmath.cosh(z),
    Sqrt: lambda op, z: mpmath.sqrt(z),
    Reciprocal: lambda op, z: 1 / z,
    Pow: lambda op, z: mpmath.power(z, int(op.exponent) if op.whole else mpmath.mpf(op.exponent)),
    Gelu: lambda op, z: z * mpmath.ncdf(mpmath.mpf(op.scale) * z),
    GeluTanh: gelu_tanh,
    Silu: lambda op, z: z / (1 + mpmath.exp(-mpmath.mpf(op.scale) * z)),
    Mish: lambda op, z: z * mpmath.tanh(mpmath.log1p(mpmath.exp(z))),
    HardSwish: lambda op, z: z * min(max(mpmath.mpf(op.alpha) * z + mpmath.mpf(op.beta), 0), 1),
    Erf: lambda op, z: mpmath.erf(z),
    Atan: lambda op, z: mpmath.atan(z),
    Softsign: lambda op, z: z / (1 + abs(z)),
    Sin: lambda op, z: mpmath.sin(z),
    Cos: lambda op, z: mpmath.cos(z),
    Tan: lambda op, z: mpmath.tan(z),
}


def exact(op: Op, z: float | Number) -> Number:
    return EXACT[type(op)](op, mpmath.mpf(z))


def boxed(case: Case, kind: str, seed: int, dtype: torch.dtype = torch.float64) -> Interval:
    """A box [1, 30] of floats of that type in the domain."""
    drawn = case.within(box(kind, (15,), torch.Generator().manual_seed(seed)))
    lower, upper = drawn.lower.reshape(1, -1).to(dtype), drawn.upper.reshape(1, -1).to(dtype)
    low, high = (torch.tensor(end, dtype=torch.float64) for end in case.domain)
    low, high = (end.to(dtype) for end in (low, high))
    return Interval(lower.clamp(low, high), torch.maximum(lower, upper).clamp(low, high))


def lines(op: Elementwise, b: Interval, parameters: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    found = op.relax(b.lower, b.upper, parameters)
    assert found.lower_intercept is not None
    return found.lower_slope, found.lower_intercept, found.upper_slope, found.upper_intercept


@every_case
@every_dtype
def test_lines_and_boxes_hold_for_the_exact_function(case: Case, dtype: torch.dtype) -> None:
    """Without tolerance, in 60 digits: the numbers of the lines are read as they are."""
    op = case.op
    assert isinstance(op, Univariate)
    generator = torch.Generator().manual_seed(7)
    with mpmath.workdps(60):
        for seed, kind in enumerate(BOXES):
            b = boxed(case, kind, seed, dtype)
            enclosure = op.interval(b)
            start = op.free(b)
            assert start is not None
            drawn = torch.rand(start.shape, generator=generator, dtype=dtype)
            choices = (None, torch.zeros_like(start), torch.ones_like(start), drawn)
            found = [[x.flatten().tolist() for x in lines(op, b, parameters)] for parameters in choices]
            for i in (0, 15):
                low, high = mpmath.mpf(b.lower[0, i].item()), mpmath.mpf(b.upper[0, i].item())
                for share in (0, 1e-9, 0.2, 0.5, 0.8, 1):
                    z = min(max(low + share * (high - low), low), high)
                    value = exact(op, z)
                    assert enclosure.lower[0, i].item() <= value <= enclosure.upper[0, i].item()
                    for below, level, above, height in ((x[i] for x in flat) for flat in found):
                        assert z * below + level <= value <= z * above + height


@every(SHORT)
@few
@given(kind=kinds.filter(lambda kind: kind not in ("huge", "mixed")), seed=seeds)
def test_no_other_line_is_nearer_at_the_midpoint(case: Case, kind: str, seed: int) -> None:
    """The envelopes of the function, found on a grid, have no more room at the midpoint than the lines leave."""
    op = case.op
    assert isinstance(op, Univariate)
    b = boxed(case, kind, seed)
    place = torch.linspace(0, 1, 201, dtype=torch.float64)[:, None]
    z = torch.minimum(b.lower + place * (b.upper - b.lower), b.upper)
    value, width = op.forward(z), b.upper - b.lower
    left, right = value[:101, None], value[None, 100:]
    share = (place[100] - place[:101, None]) / (place[None, 100:] - place[:101, None]).clamp(min=1e-9)
    chords = left + share * (right - left)
    a, c, d, e = lines(op, b)
    middle = z[100]
    below, above = chords.amin((0, 1)) - (a * middle + c), d * middle + e - chords.amax((0, 1))
    short = torch.full_like(width, isinstance(op, Sin | Cos)).bool() & (width > 6.2)
    # A cell of the grid hides a bend of |f''| cell^2 / 8; twice the largest second difference covers it.
    bend = (value[2:] - 2 * value[1:-1] + value[:-2]).abs().amax(0)
    room = 1e-2 * (value.amax(0) - value.amin(0)) * isinstance(op, Elu | HardSwish | Softplus)
    slack = 2 * bend + room + 1e-8 * (1 + value.abs().amax(0) + width * (a.abs() + d.abs()))
    assert ((below <= slack) | short).all() and ((above <= slack) | short).all()
    assert (below >= -slack).all() and (above >= -slack).all()


@every(BENT)
def test_forms_are_those_of_the_functions(case: Case) -> None:
    """Second differences, in 60 digits, have the sign that the pieces say; slopes change sign at the turning points."""
    op = case.op
    assert isinstance(op, Univariate)
    form, low, high = op.form(), max(case.domain[0], -12.0), min(case.domain[1], 12.0)
    step = mpmath.mpf(10) ** -12
    with mpmath.workdps(180):
        for i in range(1, 400):
            z = low + (high - low) * (i + 0.37) / 401
            bend = exact(op, z + step) - 2 * exact(op, z) + exact(op, z - step)
            if abs(z) > 1e-3:
                assert bend >= 0 or not any(start < z < end for start, end in form.convex)
                assert bend <= 0 or not any(start < z < end for start, end in form.concave)
                assert any(start <= z <= end for start, end in (*form.convex, *form.concave))
        for turn in form.turns:
            rises = [exact(op, turn + d + step) - exact(op, turn + d - step) for d in (-1e-7, 1e-7)]
            assert rises[0] * rises[1] < 0


@every_case
@every_dtype
@few
@given(kind=kinds, seed=seeds, near=st.booleans())
def test_derivatives_are_enclosed(case: Case, dtype: torch.dtype, kind: str, seed: int, near: bool) -> None:
    op = case.op
    assert isinstance(op, Univariate)
    b = boxed(case, kind, seed, dtype)
    if near:
        centre = (b.lower + b.upper) / 2
        b = Interval(torch.maximum(b.lower, centre - 1e-2), torch.minimum(b.upper, centre + 1e-2))
    enclosure = op.derivative(b)
    assert (enclosure.lower <= enclosure.upper).all()
    place = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    z = (b.lower.double() + place * (b.upper.double() - b.lower.double())).requires_grad_()
    z = torch.minimum(z, b.upper.double())
    (slope,) = torch.autograd.grad(op.forward(z).sum(), z)
    slack = 1e-9 * (1 + slope.abs()) if dtype == torch.float64 else 1e-5 * (1 + slope.abs())
    # At 0 a fractional power is held off it, where automatic differentiation sees a constant.
    defined = slope.isfinite() & ((z > 0) | (case.domain[0] < 0))
    assert ((slope >= enclosure.lower - slack) | ~defined).all()
    assert ((slope <= enclosure.upper + slack) | ~defined).all()


@every_case
def test_slope_is_the_derivative_of_value(case: Case) -> None:
    op = case.op
    assert isinstance(op, Univariate)
    z = torch.linspace(max(case.domain[0], -9) + 0.0123, min(case.domain[1], 9) - 0.0123, 997, dtype=torch.float64)
    z.requires_grad_()
    (expected,) = torch.autograd.grad(op.value(z).sum(), z)
    torch.testing.assert_close(op.slope(z), expected, rtol=1e-11, atol=1e-12)


@every_dtype
@pytest.mark.parametrize("op", (Sin(), Cos()), ids=("sin", "cos"))
@pytest.mark.parametrize("centre", (0.0, 1.6, -20.0, 1e3, 1e6, -3e7))
def test_waves_hold_far_from_zero(op: Elementwise, centre: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    radius = 8 * torch.rand((1, 400), generator=generator, dtype=torch.float64) ** 2
    shift = 7 * torch.rand((1, 400), generator=generator, dtype=torch.float64)
    b = Interval((centre + shift - radius).to(dtype), (centre + shift + radius).to(dtype))
    place = torch.rand((3000, 1), generator=generator, dtype=torch.float64)
    z = b.lower.double() + place * (b.upper.double() - b.lower.double())
    a, c, d, e = (x.double() for x in lines(op, b))
    image, enclosure = op.forward(z), op.interval(b)
    rounding = 1e-15 * (1 + abs(centre))
    assert (a * z + c <= image + rounding).all() and (image <= d * z + e + rounding).all()
    assert (enclosure.lower.double() <= image).all() and (image <= enclosure.upper.double()).all()


@pytest.mark.parametrize(
    ("op", "low", "high"),
    [
        (Log(), 0.0, 1.0),
        (Log(), -1.0, 2.0),
        (Sqrt(), -1e-9, 1.0),
        (Reciprocal(), -1.0, 1.0),
        (Reciprocal(), 0.0, 1.0),
        (Reciprocal(), -1.0, 0.0),
        (Pow(-2.0), -1.0, 1.0),
        (Pow(0.5), -0.1, 1.0),
        (Pow(2.5), -1.0, 1.0),
        (Pow(-0.5), 0.0, 1.0),
        (Pow(8.0), 0.0, 1e200),
        (Tan(), 1.0, 2.0),
        (Tan(), -10.0, 10.0),
        (Tan(), 1e9, 1e9),
        (Exp(), 0.0, 800.0),
        (Sinh(), -800.0, 0.0),
        (Cosh(), 0.0, 800.0),
        (Log(), 1.0, math.nan),
        (Exp(), math.nan, math.nan),
    ],
    ids=lambda value: str(value),
)
def test_a_box_that_leaves_the_domain_has_no_bound(op: Univariate, low: float, high: float) -> None:
    lower, upper = torch.tensor([[1.0, low]]).double(), torch.tensor([[1.0, high]]).double()
    if isinstance(op, Log) and math.isnan(high):
        lower = torch.tensor([[1.0, math.nan]]).double()
    with pytest.raises(InvalidBounds, match=type(op).__name__):
        op.interval(Interval(lower, upper))
    with pytest.raises(InvalidBounds, match=type(op).__name__):
        op.relax(lower, upper)
    with pytest.raises(InvalidBounds, match=type(op).__name__):
        op.derivative(Interval(lower, upper))
    with pytest.raises(InvalidBounds):
        crown(sequential((2,), [op]), Region(Interval(lower, upper)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pow(0.0),
        lambda: Pow(1.0),
        lambda: Pow(math.inf),
        lambda: Elu(0.0),
        lambda: Elu(1.0, -1.0),
        lambda: Gelu(0.0),
        lambda: Silu(-1.0),
        lambda: GeluTanh(1.0, 0.9),
        lambda: GeluTanh(2.0),
        lambda: HardSwish(0.2, 1.0),
        lambda: HardSwish(-0.2),
        lambda: Softplus(0.0),
    ],
)
def test_constants_without_meaning_are_refused(make: Callable[[], Op]) -> None:
    with pytest.raises(InvalidModel):
        make()


@pytest.mark.parametrize("radius", (1e-6, 0.05, 0.5))
def test_a_chain_of_functions_is_enclosed(radius: float) -> None:
    """CROWN through ten of them, each on the range that the one before leaves."""
    generator = torch.Generator().manual_seed(11)

    def linear() -> Linear:
        weight = torch.randn((6, 6), generator=generator, dtype=torch.float64) / 3
        return Linear(weight, torch.randn((6,), generator=generator, dtype=torch.float64) / 3)

    ops: list[Op] = []
    for op in (Gelu(), Sin(), Mish(), Softplus(), Log(), Elu(2.0), Silu(), Atan(), HardSwish(), Exp(), Sqrt(), Erf()):
        ops += [op] if isinstance(op, Log | Sqrt) else [linear(), op]
    graph = sequential((6,), ops)
    centre = torch.randn((3, 6), generator=generator, dtype=torch.float64)
    relaxed = crown(graph, Region(Interval(centre - radius, centre + radius)))
    eye = torch.eye(6, dtype=torch.float64)[:, None].expand(6, 3, 6)
    lower, upper = relaxed.output_lower(eye).T, -relaxed.output_lower(-eye).T
    sign = 2 * torch.rand((4000, *centre.shape), generator=generator, dtype=torch.float64) - 1
    image = graph.forward((centre + radius * sign).flatten(0, 1)).reshape(4000, 3, 6)
    assert (lower <= image).all() and (image <= upper).all()
    if radius < 1e-3:
        assert ((upper - lower) <= 1.5 * (image.amax(0) - image.amin(0)) + 1e-9).all()
