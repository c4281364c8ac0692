"""What makes an op affine, and its adjoint, magnitude and offset the ones of that affine map."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from table import AFFINE, BOXES, CASES, Case, box, few
from torch import Tensor

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Affine
from provenn.verifier.ops.table import OPS

every_affine = pytest.mark.parametrize("case", AFFINE, ids=lambda case: case.name)


def affine(case: Case) -> Affine:
    assert isinstance(case.op, Affine)
    return case.op


def jacobians(case: Case) -> list[Tensor]:
    """Explicit [outputs, inputs_i] for every input, one unit vector at a time, from `forward` alone."""
    zeros = [torch.zeros((1, *shape), dtype=torch.float64) for shape in case.shapes]
    origin = case.op.forward(*zeros).flatten()
    columns = []
    for index, shape in enumerate(case.shapes):
        size = torch.Size(shape).numel()
        units = torch.eye(size, dtype=torch.float64).reshape(size, *shape)
        others = [units if i == index else zero.expand(size, *zero.shape[1:]) for i, zero in enumerate(zeros)]
        columns.append((case.op.forward(*others).flatten(1) - origin).T)
    return columns


def test_every_op_is_in_the_table() -> None:
    assert {type(case.op) for case in CASES} == set(OPS)
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.__name__)
def test_every_op_says_what_it_is(op: type) -> None:
    assert op.onnx and all(name[0].isupper() for name in op.onnx)
    first = op.__doc__.splitlines()[0]
    assert first.endswith((".", ":")) or len(first) < 120
    assert first[:1] not in (" ", "")


@every_affine
def test_affinity(case: Case) -> None:
    x, y, z = (case.inputs(2, seed) for seed in range(3))
    f = affine(case).apply
    combined = f(*(a + 3 * b - c for a, b, c in zip(x, y, z, strict=True)))
    origin = f(*(torch.zeros_like(a) for a in x))
    torch.testing.assert_close(combined - f(*x) - 3 * f(*y) + f(*z), -2 * origin, rtol=1e-12, atol=1e-12)
    if not affine(case).has_offset:
        assert not origin.any()


@every_affine
def test_adjoint_is_the_vector_jacobian_product(case: Case) -> None:
    x = case.inputs(4, 0)
    rows = torch.randn_like(affine(case).apply(*x))
    own = affine(case).adjoint(rows, case.shapes)
    default = Affine.adjoint(affine(case), rows, case.shapes)
    for mine, theirs, shape in zip(own, default, case.shapes, strict=True):
        assert mine.shape == (4, *shape)
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@every_affine
def test_adjoint_identity(case: Case) -> None:
    x = case.inputs(3, 1)
    origin = affine(case).apply(*(torch.zeros_like(a) for a in x))
    image = affine(case).apply(*x) - origin
    rows = torch.randn_like(image)
    pulled = affine(case).adjoint(rows, case.shapes)
    left = (rows * image).flatten(1).sum(1)
    right = sum((p * a).flatten(1).sum(1) for p, a in zip(pulled, x, strict=True))
    torch.testing.assert_close(left, right, rtol=1e-11, atol=1e-11)


@every_affine
def test_magnitude_is_the_absolute_jacobian(case: Case) -> None:
    radii = tuple(a.abs() for a in case.inputs(2, 2))
    explicit = sum(r.flatten(1) @ j.abs().T for r, j in zip(radii, jacobians(case), strict=True))
    magnitude = affine(case).magnitude(*radii)
    assert magnitude.shape == affine(case).apply(*radii).shape
    torch.testing.assert_close(magnitude.flatten(1), explicit, rtol=1e-12, atol=1e-12)


@every_affine
def test_offset_is_the_image_of_zero(case: Case) -> None:
    zeros = [torch.zeros((1, *shape), dtype=torch.float64) for shape in case.shapes]
    offset = affine(case).offset(case.shapes, zeros[0])
    torch.testing.assert_close(offset, affine(case).apply(*zeros), rtol=0, atol=0)


@every_affine
@few
@given(kind=st.sampled_from(BOXES), seed=st.integers(0, 2**20))
def test_interval_is_the_hull_of_the_image(case: Case, kind: str, seed: int) -> None:
    """Extremes of row j of the Jacobian over a box are at the corners that its signs name."""
    generator = torch.Generator().manual_seed(seed)
    boxes = [box(kind, shape, generator) for shape in case.shapes]
    origin = affine(case).apply(*(torch.zeros_like(b.lower[:1]) for b in boxes)).flatten(1)
    lower, upper, scale = origin, origin, origin.abs()
    for b, j in zip(boxes, jacobians(case), strict=True):
        low, high = b.lower.flatten(1), b.upper.flatten(1)
        lower = lower + low @ j.clamp(min=0).T + high @ j.clamp(max=0).T
        upper = upper + high @ j.clamp(min=0).T + low @ j.clamp(max=0).T
        scale = scale + torch.maximum(low.abs(), high.abs()) @ j.abs().T
    enclosure = case.op.interval(*boxes)
    assert isinstance(enclosure, Interval)
    assert ((enclosure.lower.flatten(1) - lower).abs() <= 1e-14 * scale).all()
    assert ((enclosure.upper.flatten(1) - upper).abs() <= 1e-14 * scale).all()
    assert (enclosure.lower <= enclosure.upper).all()
