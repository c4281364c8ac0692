"""y = x W^T + b along the last axis: Gemm, and MatMul with a constant operand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.ops.base import Affine, Shape


@dataclass(frozen=True)
class Linear(Affine):
    """x [.., in] -> x W^T + b [.., out];  weight [out, in], bias [out] (zeros for none)."""

    weight: Tensor
    bias: Tensor

    onnx = ("Gemm", "MatMul")
    has_offset = True

    def apply(self, *inputs: Tensor) -> Tensor:
        """X W^T + b."""
        return torch.nn.functional.linear(inputs[0], self.weight, self.bias)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """R |W|^T."""
        return torch.nn.functional.linear(radii[0], self.weight.abs())

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A -> A W."""
        return (coefficients @ self.weight,)

    def units(self, index: Tensor, sign: Tensor) -> tuple[Tensor, Tensor] | None:
        """Rows of W and entries of b, signed."""
        return self.weight[index] * sign.unsqueeze(-1), self.bias[index] * sign

    def offset(self, shapes: Sequence[Shape], like: Tensor) -> Tensor:
        """b, repeated over the leading axes of the node."""
        return self.bias.expand(1, *shapes[0][:-1], -1)


@dataclass(frozen=True)
class LeftLinear(Affine):
    """x [.., in, k] -> M x [.., out, k];  matrix [out, in]: MatMul with the constant on the left."""

    matrix: Tensor

    onnx = ("MatMul",)

    def apply(self, *inputs: Tensor) -> Tensor:
        """M x."""
        return self.matrix @ inputs[0]

    def magnitude(self, *radii: Tensor) -> Tensor:
        """|M| r."""
        return self.matrix.abs() @ radii[0]
