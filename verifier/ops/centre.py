"""What is left of cells without their mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Affine, Shape
from provenn.verifier.ops.monotone import require_axes


@dataclass(frozen=True)
class Centre(Affine):
    """x - mean(x), the mean over node axes.   Raises: InvalidModel for axes that are not some, each named once."""

    axes: tuple[int, ...]

    onnx = ("LayerNormalization", "InstanceNormalization", "GroupNormalization")

    def __post_init__(self) -> None:
        require_axes(self.axes, "Centre")
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise InvalidModel(f"Centre: axes {self.axes} must be some, each named once")

    def apply(self, *inputs: Tensor) -> Tensor:
        """X - mean(x)."""
        return inputs[0] - self._mean(inputs[0])

    def magnitude(self, *radii: Tensor) -> Tensor:
        """Own cells enter with 1 - 1/n, others with 1/n."""
        cells = torch.Size(radii[0].shape[axis + 1] for axis in self.axes).numel()
        return (1 - 2 / cells) * radii[0] + self._mean(radii[0])

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A - mean(A): the map is symmetric."""
        return (coefficients - self._mean(coefficients),)

    def _mean(self, x: Tensor) -> Tensor:
        return x.mean(tuple(axis + 1 for axis in self.axes), keepdim=True)
