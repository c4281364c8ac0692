"""Data as it travels to a service, and as that keeps it: one .npz file that is the same for the same data."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from provenn.api.batch.data import Data


def packed(data: Data) -> bytes:
    """The arrays x [n, inputs], y [n] and names [n]; uncompressed, so that nothing in it is larger than it looks."""
    buffer = io.BytesIO()
    np.savez(buffer, x=data.inputs, y=np.array(data.labels, np.int64), names=np.array(data.names, np.str_))
    return buffer.getvalue()


def unpacked(path: Path) -> Data:
    """What `packed` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        labels, names = arrays["y"].tolist(), arrays["names"].tolist()
        return Data(arrays["x"], tuple(labels), tuple(names))
