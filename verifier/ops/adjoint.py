"""The linear part of an affine op, and its transpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from provenn.verifier.ops.arithmetic import Scale
from provenn.verifier.ops.base import Affine, Op, Shape
from provenn.verifier.ops.conv import Conv, ConvTranspose, split_padding
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.pull import vector_jacobian


@dataclass(frozen=True)
class _Of(Affine):
    """Made of an affine function of inputs of `shapes`."""

    function: Affine
    shapes: tuple[Shape, ...]

    onnx: ClassVar[tuple[str, ...]] = ()

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Op:
        """With the function's parameters there."""
        moved = self.function.to(device, dtype)
        assert isinstance(moved, Affine)
        return replace(self, function=moved)


@dataclass(frozen=True)
class Homogeneous(_Of):
    """f(x) - f(0)."""

    def apply(self, *inputs: Tensor) -> Tensor:
        """f(x) - f(0)."""
        return self.function.apply(*inputs) - self.function.offset(self.shapes, inputs[0])

    def magnitude(self, *radii: Tensor) -> Tensor:
        """That of f."""
        return self.function.magnitude(*radii)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """That of f."""
        return self.function.adjoint(coefficients, shapes)


@dataclass(frozen=True)
class Adjoint(_Of):
    """g -> g J_position: the transpose of a linear function in one of its inputs."""

    position: int

    def apply(self, *inputs: Tensor) -> Tensor:
        """G J."""
        return self.function.adjoint(inputs[0], self.shapes)[self.position]

    def magnitude(self, *radii: Tensor) -> Tensor:
        """G |J|."""
        zeros = [radii[0].new_zeros((len(radii[0]), *shape)) for shape in self.shapes]
        return vector_jacobian(self.function.magnitude, zeros, radii[0], self.function.live)[self.position]

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The linear op itself, its other inputs 0."""
        zeros = [coefficients.new_zeros((1, *shape)).expand(len(coefficients), *shape) for shape in self.shapes]
        return (self.function.apply(*zeros[: self.position], coefficients, *zeros[self.position + 1 :]),)


def linear_part(op: Affine, shapes: tuple[Shape, ...]) -> Affine:
    """The op without its offset."""
    if not op.has_offset:
        return op
    if isinstance(op, Conv | ConvTranspose | Linear | Scale):
        return replace(op, bias=torch.zeros_like(op.bias))
    return Homogeneous(op, shapes)


def _convolution_transposed(op: Conv, shape: Shape) -> ConvTranspose:
    """Cells that no window reaches are added behind."""
    begin, end = split_padding(op.padding)
    size = op.offset([shape], op.bias).shape[2:]
    spans = (d * (k - 1) + 1 for d, k in zip(op.dilation, op.weight.shape[2:], strict=True))
    axes = zip(shape[1:], begin, end, spans, op.stride, size, strict=True)
    added = tuple(n + b + e - k - s * (o - 1) for n, b, e, k, s, o in axes)
    none = op.weight.new_zeros(op.weight.shape[1] * op.groups)
    return ConvTranspose(op.weight, none, op.stride, op.padding, added, op.dilation, op.groups)


def transposed(op: Affine, shapes: tuple[Shape, ...], position: int) -> Affine:
    """The transpose of a linear op in one of its inputs."""
    if isinstance(op, Linear):
        return Linear(op.weight.T.contiguous(), op.weight.new_zeros(op.weight.shape[1]))
    if isinstance(op, Conv):
        return _convolution_transposed(op, shapes[0])
    return Adjoint(op, shapes, position)
