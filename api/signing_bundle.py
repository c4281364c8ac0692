"""A zip with the attestation as one more member at its end, and without it again, byte by byte.

The id of a certificate is the SHA-256 of the zip without it. Packing the other members again would give the same bytes
only where the same zlib packs them, so they are left as they are.
"""

from __future__ import annotations

import errno
import io
import os
import struct
import zipfile
from typing import BinaryIO

from provenn.verifier.certificate.bundle import EPOCH
from provenn.verifier.check.claims import ATTESTATION

END, END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\5\6"
LARGE_END, LARGE_SIGNATURE, LOCATOR_SIGNATURE = struct.Struct("<4sQ2H2L4Q4sLQL"), b"PK\6\6", b"PK\6\7"
"""What stands before the end of a zip of more members or bytes than its end has digits for: record and locator."""
COUNT, PLACE = (1 << 16) - 1, (1 << 31) - 1
"""The most members and bytes for which zipfile writes no such record."""
ENTRY_SIZE = 46
"""Of an entry of a zip's directory, without its name."""


def attach(data: bytes, envelope: bytes) -> bytes:
    """The zip with the envelope as its last member."""
    kept, rest = extended(io.BytesIO(data), envelope)
    return data[:kept] + rest


def extended(file: BinaryIO, envelope: bytes) -> tuple[int, bytes]:
    """The same of an open file, which is only read: how many of its bytes stay, and the bytes after them."""
    grown = _Grown(file)
    with zipfile.ZipFile(grown, "a") as archive:
        grown.begin(archive.start_dir)
        entry = zipfile.ZipInfo(ATTESTATION, EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        entry.create_system = 3
        archive.writestr(entry, envelope)
    return grown.rest()


def detach(data: bytes) -> bytes:
    """The zip that `attach` was given; any other bytes as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return data
    if not entries or entries[-1].filename != ATTESTATION:
        return data
    last = len(data) - len(_end(len(entries), directory, 0))
    if data[last:] != _end(len(entries), directory, last - directory):  # or offsets would not count from 0
        return data
    start, entry = entries[-1].header_offset, ENTRY_SIZE + len(ATTESTATION) + len(entries[-1].extra)
    listed = data[directory : last - entry]
    return data[:start] + listed + _end(len(entries) - 1, start, len(listed))


def _end(count: int, directory: int, size: int) -> bytes:
    """What zipfile writes at the end of a zip of `count` members without a comment, whose directory is there."""
    large = b""
    if count > COUNT or directory > PLACE or size > PLACE:
        sizes, after = (count, count, size, directory), directory + size
        large = LARGE_END.pack(LARGE_SIGNATURE, 44, 45, 45, 0, 0, *sizes, LOCATOR_SIGNATURE, 0, after, 1)
    few, short, early = min(count, 0xFFFF), min(size, 0xFFFFFFFF), min(directory, 0xFFFFFFFF)
    return large + END.pack(END_SIGNATURE, 0, 0, few, few, short, early, 0)


class _Grown(io.RawIOBase):
    """A file that stays as it is up to some place, from which on others are written and read, in memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._place = file, 0
        self._size = self._kept = file.seek(0, os.SEEK_END)
        self._rest = io.BytesIO()

    def begin(self, place: int) -> None:
        """From here on it is written to: what was there is gone."""
        self._kept = self._size = place

    def rest(self) -> tuple[int, bytes]:
        """How many bytes of the file stay, and those after them."""
        return self._kept, self._rest.getvalue()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        place = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        if place < 0:
            raise OSError(errno.EINVAL, "before the beginning")
        self._place = place
        return place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._place)
        piece = self._file.read(max(0, min(len(buffer), self._size - self._place)))
        buffer[: len(piece)] = piece
        self._place += len(piece)
        return len(piece)

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._rest.seek(self._place - self._kept)
        written = self._rest.write(data)
        self._place += written
        self._size = max(self._size, self._place)
        return written

    def truncate(self, size: int | None = None) -> int:
        return self._place
