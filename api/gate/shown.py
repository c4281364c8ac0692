"""Counterexamples in words: how an input differs from the one it was asked about, and what the network makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

FEW = 4
Array = NDArray[np.floating]


def changed(centre: Array, found: Array, shape: Sequence[int]) -> str:
    """How many values differ, and the ones that do most: "12 of 64 values differ, most [0, 3, 4]: 0.5 -> 0.55"."""
    before, after = np.asarray(centre, np.float64).ravel(), np.asarray(found, np.float64).ravel()
    apart = np.abs(after - before)
    count = int((apart > 0).sum())
    if not count:
        return "nothing differs"
    largest = np.argsort(-apart, kind="stable")[: min(FEW, count)]
    said = ", ".join(f"{_place(int(i), shape)}: {before[i]:.6g} -> {after[i]:.6g}" for i in largest)
    more = ", ..." if count > len(largest) else ""
    return f"{count} of {len(apart)} values differ, by at most {apart.max():.6g}; most {said}{more}"


def moved(centre: Array, found: Array) -> str:
    """The same without the values: "12 of 64 values changed by at most 0.05"."""
    apart = np.abs(np.asarray(found, np.float64).ravel() - np.asarray(centre, np.float64).ravel())
    return f"{int((apart > 0).sum())} of {len(apart)} values changed by at most {apart.max():.6g}"


def few(values: Sequence[float]) -> str:
    """The first ones."""
    return f"[{', '.join(f'{v:.6g}' for v in values[: 2 * FEW])}{', ...' if len(values) > 2 * FEW else ''}]"


def unsafe(output: Sequence[float], point: Sequence[float], original: Sequence[float] | None) -> str:
    """The outputs at a counterexample; of parameters also the input of the given network that they make."""
    if original is None:
        return f"outputs {few(output)} at {few(point)}"
    return f"outputs {few(output)} at {few(original)}, which parameters {few(point)} make"


def _place(index: int, shape: Sequence[int]) -> str:
    return f"[{', '.join(str(int(i)) for i in np.unravel_index(index, shape))}]"
