"""Householder activations: groups of units are reflected where they lie behind a plane (Singla et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from provenn.verifier.errors import InvalidModel


class Householder(nn.Module):
    """z where v'z >= 0, else (1 - 2 v v') z, for every group of `size` neighbours along the last axis.

    That is z + 2 v relu(-v'z): continuous, 1-Lipschitz, and it preserves the l2 norm. v is trained, one unit vector a
    group: what is stored, `directions` [groups, size], is divided by its norm.
    Raises: InvalidModel if the size does not divide the width.
    """

    def __init__(self, width: int, size: int = 2) -> None:
        super().__init__()
        if size < 1 or width < 1 or width % size:
            raise InvalidModel(f"{width} units do not make groups of {size}")
        # With v = (1, -1) / sqrt(2) a pair is MaxMin: one starts near it.
        start = torch.ones(width // size, size)
        start[:, 1::2] = -1
        self.directions = nn.Parameter(start + 0.3 * torch.randn(start.shape))

    def normals(self) -> Tensor:
        """The unit vectors, each in the columns of its group: [groups, width]."""
        units = nn.functional.normalize(self.directions, dim=-1)
        own = torch.eye(len(units), dtype=units.dtype, device=units.device)
        return (own.unsqueeze(-1) * units.unsqueeze(1)).flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """[.., width] -> [.., width]."""
        return _reflected(x, self.normals())

    def fixed(self) -> Reflection:
        """The same function with its unit vectors as constants, for export."""
        return Reflection(self.normals().detach())


class Reflection(nn.Module):
    """A Householder activation that is not trained any more: normals [groups, width]."""

    def __init__(self, normals: Tensor) -> None:
        super().__init__()
        self.inward = nn.Buffer(-normals)
        self.twice = nn.Buffer(2 * normals.T.contiguous())

    def forward(self, x: Tensor) -> Tensor:
        """[.., width] -> [.., width]: two products with constants, and a relu."""
        inside = nn.functional.linear(x, self.inward)
        return x + nn.functional.linear(inside.relu(), self.twice)


def fixed(module: nn.Sequential) -> nn.Sequential:
    """The same network, every Householder activation in it fixed; the other parts are shared."""
    return nn.Sequential(*(part.fixed() if isinstance(part, Householder) else part for part in module))


def _reflected(x: Tensor, normals: Tensor) -> Tensor:
    return x + 2 * (-(x @ normals.T)).relu() @ normals
