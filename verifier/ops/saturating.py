"""Odd increasing functions that level off on either side."""

from __future__ import annotations

import math
from dataclasses import dataclass
from math import inf

import torch
from torch import Tensor

from provenn.verifier.ops.univariate import Form, Univariate

_UNIT = Form(convex=((-inf, 0.0),), concave=((0.0, inf),), image=(-1.0, 1.0))
_ATAN = Form(convex=((-inf, 0.0),), concave=((0.0, inf),))


@dataclass(frozen=True)
class Erf(Univariate):
    """The error function."""

    onnx = ("Erf",)

    def form(self) -> Form:
        """Convex, then concave."""
        return _UNIT

    def value(self, z: Tensor) -> Tensor:
        """erf(z)."""
        return torch.erf(z)

    def slope(self, z: Tensor) -> Tensor:
        """2 exp(-z^2) / sqrt(pi)."""
        return torch.exp(-(z * z)) * (2 / math.sqrt(math.pi))

    def slope_error(self, z: Tensor, slope: Tensor) -> Tensor:
        """The rounding of z^2 is magnified by its size."""
        return super().slope_error(z, slope) * (1 + (z * z).clamp(max=1e4))


@dataclass(frozen=True)
class Atan(Univariate):
    """The inverse of the tangent."""

    onnx = ("Atan",)

    def form(self) -> Form:
        """Convex, then concave."""
        return _ATAN

    def value(self, z: Tensor) -> Tensor:
        """atan(z)."""
        return torch.atan(z)

    def slope(self, z: Tensor) -> Tensor:
        """1 / (1 + z^2)."""
        return 1 / (1 + z * z)


@dataclass(frozen=True)
class Softsign(Univariate):
    """z / (1 + |z|)."""

    onnx = ("Softsign",)

    def form(self) -> Form:
        """Convex, then concave."""
        return _UNIT

    def value(self, z: Tensor) -> Tensor:
        """Z / (1 + |z|)."""
        return z / (1 + z.abs())

    def slope(self, z: Tensor) -> Tensor:
        """1 / (1 + |z|)^2."""
        shrunk = 1 / (1 + z.abs())
        return shrunk * shrunk
