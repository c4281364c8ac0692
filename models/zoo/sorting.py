"""Activations that sort: gradients keep their norm, as 1-Lipschitz networks need (Anil et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from provenn.verifier.errors import InvalidModel


class GroupSort(nn.Module):
    """Neighbours along the last axis, in groups of `size`, in falling order. Preserves every p-norm, 1-Lipschitz.

    Raises: InvalidModel if the size is not positive, or does not divide the width of an input.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        if size < 1:
            raise InvalidModel(f"groups of {size}; they must have one unit or more")
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        """[.., width] -> [.., width]. Exported as one TopK of the groups."""
        return _groups(x, self.size).topk(self.size, -1).values.flatten(-2)


class MaxMin(nn.Module):
    """GroupSort of pairs: (x, y) becomes (max(x, y), min(x, y)).

    Raises: InvalidModel if the width of an input is odd.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[.., width] -> [.., width]. Exported as one Max and one Min of two slices."""
        pairs = _groups(x, 2)
        first, second = pairs[..., 0], pairs[..., 1]
        return torch.stack([torch.maximum(first, second), torch.minimum(first, second)], -1).flatten(-2)


def _groups(x: Tensor, size: int) -> Tensor:
    if x.shape[-1] % size:
        raise InvalidModel(f"{x.shape[-1]} units do not make groups of {size}")
    return torch.unflatten(x, -1, (-1, size))
