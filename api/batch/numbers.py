"""What the numbers of a data file may be: not too many, finite, and floats exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.api.files import InvalidFile
from provenn.verifier.errors import ResourceLimit

Array = NDArray[Any]

NUMBERS = 1 << 28
"""Of all inputs of a file together: 1 GiB as float32."""
WHOLE = 1 << 53
"""Whole numbers up to here are floats of 64 bits."""


def require_numbers(path: Path, count: int) -> None:
    """Raises: ResourceLimit if a data file holds too many; called before memory is taken for them."""
    if count > NUMBERS:
        raise ResourceLimit(f"{path}: the number of numbers in it ({count})", f"{NUMBERS}; split the file")


def floats(path: Path, array: Array) -> Array:
    """The same numbers as float32 or float64, in C order.   Raises: InvalidFile if one of them is no float64."""
    if np.can_cast(array.dtype, np.float32, "safe"):
        return np.ascontiguousarray(array, np.float32)
    if array.dtype.kind in "iu" and array.size and (array.max() > WHOLE or array.min() < -WHOLE):
        raise InvalidFile(path, "holds whole numbers beyond 2^53, which no float is exactly; divide them first")
    return np.ascontiguousarray(array, np.float64)
