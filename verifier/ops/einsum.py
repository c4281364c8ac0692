"""Sums of products with one constant tensor, by the letters of the axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Affine, Shape

_BATCH = "Z"


@dataclass(frozen=True)
class Einsum(Affine):
    """y[result] = sum of x[source] constant[factor] over the letters that `result` lacks.

    source, factor, result: one lower-case letter an axis of the node, of the constant and of the result; the batch
    has none, so that nothing can mix across it.   Raises: InvalidModel for letters that do not name such a sum, or a
    letter of the constant alone (its sum over it must be taken first: magnitudes do not survive it).
    """

    constant: Tensor
    source: str
    factor: str
    result: str

    onnx = ("AveragePool", "CumSum", "Einsum", "MatMul", "Resize", "Upsample")

    def __post_init__(self) -> None:
        letters = self.source + self.factor + self.result
        plain = not letters or (letters.isascii() and letters.isalpha() and letters.islower())
        known = set(self.factor) <= set(self.source + self.result) and set(self.result) <= set(
            self.source + self.factor
        )
        if not plain or not known or len(set(self.result)) < len(self.result):
            raise InvalidModel(f"Einsum: '{self.source},{self.factor}->{self.result}' is not a sum of products")
        if len(self.factor) != self.constant.dim():
            raise InvalidModel(f"Einsum: '{self.factor}' does not name {self.constant.dim()} axes of the constant")

    def apply(self, *inputs: Tensor) -> Tensor:
        """The sum."""
        return self._product(inputs[0], self.constant)

    def magnitude(self, *radii: Tensor) -> Tensor:
        """The sum with |constant|: every cell of x enters a cell of the result with one cell of the constant."""
        return self._product(radii[0], self.constant.abs())

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """The sum with `source` and `result` exchanged, repeated along the axes that were summed without a factor."""
        if len(set(self.source)) < len(self.source):
            return super().adjoint(coefficients, shapes)
        reached = "".join(letter for letter in self.source if letter in self.factor + self.result)
        equation = f"{_BATCH}{self.result},{self.factor}->{_BATCH}{reached}"
        pulled = torch.einsum(equation, coefficients, self.constant)
        ones = [n if letter in reached else 1 for letter, n in zip(self.source, shapes[0], strict=True)]
        return (pulled.reshape(pulled.shape[0], *ones).expand(-1, *shapes[0]),)

    def _product(self, x: Tensor, constant: Tensor) -> Tensor:
        return torch.einsum(f"{_BATCH}{self.source},{self.factor}->{_BATCH}{self.result}", x, constant)
