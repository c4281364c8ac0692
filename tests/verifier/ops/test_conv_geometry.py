"""Convolutions of random geometry, in one to three dimensions: the adjoint is the vector-Jacobian product."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from provenn.verifier.interval import Interval
from provenn.verifier.ops.base import Affine
from provenn.verifier.ops.conv import Conv, ConvTranspose


@dataclass(frozen=True)
class Geometry:
    """A convolution that fits its input of `size`, or a transposed one."""

    turned: bool
    groups: int
    outer: int
    inner: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[int, ...]
    added: tuple[int, ...]

    def op(self) -> tuple[Affine, tuple[int, ...]]:
        """The op, and the shape of a node that it reads."""
        generator = torch.Generator().manual_seed(sum(self.size) + 7 * sum(self.kernel))
        shape = (self.groups * self.outer, self.inner, *self.kernel)
        weight = torch.randn(shape, generator=generator, dtype=torch.float64)
        channels = self.groups * self.inner, self.groups * self.outer
        source, result = reversed(channels) if self.turned else channels
        bias = torch.randn(result, generator=generator, dtype=torch.float64)
        form = self.stride, self.padding
        if self.turned:
            op: Affine = ConvTranspose(weight, bias, *form, self.added, self.dilation, self.groups)
        else:
            op = Conv(weight, bias, *form, self.dilation, self.groups)
        return op, (source, *self.size)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int, count: int = rank) -> tuple[int, ...]:
        return tuple(draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))

    size, kernel, stride, dilation, padding = each(1, 6), each(1, 3), each(1, 3), each(1, 3), each(0, 3, 2 * rank)
    added = tuple(draw(st.integers(0, s - 1)) for s in stride)
    spans = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    around = [padding[i] + padding[i + rank] for i in range(rank)]
    turned = draw(st.booleans())
    if turned:
        whole = [s * (n - 1) + k + a for s, n, k, a in zip(stride, size, spans, added, strict=True)]
        assume(all(w > a for w, a in zip(whole, around, strict=True)))
    else:
        # Some window reads the input along every axis.
        assume(all(n + a >= s for n, a, s in zip(size, around, spans, strict=True)))
        assume(all(p < s for p, s in zip(padding[:rank], spans, strict=True)))
    numbers = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    return Geometry(turned, *numbers, size, kernel, stride, dilation, padding, added)


@settings(max_examples=80, deadline=None)
@given(geometry=geometries())
def test_adjoint_magnitude_and_interval(geometry: Geometry) -> None:
    op, shape = geometry.op()
    generator = torch.Generator().manual_seed(1)
    x = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    image = op.apply(x)
    rows = torch.randn((3, *image.shape[1:]), generator=generator, dtype=torch.float64)
    # Several rows may go through the whole matrix, one row never does.
    by_row = torch.cat([op.adjoint(row.unsqueeze(0), [shape])[0] for row in rows])
    for found in (op.adjoint(rows, [shape])[0], by_row):
        torch.testing.assert_close(found, Affine.adjoint(op, rows, [shape])[0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(op.offset([shape], x), op.apply(torch.zeros_like(x[:1])), rtol=0, atol=0)
    absolute = torch.autograd.functional.jacobian(lambda v: op.apply(v[None])[0], x[0]).abs().flatten(-len(shape))
    radius = op.magnitude(x[:1].abs())[0]
    torch.testing.assert_close(radius, absolute @ x[0].abs().flatten(), rtol=1e-12, atol=1e-12)
    box = Interval(x - 0.5, x + 0.25)
    enclosure = op.interval(box)
    assert (enclosure.lower <= image + 1e-12).all() and (image <= enclosure.upper + 1e-12).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_float32_rounds_and_nothing_else(groups: int) -> None:
    generator = torch.Generator().manual_seed(groups)
    weight = torch.randn((8, 4 // groups, 3, 3), generator=generator)
    op = Conv(weight, torch.zeros(8), (2, 1), (1, 0, 1, 2), (1, 2), groups)
    rows = torch.randn((6, 8, 4, 5), generator=generator)
    (single,) = op.adjoint(rows, [(4, 7, 7)])
    (double,) = op.to("cpu", torch.float64).adjoint(rows.double(), [(4, 7, 7)])
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-5)
