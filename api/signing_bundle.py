"""A certificate's zip with the attestation as one more member at its end, and without it again, byte by byte.

The id of a certificate is the SHA-256 of the zip without it. Packing the other members again would give the same bytes
only where the same zlib packs them, so they are left as they are.
"""

from __future__ import annotations

import io
import struct
import zipfile

from provenn.verifier.certificate.bundle import EPOCH
from provenn.verifier.check.claims import ATTESTATION

END, END_SIGNATURE = struct.Struct("<4s4H2LH"), b"PK\5\6"
ENTRY_SIZE = 46
"""Of an entry of a zip's directory, without its name."""


def attach(data: bytes, envelope: bytes) -> bytes:
    """The zip with the envelope as its last member."""
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a") as archive:
        entry = zipfile.ZipInfo(ATTESTATION, EPOCH)
        entry.compress_type = zipfile.ZIP_DEFLATED
        entry.external_attr = 0o644 << 16
        entry.create_system = 3
        archive.writestr(entry, envelope)
    return buffer.getvalue()


def detach(data: bytes) -> bytes:
    """The zip that `attach` was given; any other bytes as they are."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError):
        return data
    last = len(data) - END.size
    plain = data[last:] == _end(len(entries), directory, last - directory)  # or offsets would not count from 0
    if not plain or not entries or entries[-1].filename != ATTESTATION:
        return data
    start, listed = entries[-1].header_offset, data[directory : last - ENTRY_SIZE - len(ATTESTATION)]
    return data[:start] + listed + _end(len(entries) - 1, start, len(listed))


def _end(count: int, directory: int, size: int) -> bytes:
    """What ends a zip of `count` members without a comment, whose directory is there."""
    return END.pack(END_SIGNATURE, 0, 0, count, count, size, directory, 0)
