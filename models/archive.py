"""The files of a zip or tar archive, in memory: every name, kind and size is checked before a byte is unpacked."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from struct import error as StructError  # noqa: N812

from provenn.models.limits import Limits
from provenn.models.tensors import PLAIN_NAME
from provenn.verifier.errors import InvalidModel, ResourceLimit

MEMBERS = 1000
DIRECTORY_BYTES = 8 << 20
"""Of a zip's list of members, each of which takes 46 bytes or more."""
DICTIONARY_BYTES = 128 << 20
"""Of xz: what its decoder may hold (level 9 takes 65 MiB)."""
NESTED = (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".txz", ".zst", ".7z", ".rar")
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

ZIP, XZ = b"PK\x03\x04", b"\xfd7zXZ\x00"
OTHERS = {
    b"(\xb5/\xfd": "zstandard",
    b"BZh": "bzip2",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!": "rar",
    b"PK\x05\x06": "empty zip",
}
"""Archives and compressions that are told and not read."""
BROKEN = (
    zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError, zlib.error, StructError, EOFError, OSError, ValueError,
    OverflowError, NotImplementedError,
)  # fmt: skip


def is_zip(data: bytes) -> bool:
    """Whether it begins as a zip archive with a member."""
    return data.startswith(ZIP)


def is_tar(data: bytes) -> bool:
    """Whether it is a tar archive of this century (ustar, GNU or pax), not compressed."""
    return data[257:262] == b"ustar"


def inflated_xz(data: bytes, limits: Limits) -> bytes:
    """The content of an xz file, no further than the limit.   Raises: InvalidModel; ResourceLimit."""
    stream = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=DICTIONARY_BYTES)
    try:
        content = stream.decompress(data, limits.bytes + 1)
    except lzma.LZMAError as error:
        raise InvalidModel(
            f"the xz data is broken, or was made with a larger dictionary than level 9's: {error}"
        ) from error
    limits.require_bytes(len(content), "the decompressed file")
    if not stream.eof or stream.unused_data:
        raise InvalidModel("the xz data is truncated, or followed by something else; upload one file alone")
    return content


def zip_names(data: bytes) -> list[str]:
    """The names in a zip archive, as they are.   Raises: InvalidModel; ResourceLimit."""
    with _zip(data) as archive:
        return [member.orig_filename for member in archive.infolist()]


def files(data: bytes, limits: Limits) -> dict[str, bytes]:
    """The files of a zip or (uncompressed) tar archive by name; folders and what macOS adds are left out.

    Raises: InvalidModel for a name that is absolute, leads upwards or comes twice, for links, devices, encrypted or
    nested archives, and broken ones; ResourceLimit for too many members or bytes, declared or real.
    """
    found: dict[str, bytes] = {}
    for name, content in _unzipped(data, limits) if is_zip(data) else _untarred(data, limits):
        if name in found:
            raise InvalidModel(f"the archive holds '{name}' twice")
        found[name] = content
    return found


def _unzipped(data: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    with _zip(data) as archive:
        members = archive.infolist()
        _require_few(len(members))
        wanted = {m: name for m in members if not m.orig_filename.endswith("/") and (name := _plain(m.orig_filename))}
        for member, name in wanted.items():
            _require_file(member, name)
        limits.require_bytes(sum(member.file_size for member in wanted), "the files of the archive")
        for member, name in wanted.items():
            with archive.open(member) as file:
                content = file.read(member.file_size + 1)
            if len(content) != member.file_size:
                raise InvalidModel(f"'{name}' has another size than the archive says; make the archive again")
            yield name, content


@contextmanager
def _zip(data: bytes) -> Iterator[zipfile.ZipFile]:
    """The archive, once its list of members is known to be short."""
    if _directory_bytes(data) > DIRECTORY_BYTES:
        raise ResourceLimit("the list of the archive's members", f"{DIRECTORY_BYTES} bytes")
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            yield archive
    except BROKEN as error:
        raise InvalidModel(f"the zip archive cannot be read: {error}") from error


def _directory_bytes(data: bytes) -> int:
    """What the archive's last record says, where zipfile looks for it: its 64-bit form if there is one."""
    end = len(data) - 22
    if data[end : end + 4] != b"PK\x05\x06" or data[-2:] != b"\x00\x00":
        end = data.rfind(b"PK\x05\x06", max(0, len(data) - 65536 - 22))
    if end < 0:
        raise InvalidModel("the zip archive is truncated; upload it again")
    if data[max(0, end - 20) : max(0, end - 16)] == b"PK\x06\x07":
        return int.from_bytes(data[max(0, end - 36) : max(0, end - 28)], "little")
    return int.from_bytes(data[end + 12 : end + 16], "little")


def _require_file(member: zipfile.ZipInfo, name: str) -> None:
    """A plain file, compressed as every program can.   Raises: InvalidModel."""
    kind = stat.S_IFMT(member.external_attr >> 16)
    if kind not in (0, stat.S_IFREG):
        raise InvalidModel(f"'{name}' is a link or another special file; archives may hold plain files alone")
    if member.flag_bits & 1:
        raise InvalidModel(f"'{name}' is encrypted; make the archive without a password")
    if member.compress_type not in METHODS:
        raise InvalidModel(f"'{name}' is compressed in a way that is not read; make the archive with deflate")


def _untarred(data: bytes, limits: Limits) -> Iterator[tuple[str, bytes]]:
    total = 0
    try:
        with tarfile.open(fileobj=BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive, 1):
                _require_few(count)
                name = "" if member.isdir() else _plain(member.name)
                if not name:
                    continue
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse() or member.size < 0:
                    raise InvalidModel(
                        f"'{name}' is a link or another special file; archives may hold plain files alone"
                    )
                total += member.size
                limits.require_bytes(total, "the files of the archive")
                file = archive.extractfile(member)
                content = file.read() if file is not None else b""
                if len(content) != member.size:
                    raise InvalidModel(f"'{name}' has another size than the archive says; make the archive again")
                yield name, content
    except BROKEN as error:
        raise InvalidModel(f"the tar archive cannot be read: {error}") from error


def _require_few(members: int) -> None:
    if members > MEMBERS:
        raise ResourceLimit(f"the number of the archive's members ({members} or more)", str(MEMBERS))


def _plain(name: str) -> str:
    """The name without a leading ./, or nothing for what macOS adds.   Raises: InvalidModel."""
    name = name.removeprefix("./")
    parts = name.split("/")
    if not PLAIN_NAME.fullmatch(name) or {".", ".."} & set(parts):
        raise InvalidModel(f"the archive holds a file {name!r}: only names within it are read, without .. or drives")
    if parts[0] == "__MACOSX" or parts[-1].startswith("._"):
        return ""
    if name.lower().endswith(NESTED):
        raise InvalidModel(f"the archive holds another archive, '{name}'; put the files themselves into one archive")
    return name
