"""Answers of earlier runs, by the digest of everything that they depend on: .provenn/cache beside the configuration.

An entry is KEY.json, the items, and KEY.zip, their certificates. KEY is the digest of the question with the content of
every file in it and of the versions that answered; the entry is sealed by its own digest and names that of the
certificates. Whatever does not fit is no entry, and is measured again. The folder can be deleted at any time.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from provenn.api.cli.outcome import CannotWrite
from provenn.api.gate.found import Found, canonical, items_of, sha256
from provenn.api.gate.questions import Question, digest
from provenn.api.gate.writing import write

FORMAT = "provenn-gate-cache/1"
PLACE = Path(".provenn") / "cache"
ANSWERING = ("provenn", "numpy", "onnx", "onnxruntime", "torch", "pillow", "pyarrow")
"""Distributions whose versions an answer depends on."""

EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Certificates(Mapping[str, bytes]):
    """Zips by their SHA-256, in an archive of which nothing is read before it is needed."""

    path: Path

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        return zipfile.ZipFile(io.BytesIO(self.path.read_bytes()))

    def __getitem__(self, name: str) -> bytes:
        """Raises: KeyError if it is not there, or cannot be read."""
        try:
            return self._archive.read(f"{name}.zip")
        except (zipfile.BadZipFile, zlib.error, OSError) as error:
            raise KeyError(name) from error

    def __iter__(self) -> Iterator[str]:
        """The digests."""
        return (name.removesuffix(".zip") for name in self._archive.namelist())

    def __len__(self) -> int:
        """How many there are."""
        return len(self._archive.namelist())


@dataclass(frozen=True)
class Cache:
    """The entries in a folder; seed: of the run; server: who has measured, None: this process."""

    folder: Path
    seed: int
    server: str | None = None

    def key(self, question: Question) -> str:
        """Of a question.   Raises: InvalidFile."""
        return digest(question, {"seed": self.seed, "server": self.server, "versions": _versions()})

    def read(self, key: str) -> Found | None:
        """The entry, if there is a whole one: what is not there, or not what we write, is none."""
        try:
            content = json.loads((self.folder / f"{key}.json").read_bytes())
            sealed = content.pop("sha256")
            if sealed != sha256(canonical(content)) or (content["format"], content["key"]) != (FORMAT, key):
                return None
            archive = self.folder / f"{key}.zip"
            if content["certificates"] is not None and sha256(archive.read_bytes()) != content["certificates"]:
                return None
            return Found(items_of(content["items"]), Certificates(archive))
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
            RecursionError,
        ):  # not there, or not what we write
            return None

    def write(self, key: str, found: Found) -> None:
        """Keeps an answer.   Raises: CannotWrite."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder.parent / ".gitignore").write_text("*\n")
        except OSError as error:
            raise CannotWrite(str(self.folder), error) from error
        archive = _archived(found) if found.certificates else None
        content: dict[str, Any] = {"format": FORMAT, "key": key, "items": found.as_json()}
        content["certificates"] = None if archive is None else sha256(archive)
        if archive is not None:
            write(self.folder / f"{key}.zip", archive)
        write(self.folder / f"{key}.json", canonical({**content, "sha256": sha256(canonical(content))}))


def _archived(found: Found) -> bytes:
    """The same bytes for the same certificates, which are compressed already."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted({item.certificate for item in found.items if item.certificate is not None}):
            archive.writestr(zipfile.ZipInfo(f"{name}.zip", EPOCH), found.certificates[name])
    return buffer.getvalue()


def _versions() -> dict[str, str | None]:
    """What answers here."""
    found: dict[str, str | None] = {}
    for name in ANSWERING:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
