"""Memory that ran out: how numpy and torch say so, of the host or of a device."""

from __future__ import annotations

import torch

SAID = ("can't allocate memory", "out of memory", "bad_alloc", "ALLOC_FAILED")
"""Where it is an error like others: torch on the host, CUDA, C++, CUDA's libraries."""


def require_exhausted(error: MemoryError | RuntimeError) -> str:
    """What to say where an error means that memory ran out.   Raises: the error, where it means something else."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or any(words in str(error) for words in SAID):
        return f"the memory ran out: {' '.join(str(error).split()) or type(error).__name__}"
    raise error
