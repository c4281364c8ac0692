"""Writes payloads: safetensors, the same bytes for the same arrays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.check.manifest import TYPES

ALIGNMENT = 8


def write_payload(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """One-dimensional arrays of the kernel's types, in order, after a header padded with spaces.

    Raises: KeyError for another type.
    """
    kinds = {np.dtype(kind): name for name, kind in TYPES.items()}
    header, body = {}, []
    start = 0
    for name, array in tensors.items():
        data = np.ascontiguousarray(array).tobytes()
        entry = {"dtype": kinds[array.dtype], "shape": [len(array)], "data_offsets": [start, start + len(data)]}
        header[name] = entry
        body.append(data)
        start += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text + b"".join(body)
