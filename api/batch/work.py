"""What is done of a batch, kept while it goes on: a killed run goes on after its last finished chunk.

work/about.json      what the run is about; a folder of another run is refused
work/00017.zip       a finished chunk: rows.jsonl, and its certificates; written whole, then renamed
"""

from __future__ import annotations

import json
import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from provenn.api.batch.bundle import CERTIFICATE, ROWS, Manifest, write_bundle
from provenn.api.batch.chunk import Answered
from provenn.api.batch.results import BUNDLE, RESULTS, Rows, write_rows
from provenn.api.batch.rows import Row, canonical
from provenn.api.batch.writing import whole
from provenn.api.files import InvalidFile

WORK, ABOUT = "work", "about.json"


class Kept(ABC):
    """The finished chunks of a run."""

    @abstractmethod
    def done(self, number: int) -> bool:
        """Whether a chunk is finished."""

    @abstractmethod
    def keep(self, number: int, answered: Answered) -> None:
        """A finished chunk.   Raises: OSError."""

    @abstractmethod
    def rows(self) -> Sequence[Row]:
        """Of all chunks, which are finished.   Raises: OSError."""

    @abstractmethod
    def finish(self, manifest: Manifest | None, rows: Sequence[Row]) -> None:
        """Leaves what is to be left; manifest: of a bundle, None where there are no certificates.   Raises: OSError."""


class Memory(Kept):
    """Rows in memory; certificates, which have been checked, are let go."""

    def __init__(self) -> None:
        self._rows: list[Row] = []

    def done(self, number: int) -> bool:
        """Every chunk is asked for once."""
        return False

    def keep(self, number: int, answered: Answered) -> None:
        """Its rows."""
        self._rows += answered.rows

    def rows(self) -> Sequence[Row]:
        """The list."""
        return self._rows

    def finish(self, manifest: Manifest | None, rows: Sequence[Row]) -> None:
        """There is nothing to be left."""


class Work(Kept):
    """In a folder, which in the end has results.jsonl and batch.zip instead."""

    def __init__(self, folder: Path, about: Mapping[str, Any]) -> None:
        """Begins or goes on.   Raises: InvalidFile if the folder has the work of another run; OSError."""
        self._out, self._folder = folder, folder / WORK
        self._chunks = -(-int(about["inputs"]) // int(about["chunk"]))
        path = self._folder / ABOUT
        self._folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with whole(path) as file:
                file.write(canonical(about))
        try:
            found = json.loads(path.read_bytes())
        except ValueError as error:
            raise InvalidFile(path, f"is broken: {error}; delete {self._folder} to begin again") from error
        wrong = [name for name, value in about.items() if not isinstance(found, dict) or found.get(name) != value]
        if wrong:
            reason = f"is the work of another batch, or of another version: it differs in {', '.join(wrong)}"
            raise InvalidFile(self._folder, f"{reason}; give another folder, or delete this one to begin again")

    def done(self, number: int) -> bool:
        """Whether a chunk is finished."""
        return self._path(number).exists()

    def keep(self, number: int, answered: Answered) -> None:
        """A finished chunk, on the disk when this returns, whole or not at all.   Raises: OSError."""
        with whole(self._path(number)) as file, zipfile.ZipFile(file, "w") as archive:
            for digest, data in answered.certificates.items():
                archive.writestr(f"certificates/{digest}.zip", data)
            archive.writestr(ROWS, b"".join(row.line() for row in answered.rows), zipfile.ZIP_DEFLATED)

    def rows(self) -> Rows:
        """Written to results.jsonl."""
        return write_rows(self._out / RESULTS, self._each())

    def finish(self, manifest: Manifest | None, rows: Sequence[Row]) -> None:
        """Writes batch.zip, or removes that of an earlier run; and removes the work."""
        if manifest is None:
            (self._out / BUNDLE).unlink(missing_ok=True)
        else:
            with whole(self._out / BUNDLE) as file:
                write_bundle(file, manifest, (row.leaf() for row in rows), self._certificates())
        shutil.rmtree(self._folder)

    def _each(self) -> Iterator[Row]:
        for number in range(self._chunks):
            with zipfile.ZipFile(self._path(number)) as archive:
                yield from map(Row.from_json, archive.read(ROWS).splitlines())

    def _certificates(self) -> Iterator[tuple[str, bytes]]:
        """Of all chunks, each digest once, with the zip."""
        known = set[str]()
        for number in range(self._chunks):
            with zipfile.ZipFile(self._path(number)) as archive:
                for name in archive.namelist():
                    match = CERTIFICATE.fullmatch(name)
                    if match and match[1] not in known:
                        known.add(match[1])
                        yield match[1], archive.read(name)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:05d}.zip"
