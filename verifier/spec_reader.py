"""Any specification file, by its content: JSON, VNN-LIB 1.0 or 2.0, gzipped or not."""

from __future__ import annotations

import re
import zlib

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import parse_json
from provenn.verifier.vnnlib import parse_vnnlib

BYTES = 256 << 20
"""Largest specification that is read, unpacked."""

_VERSION_2 = re.compile(rb"\(\s*(vnnlib-version|declare-network)\b")


def read_specification(data: bytes) -> Specification:
    """The specification in `data`; its text is kept as it is, unpacked.

    Raises: InvalidSpecification with the line where there is one; ResourceLimit for a file that is too large.
    """
    text = gunzipped(data)
    if not text.strip():
        raise InvalidSpecification("the file is empty")
    if text.lstrip()[:1] == b"{":
        return parse_json(text)
    if _VERSION_2.search(text[:100_000]):
        from provenn.verifier.vnnlib2 import parse_vnnlib2

        return parse_vnnlib2(text)
    return parse_vnnlib(text)


def gunzipped(data: bytes) -> bytes:
    """`data` unpacked where it is gzip.   Raises: InvalidSpecification, ResourceLimit."""
    if len(data) > BYTES:
        raise ResourceLimit("the specification", f"{BYTES >> 20} MiB")
    if data[:2] != b"\x1f\x8b":
        return data
    unpack = zlib.decompressobj(wbits=31)
    try:
        text = unpack.decompress(data, BYTES + 1)
    except zlib.error as error:
        raise InvalidSpecification(f"not a whole gzip file: {error}") from error
    if len(text) > BYTES:
        raise ResourceLimit("the unpacked specification", f"{BYTES >> 20} MiB")
    if not unpack.eof:
        raise InvalidSpecification("the gzip file is cut short")
    return text
