"""Arrays in a file, written and read one at a time, in which no damage goes unnoticed.

A zip file has them too, but what its directory has lost is not missed there; here that would be an open part.
Layout, for every array: lengths of name and content, checksum of the content, name, checksum of all that; content
(numpy's .npy, deflated). An empty name is the end.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

Named = tuple[str, NDArray[Any]]

BROKEN = (ValueError, OSError, zlib.error)
"""What reading raises where a file is damaged, or never was one of these."""

BLOCK = 4.0
"""MiB of rows that are written together, and held in memory once more while they are."""

LENGTHS, CHECKSUM = struct.Struct("<HQI"), struct.Struct("<I")


def write(path: Path, arrays: Iterable[Named], level: int = 0) -> None:
    """Writes them in their order. level: of zlib's compression, 0 for none.   Raises: OSError."""
    with path.open("wb") as file:
        for name, values in arrays:
            content = io.BytesIO()
            np.lib.format.write_array(content, values, allow_pickle=False)
            _put(file, name.encode(), zlib.compress(content.getbuffer(), level))
        _put(file, b"", b"")


def read(path: Path, prefix: str = "") -> Iterator[Named]:
    """Those whose names begin with the prefix, which is taken off, in the order they were written.

    Raises: one of BROKEN, after what was whole.
    """
    with path.open("rb") as file:
        while (found := _heading(file))[0]:
            name, size, checksum = found
            if name.startswith(prefix):
                content = io.BytesIO(zlib.decompress(_exactly(file, size, checksum)))
                yield name.removeprefix(prefix), np.lib.format.read_array(content, allow_pickle=False)
            else:
                file.seek(size, io.SEEK_CUR)


def _put(file: BinaryIO, name: bytes, content: bytes) -> None:
    heading = LENGTHS.pack(len(name), len(content), zlib.crc32(content)) + name
    file.write(heading + CHECKSUM.pack(zlib.crc32(heading)))
    file.write(content)


def _heading(file: BinaryIO) -> tuple[str, int, int]:
    """The next array's name, and its content's size and checksum.   Raises: ValueError."""
    lengths = file.read(LENGTHS.size)
    if len(lengths) < LENGTHS.size:
        raise ValueError("it is cut off")
    count, size, checksum = LENGTHS.unpack(lengths)
    name = file.read(count)
    if file.read(CHECKSUM.size) != CHECKSUM.pack(zlib.crc32(lengths + name)):
        raise ValueError("it is damaged")
    return name.decode(), size, checksum


def _exactly(file: BinaryIO, size: int, checksum: int) -> bytes:
    content = file.read(size)
    if len(content) < size or zlib.crc32(content) != checksum:
        raise ValueError("it is damaged, or cut off")
    return content
