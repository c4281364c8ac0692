"""A bundle as name -> bytes, from a folder or a zip file, within limits."""

import io
import re
import zipfile
import zlib
from pathlib import Path

from provenn.verifier.check.rejected import CertificateRejected, require

FILES, BYTES = 16, 2**30
"""Limits: files of a bundle, bytes of all of them."""

NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII)


def load(path: Path) -> dict[str, bytes]:
    """A folder's files or a zip file's.   Raises: CertificateRejected for other contents; OSError if unreadable."""
    if not path.is_dir():
        return load_zip(path.read_bytes() if path.stat().st_size <= BYTES else b"")
    entries = sorted(path.iterdir())
    _admit([(entry.name, entry.lstat().st_size) for entry in entries])
    require(all(e.is_file() and not e.is_symlink() for e in entries), "bundle", "it holds folders or links")
    return {entry.name: entry.read_bytes() for entry in entries}


def load_zip(data: bytes) -> dict[str, bytes]:
    """A zip file's files.   Raises: CertificateRejected for folders, odd names, too many or too large files."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            _admit([(entry.filename, entry.file_size) for entry in archive.infolist()])
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CertificateRejected("bundle", f"it is not a zip file that is read here: {error}") from error


def _admit(entries: list[tuple[str, int]]) -> None:
    few = len(entries) <= FILES and len(dict(entries)) == len(entries) and sum(size for _, size in entries) <= BYTES
    require(few, "bundle", "it has too many or too large files, or two of one name")
    require(all(NAME.fullmatch(name) for name, _ in entries), "bundle", "it holds folders, or odd file names")
