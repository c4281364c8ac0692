"""How a flat input is an image: channels, rows and columns, and where each entry lies."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.errors import InvalidSpecification

Layout = Literal["chw", "hwc"]


@dataclass(frozen=True)
class Image:
    """Extents of the input's axes, in its own order; layout: whether channels are the first axis or the last."""

    shape: tuple[int, int, int]
    layout: Layout

    @classmethod
    def of(cls, shape: tuple[int, ...], inputs: tuple[int, ...], layout: Layout) -> Image:
        """shape: as a document gives it, or none: that of the network's inputs; two axes are one channel.

        Raises: InvalidSpecification if it has other axes than rows, columns and channels, or not as many entries.
        """
        key, axes = '"shape": ', shape or inputs
        if len(axes) == 2:
            axes = (1, *axes) if layout == "chw" else (*axes, 1)
        if len(axes) != 3:
            given = list(shape or inputs)
            where = "it is" if shape else "is missing: a patch has rows and columns, but the network's inputs are"
            raise InvalidSpecification(f"{key}{where} {given}; give [channels, rows, columns]")
        if prod(axes) != prod(inputs):
            said = f"{list(shape)} has {prod(axes)} entries"
            raise InvalidSpecification(f"{key}{said}, but the network has {prod(inputs)} inputs")
        return cls((axes[0], axes[1], axes[2]), layout)

    @property
    def extents(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.shape[1:] if self.layout == "chw" else self.shape[:2]

    def rectangle(self, top: int, left: int, height: int, width: int) -> NDArray[np.bool_]:
        """Which entries of the flat input lie in it, in every channel.   Raises: InvalidSpecification outside."""
        rows, columns = self.extents
        if not (top + height <= rows and left + width <= columns):
            reach = f"rows {top} to {top + height - 1}, columns {left} to {left + width - 1}"
            raise InvalidSpecification(f"the patch takes {reach}, but the image has {rows} rows and {columns} columns")
        inside = np.zeros((rows, columns), bool)
        inside[top : top + height, left : left + width] = True
        spread = inside[None] if self.layout == "chw" else inside[:, :, None]
        return np.broadcast_to(spread, self.shape).ravel().copy()
