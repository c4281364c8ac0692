"""The numbers of a certificate: a safetensors file (8 bytes of length, a JSON header, raw little-endian data)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.verifier.check.rejected import CertificateRejected, require

TYPES = {"F32": "<f4", "F64": "<f8", "U8": "u1"}

Tensors = Mapping[str, NDArray[Any]]


def read_payload(data: bytes) -> Tensors:
    """Name -> array [n]. The arrays must cover the data exactly, without overlaps or holes.

    Raises: CertificateRejected for anything else, unknown types, or numbers that are not finite.
    """
    length = int.from_bytes(data[:8], "little")
    require(len(data) >= 8 + length, "payload", "its header is truncated")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=unique)
    except (ValueError, RecursionError) as error:
        raise CertificateRejected("payload", f"its header is not JSON: {error}") from error
    require(isinstance(header, dict), "payload", "its header is not an object")
    body, tensors, spans = data[8 + length :], {}, [(0, 0)]
    for name, entry in header.items():
        whole = (
            isinstance(entry, dict) and entry.keys() == {"dtype", "shape", "data_offsets"} and entry["dtype"] in TYPES
        )
        require(whole, "payload", f"{name}: it is not an entry of type {', '.join(TYPES)}")
        numbers, kind = [*entry["shape"], *entry["data_offsets"]], np.dtype(TYPES[entry["dtype"]])
        require(len(numbers) == 3 and all(type(n) is int for n in numbers), "payload", f"{name}: its shape or offsets")
        count, start, end = numbers
        fits = 0 <= start <= end <= len(body) and end - start == count * kind.itemsize
        require(fits, "payload", f"{name}: its offsets are out of range")
        tensors[name] = np.frombuffer(body[start:end], kind)
        require(np.isfinite(tensors[name]).all(), "payload", f"{name}: a number is not finite")
        spans.append((start, end))
    spans = [*sorted(spans), (len(body), len(body))]
    require(all(a[1] == b[0] for a, b in pairwise(spans)), "payload", "its tensors overlap or leave holes")
    return tensors


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.   Raises: ValueError if a key is given twice."""
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)
