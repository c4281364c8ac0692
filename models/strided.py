"""Tensors that lie in their bytes without gaps or overlaps, in any order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray


def dense(flat: NDArray[Any], shape: Sequence[int], strides: Sequence[int]) -> NDArray[Any] | None:
    """The tensor that visits every one of these elements exactly once; None if the strides do not."""
    if flat.size != prod(shape) or not is_dense(shape, strides):
        return None
    order = _order(shape, strides)
    return flat.reshape([shape[axis] for axis in order]).transpose(np.argsort(order).tolist())


def is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Whether the strides, in elements, are those of C order but for a permutation of the axes."""
    if len(shape) != len(strides):
        return False
    if 0 in shape:
        return True
    step = 1
    for axis in reversed(_order(shape, strides)):
        if shape[axis] != 1:
            if strides[axis] != step:
                return False
            step *= shape[axis]
    return True


def _order(shape: Sequence[int], strides: Sequence[int]) -> list[int]:
    """The axes from the slowest to the fastest; those of length 1 count for nothing."""
    return sorted(range(len(shape)), key=lambda axis: (-strides[axis], shape[axis] == 1))
