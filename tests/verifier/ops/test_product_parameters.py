"""Free parameters of products, softmaxes and norms, in both precisions, also beside masks and on boxes of a few ulp."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from cases_products import PRODUCT_CASES
from hypothesis import given
from hypothesis import strategies as st
from op_case import Case
from table import BOXES, box, few, points
from torch import Tensor

from provenn.verifier.interval import Interval, sure
from provenn.verifier.ops.centre import Centre
from provenn.verifier.ops.log_sum_exp import LogSumExp
from provenn.verifier.ops.matmul import MatMul
from provenn.verifier.ops.normalization import Normalize
from provenn.verifier.ops.power import Reciprocal
from provenn.verifier.ops.product import Multiply
from provenn.verifier.ops.root_mean_square import RootMeanSquare
from provenn.verifier.ops.softmax import LogSoftmax, Softmax

FREE = [case for case in PRODUCT_CASES if case.op.free(*(Interval(x, x) for x in case.inputs(1, 0))) is not None]
FREE += [
    Case("normalize-last", Normalize((1,), 1e-5, False), ((3, 4),), None),
    Case("normalize-two", Normalize((2, 0), 1e-5, False), ((3, 2, 2),), None),
    Case("normalize-long", Normalize((1,), 1e-5, False), ((2, 40),), None),
    Case("normalize-centred", Normalize((1,), 1e-5, True), ((3, 4),), None),
]
EXPONENTIAL = [case for case in FREE if isinstance(case.op, Softmax | LogSoftmax | LogSumExp)]
every_case = pytest.mark.parametrize("case", FREE, ids=lambda case: case.name)
every_dtype = pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
kinds, seeds = st.sampled_from(BOXES), st.integers(0, 2**20)

ROUNDINGS = 1
"""Of the sum of the absolute terms, coefficients times inputs and the constant: what the last products leave."""

PLANE = 8
"""Roundings, of the largest product, in a plane that bounds products: of the 4 and 4 (k + 4) of its class's head."""

POINTS = 200


@dataclass(frozen=True, eq=False)
class Drawn:
    """Boxes of a type, points in them in float64, and the op's values there."""

    boxes: list[Interval]
    sampled: list[Tensor]
    image: Tensor


def ulps(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> Interval:
    """A box of one to three ulp, of sizes between 0.01 and 100."""
    size = 10 ** (4 * torch.rand((2, *shape), generator=generator) - 2)
    lower = (size * torch.randn((2, *shape), generator=generator)).to(dtype)
    upper, steps = lower, torch.randint(1, 4, lower.shape, generator=generator)
    for step in range(3):
        upper = torch.where(steps > step, torch.nextafter(upper, torch.full_like(upper, torch.inf)), upper)
    return Interval(lower, upper)


def masked(case: Case, value: float, generator: torch.Generator, dtype: torch.dtype) -> Interval:
    """A wide box with some cells at that value, the first of no set."""
    wide = box("wide", case.shapes[0], generator)
    chosen = torch.rand(wide.lower.shape, generator=generator) < 0.4
    axes = case.op.axes if isinstance(case.op, LogSumExp) else (case.op.axis,)
    chosen[(slice(None), *(0 if axis in axes else slice(None) for axis in range(len(case.shapes[0]))))] = False
    return Interval(*(end.to(dtype).masked_fill(chosen, value) for end in (wide.lower, wide.upper)))


def normalized(op: Normalize, x: Interval, sampled: Tensor) -> tuple[list[Interval], list[Tensor]]:
    """The op's inputs c and 1 / s(c), from a box and points of c, or of what c is the centred value of."""
    if op.centred:
        centre, dtype = Centre(op.axes), x.lower.dtype
        hull = centre.interval(Interval(x.lower.double(), x.upper.double()))
        slack = 4 * torch.finfo(dtype).eps * torch.maximum(hull.lower.abs(), hull.upper.abs()).amax()
        x = Interval((hull.lower - slack).to(dtype), (hull.upper + slack).to(dtype))
        sampled = centre.forward(sampled.flatten(0, 1)).reshape(sampled.shape)
    root = RootMeanSquare(op.axes, op.epsilon)
    inverse = 1 / root.forward(sampled.flatten(0, 1))
    return [x, Reciprocal().interval(root.interval(x))], [sampled, inverse.unflatten(0, sampled.shape[:2])]


def drawn(case: Case, boxes: list[Interval], generator: torch.Generator) -> Drawn:
    sampled = [points(Interval(b.lower.double(), b.upper.double()), POINTS, generator) for b in boxes]
    if isinstance(case.op, Normalize):
        boxes, sampled = normalized(case.op, boxes[0], sampled[0])
    image = case.op.forward(*(x.flatten(0, 1) for x in sampled))
    return Drawn(boxes, sampled, image.unflatten(0, (POINTS, 2)))


def product(rows: Tensor, x: Tensor) -> Tensor:
    """[spec, batch, *node] and [points, batch, *node] -> [points, spec, batch]."""
    return torch.einsum("sbn,pbn->psb", rows.double().flatten(2), x.flatten(2))


def rows_of(image: Tensor, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """Rows of one number, of random ones and of one cell; small, so that no sum beside a mask overflows.

    What a row of one number pulls through a softmax cancels: its cells sum to 1.
    """
    rows = torch.randn((8, *image.shape[1:]), generator=generator, dtype=torch.float64) / 64
    one = torch.randint(image[0, 0].numel(), (6, image.shape[1]), generator=generator)
    kept = torch.nn.functional.one_hot(one, image[0, 0].numel()).reshape(rows[2:].shape)
    return torch.cat([torch.full_like(rows[:1], -1 / 64), rows[1:2], rows[2:] * kept]).to(dtype)


def roundings(case: Case, found: Drawn, rows: Tensor, parameters: Tensor | None) -> Tensor:
    """By how many roundings of the sizes involved a linear bound is wrong; -infinity where there is none."""
    pulled, constant = case.op.linearize(found.boxes, parameters)(rows)
    assert constant is not None
    right = constant = constant.double()
    left, size = product(rows, found.image), product(rows.abs(), found.image.abs()) + constant.abs()
    for part, x in zip(pulled, found.sampled, strict=True):
        right, size = right + product(part, x), size + product(part.abs(), x.abs())
    if isinstance(case.op, Multiply | MatMul):
        largest = case.op.forward(*(torch.maximum(b.lower.abs(), b.upper.abs()).double() for b in found.boxes))
        size = size + PLANE / ROUNDINGS * product(rows.abs(), largest.unsqueeze(0))
    numbers, right = torch.finfo(rows.dtype), sure(right)
    return torch.where(right == -torch.inf, right, (right - left) / (numbers.eps * size + numbers.tiny))


def assert_sound(case: Case, found: Drawn, extreme: float | None, own: bool, generator: torch.Generator) -> Tensor:
    """The default lines and those of random parameters, or all at an extreme; returned: where there is a bound."""
    dtype, start = found.boxes[0].lower.dtype, case.op.free(*found.boxes)
    rows = rows_of(found.image, generator, dtype)
    assert start is not None
    parameters = torch.rand((8 if own else 1, *start.shape[1:]), generator=generator, dtype=dtype)
    if extreme is not None:
        parameters = torch.full_like(parameters, extreme)
    wrong = torch.stack([roundings(case, found, rows, choice) for choice in (None, parameters)])
    assert (wrong <= ROUNDINGS).all()
    return wrong > -torch.inf


@every_case
@every_dtype
@few
@given(kind=kinds, seed=seeds, own=st.booleans(), extreme=st.sampled_from((None, None, 0.0, 1.0)))
def test_any_parameters_are_sound(
    case: Case, dtype: torch.dtype, kind: str, seed: int, own: bool, extreme: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    found = drawn(case, [Interval(b.lower.to(dtype), b.upper.to(dtype)) for b in boxes], generator)
    assert assert_sound(case, found, extreme, own, generator).all()


@every_case
@every_dtype
def test_boxes_of_a_few_ulp_are_sound(case: Case, dtype: torch.dtype) -> None:
    """Differences of their ends are mostly rounding."""
    for seed, extreme in enumerate((None, 0.0, 1.0, 1.0)):
        generator = torch.Generator().manual_seed(seed)
        found = drawn(case, [ulps(shape, generator, dtype) for shape in case.shapes], generator)
        assert assert_sound(case, found, extreme, True, generator).all()


@pytest.mark.parametrize("case", EXPONENTIAL, ids=lambda case: case.name)
@every_dtype
@pytest.mark.parametrize("value", (None, -1e30, -1e9, -1e5), ids=str)
def test_masked_cells_are_sound(case: Case, dtype: torch.dtype, value: float | None) -> None:
    """Beside cells of the least number too, where sizes overflow; sets far from 0 as a whole have a bound or none."""
    least = torch.finfo(dtype).min if value is None else value
    for seed, extreme in enumerate((None, 1.0)):
        generator = torch.Generator().manual_seed(seed)
        found = drawn(case, [masked(case, least, generator, dtype)], generator)
        assert assert_sound(case, found, extreme, True, generator).all()
        wide = box("wide", case.shapes[0], generator)
        far = Interval(*(least + end.to(dtype) / 64 for end in (wide.lower, wide.upper)))
        assert_sound(case, drawn(case, [far], generator), extreme, True, generator)
