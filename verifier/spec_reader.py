"""Any specification file, by its content: JSON, VNN-LIB 1.0 or 2.0, gzipped or not."""

from __future__ import annotations

import re
import zlib

from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import parse_json
from provenn.verifier.vnnlib import parse_vnnlib
from provenn.verifier.vnnlib2 import parse_vnnlib2

BYTES = 64 << 20
"""Largest specification that is read, packed or unpacked."""

_START = re.compile(rb"(?:[ \t\r\n]+|;[^\n]*+)*+(\{|\([ \t\r\n]*(?:vnnlib-version|declare-network)?|)")


def read_specification(data: bytes) -> Specification:
    """The specification in `data`; its text is kept as it is, unpacked (VNN-LIB 2.0 becomes its JSON form).

    Raises: InvalidSpecification with the line where there is one; ResourceLimit; BackendError without the vnnlib
    package.
    """
    text = gunzipped(data)
    start = _START.match(text)
    assert start is not None
    begin = start[1]
    if begin == b"{":
        return parse_json(text)
    if begin.endswith((b"vnnlib-version", b"declare-network")):
        return parse_vnnlib2(text)
    if begin.startswith(b"("):
        return parse_vnnlib(text)
    if start.end() == len(text):
        raise InvalidSpecification("the specification is empty")
    line = text.count(b"\n", 0, start.end()) + 1
    raise InvalidSpecification("neither VNN-LIB (it would begin with a parenthesis) nor JSON (with a brace)", line)


def gunzipped(data: bytes) -> bytes:
    """`data` unpacked where it is gzip.   Raises: InvalidSpecification, ResourceLimit."""
    if len(data) > BYTES:
        raise ResourceLimit("the size of the specification", f"{BYTES >> 20} MiB")
    if data[:2] != b"\x1f\x8b":
        return data
    parts: list[bytes] = []
    room = BYTES
    while data:
        unpack = zlib.decompressobj(wbits=31)
        try:
            parts.append(unpack.decompress(data, room + 1))
        except zlib.error as error:
            raise InvalidSpecification(f"the gzip file is damaged: {error}") from None
        room -= len(parts[-1])
        if room < 0:
            raise ResourceLimit("the size of the unpacked specification", f"{BYTES >> 20} MiB")
        if not unpack.eof:
            raise InvalidSpecification("the gzip file is cut short")
        data = unpack.unused_data
    return b"".join(parts)
