"""Bundles as files: a folder, or a zip of it that depends on its contents alone."""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from provenn.verifier.check.rounding import CertificateRejected, require

__all__ = ["load", "load_zip", "to_zip", "write"]

FILES, BYTES = 2**14, 2**30
"""Limits: files of a bundle, bytes of all of them."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest time a zip file can state."""


def to_zip(files: Mapping[str, bytes]) -> bytes:
    """The same bytes for the same files: sorted names, no times, deflated."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Makes `folder` hold exactly these files: all of them or, if interrupted, what was there before.

    Raises: OSError if the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, data in files.items():
            with (fresh / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        fresh.chmod(0o755)
        _replace(fresh, folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _replace(fresh: Path, folder: Path) -> None:
    """Renames `fresh` to `folder`; an existing folder is moved aside first and removed afterwards."""
    if not folder.exists():
        fresh.rename(folder)
        return
    old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    folder.rename(old / "old")
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


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
            plain = {entry.compress_type for entry in archive.infolist()} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
            require(plain, "bundle", "it is compressed in an unknown way")
            return {entry.filename: archive.read(entry) for entry in archive.infolist()}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
        raise CertificateRejected("bundle", f"it is not a zip file that is read here: {error}") from error


def _admit(entries: list[tuple[str, int]]) -> None:
    few = len(entries) <= FILES and len(dict(entries)) == len(entries) and sum(size for _, size in entries) <= BYTES
    require(few, "bundle", "it has too many or too large files, or two of one name")
    plain = all(re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", name) for name, _ in entries)
    require(plain, "bundle", "it holds folders, or odd file names")
