"""Cells taken from fixed places: every op that moves, repeats or drops cells without a pattern of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from provenn.verifier.errors import InvalidModel
from provenn.verifier.ops.base import Shape
from provenn.verifier.ops.monotone import Monotone


@dataclass(frozen=True, eq=False)
class Places:
    """Where the cells of the result [*shape] are found among `size` cells; place `size` is a zero.

    index: the places, flat, of int64. It is no parameter: its numbers are never rounded to another type.
    """

    index: Tensor
    shape: Shape
    size: int
    zeros: bool

    @classmethod
    def of(cls, places: Tensor, size: int) -> Places:
        """From places [*shape] counted from 0, where -1 stands for a zero.

        Raises: InvalidModel if there is none, or one lies outside the `size` cells.
        """
        if not places.numel() or places.min() < -1 or places.max() >= size:
            raise InvalidModel(f"Pick: places must be some, from 0 to {size - 1}, or -1 for a zero")
        zero = places < 0
        index = torch.where(zero, size, places.to(torch.int64)).flatten()
        return cls(index, tuple(places.shape), size, bool(zero.any()))


@dataclass(frozen=True)
class Pick(Monotone):
    """Cell j of the result is cell places[j] of the inputs, each flattened and put behind the last, or a zero."""

    places: Places

    onnx = (
        "Compress",
        "GatherElements",
        "GatherND",
        "Pad",
        "Resize",
        "ReverseSequence",
        "Scatter",
        "ScatterElements",
        "ScatterND",
        "Tile",
        "Upsample",
    )

    def apply(self, *inputs: Tensor) -> Tensor:
        """[x_1, .., x_k][places].   Raises: InvalidModel if the inputs do not have the cells that are numbered."""
        flat = [x.flatten(1) for x in inputs]
        cells = flat[0] if len(flat) == 1 else torch.cat(flat, 1)
        if cells.shape[1] != self.places.size:
            raise InvalidModel(f"Pick: the inputs have {cells.shape[1]} cells, not {self.places.size}")
        if self.places.zeros:
            cells = torch.nn.functional.pad(cells, (0, 1))
        return cells.index_select(1, self.places.index).reshape(cells.shape[0], *self.places.shape)

    def adjoint(self, coefficients: Tensor, shapes: Sequence[Shape]) -> tuple[Tensor, ...]:
        """A, added up at the places that were read."""
        zeros = coefficients.new_zeros((coefficients.shape[0], self.places.size + self.places.zeros))
        total = zeros.index_add(1, self.places.index, coefficients.flatten(1))
        sizes = [torch.Size(shape).numel() for shape in shapes]
        parts = total[:, : self.places.size].split_with_sizes(sizes, 1)
        return tuple(p.reshape(p.shape[0], *shape) for p, shape in zip(parts, shapes, strict=True))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Pick:
        """The places on `device`; they stay whole numbers."""
        return replace(self, places=replace(self.places, index=self.places.index.to(device)))
