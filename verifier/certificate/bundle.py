"""Bundles as files: a folder, or a zip of it that depends on its contents alone."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from provenn.verifier.check.manifest import load, load_zip

__all__ = ["load", "load_zip", "to_zip", "write"]

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
