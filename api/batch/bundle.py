"""One file a batch: what was asked, every row, every certificate, and the Merkle root that holds them together.

    batch.json                 the manifest, provenn-batch/2: model, data, question, number of rows, root
    rows.jsonl                 the leaves, a line each: canonical JSON of every row, all radii of an input together
    certificates/SHA256.zip    what the rows name
    item.json                  only where one row has been taken out: its number, and its audit path to the root
    attestation.json           only where somebody has signed it (signing_batch.py); nothing here rests on it

Only the manifest is needed to know which rows belong together, and only a row, its path and its certificate to check
that one of them does.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, BinaryIO

from provenn.api.batch.merkle import audit_path, bound, leaf_hash
from provenn.api.batch.question import Question
from provenn.api.batch.rows import canonical
from provenn.api.signing_bundle import attach
from provenn.verifier.certificate.bundle import EPOCH
from provenn.verifier.check import CertificateRejected
from provenn.verifier.check.claims import ATTESTATION
from provenn.verifier.errors import InvalidSpecification

FORMAT = "provenn-batch/2"
MANIFEST, ROWS, ITEM = "batch.json", "rows.jsonl", "item.json"
SIGNED = (ATTESTATION, MANIFEST)
"""What a signature is judged by."""
CERTIFICATE = re.compile(r"certificates/([0-9a-f]{64})\.zip", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

ENCRYPTED = 1
"""The flag of a file in a zip that needs a password."""

BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError, OSError)
"""What reading a zip file that is damaged raises: it may send the reader to a place before the file, have names that
are no text, or need a password or a method that is not there."""

SMALL, LINE, CERTIFICATE_BYTES = 1 << 20, 1 << 26, 1 << 30
"""Limits: bytes of the manifest and of an item's path, of a row, of a certificate."""


@dataclass(frozen=True)
class Manifest:
    """What a batch is about: model and data by their digests, the question, how many inputs and rows, the root.

    semantics: what certificates hold in; produced_by: versions by name, outside of what is claimed.
    root: over what is claimed here and the rows (`over`): whoever knows it knows everything but the versions.
    """

    model_sha256: str
    data_sha256: str
    question: Question
    semantics: str
    inputs: int
    rows: int
    produced_by: Mapping[str, str]
    root: str = ""

    def over(self, rows: bytes) -> Manifest:
        """The same with the root that binds its claims to rows whose own root this is."""
        return replace(self, root=bound(canonical(self._claims()), rows).hex())

    def text(self) -> bytes:
        """Canonical JSON."""
        return canonical(self._claims() | {"root": self.root, "produced_by": dict(self.produced_by)})

    def _claims(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "model": {"sha256_file": self.model_sha256},
            "data": {"sha256": self.data_sha256},
            "question": self.question.as_json(),
            "semantics": self.semantics,
            "inputs": self.inputs,
            "rows": self.rows,
        }

    @classmethod
    def read(cls, text: bytes) -> Manifest:
        """What `text` wrote.   Raises: CertificateRejected for anything else."""
        try:
            content = json.loads(text)
            question = Question.from_json(content["question"])
            digests = [content["model"]["sha256_file"], content["data"]["sha256"], content["root"]]
            made = content["produced_by"]
            inputs, rows = sizes = [content["inputs"], content["rows"]]
            known = all(isinstance(d, str) and DIGEST.fullmatch(d) for d in digests)
            known = known and all(type(size) is int and size > 0 for size in sizes)
            known = known and content["semantics"] in ("real", "float32")
            found = cls(digests[0], digests[1], question, content["semantics"], inputs, rows, made, digests[2])
            known = known and all(isinstance(word, str) for pair in made.items() for word in pair)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, InvalidSpecification) as error:
            raise CertificateRejected("batch", f"its {MANIFEST} is not one of {FORMAT}: {error}") from error
        if not known or found.text() != text:
            raise CertificateRejected("batch", f"its {MANIFEST} is not one of {FORMAT}, or not canonical")
        return found


class Bundle:
    """An open bundle; whoever wrote it is not believed."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        entries = archive.infolist()
        names = {entry.filename for entry in entries}
        self.certificates = {match[1] for name in names if (match := CERTIFICATE.fullmatch(name))}
        known = {MANIFEST, ROWS, ITEM, ATTESTATION} | {f"certificates/{digest}.zip" for digest in self.certificates}
        plain = {entry.compress_type for entry in entries} <= {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
        plain = plain and not any(entry.flag_bits & ENCRYPTED for entry in entries)
        if len(names) < len(entries) or names - known or not {MANIFEST, ROWS} <= names or not plain:
            raise CertificateRejected("batch", f"it holds other files than {MANIFEST}, {ROWS} and certificates")
        self.manifest = Manifest.read(self._small(MANIFEST))
        self.item = self._item() if ITEM in names else None

    def signed(self) -> dict[str, bytes]:
        """The attestation, if there is one, and the manifest that it is about.   Raises: CertificateRejected."""
        with _reading():
            return {name: self._small(name) for name in SIGNED if name in self._archive.namelist()}

    def leaves(self) -> Iterator[bytes]:
        """The lines of the rows, without their ends.

        Raises: CertificateRejected if one is too long, or if there are more or fewer than the manifest says.
        """
        left = self.manifest.rows if self.item is None else 1
        with _reading(), self._archive.open(ROWS) as file:
            while line := file.readline(LINE):
                left -= 1
                if left < 0 or not line.endswith(b"\n"):
                    raise CertificateRejected("batch", f"{ROWS} has too many lines, or one that is too long or cut off")
                yield line[:-1]
        if left:
            raise CertificateRejected("batch", f"{ROWS} lacks {left} lines")

    def certificate(self, digest: str) -> bytes:
        """The zip of this digest, as it is here.   Raises: CertificateRejected if it is not here, or too large."""
        if digest not in self.certificates:
            raise CertificateRejected("batch", f"it lacks certificate {digest}")
        entry = self._archive.getinfo(f"certificates/{digest}.zip")
        if entry.file_size > CERTIFICATE_BYTES:
            raise CertificateRejected("batch", f"certificate {digest} is too large")
        with _reading():
            return self._archive.read(entry)

    def _item(self) -> tuple[int, list[bytes]]:
        """The number of the one row, and its audit path."""
        text = self._small(ITEM)
        try:
            content = json.loads(text)
            index, path = content["row"], [bytes.fromhex(node) for node in content["path"]]
            if type(index) is int and item_text(index, path) == text:
                return index, path
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise CertificateRejected("batch", f"its {ITEM} is broken: {error}") from error
        raise CertificateRejected("batch", f"its {ITEM} is broken")

    def _small(self, name: str) -> bytes:
        entry = self._archive.getinfo(name)
        if entry.file_size > SMALL:
            raise CertificateRejected("batch", f"its {name} is too large")
        return self._archive.read(entry)


@contextmanager
def opened(source: Path | BinaryIO) -> Iterator[Bundle]:
    """A bundle, while it is read.   Raises: CertificateRejected if it is none; OSError if it cannot be opened."""
    with source.open("rb") if isinstance(source, Path) else nullcontext(source) as file:
        with _reading():
            archive = zipfile.ZipFile(file)
        with archive:
            with _reading():
                bundle = Bundle(archive)
            yield bundle


@contextmanager
def _reading() -> Iterator[None]:
    """While bytes of the zip are read.   Raises: CertificateRejected for what a damaged one raises."""
    try:
        yield
    except BROKEN as error:
        raise CertificateRejected("batch", f"it is not a zip file that is read here: {error}") from error


def is_batch(path: Path) -> bool:
    """Whether a file is a zip with a batch's manifest in it."""
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except BROKEN:
        return False


def write_bundle(
    file: IO[bytes], manifest: Manifest, leaves: Iterable[bytes], certificates: Iterable[tuple[str, bytes]]
) -> None:
    """Writes the same bytes for the same batch; certificates: (digest, zip) pairs, each digest once."""
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_entry(MANIFEST), manifest.text())
        with archive.open(_entry(ROWS), "w", force_zip64=True) as rows:
            for leaf in leaves:
                rows.write(leaf + b"\n")
        for digest, data in certificates:
            archive.writestr(_entry(f"certificates/{digest}.zip", packed=True), data)


def batch_item(source: Path | BinaryIO, row: int) -> bytes:
    """A bundle of one row alone, with its path to the root of the whole: it is checked without the others.

    What a signature of the whole says is about the manifest, which is the same: it stays.
    Raises: IndexError if there is no such row; CertificateRejected if the bundle is none of a whole batch.
    """
    with opened(source) as bundle:
        if bundle.item is not None:
            raise CertificateRejected("batch", "it holds one row alone already")
        hashes, leaf = [], b""
        for number, each in enumerate(bundle.leaves()):
            hashes.append(leaf_hash(each))
            leaf = each if number == row else leaf
        proof = audit_path(hashes, row)
        digest = json.loads(leaf).get("certificate")
        found = [] if digest is None else [(digest, bundle.certificate(digest))]
        file = io.BytesIO()
        write_bundle(file, bundle.manifest, [leaf], found)
        attestation = bundle.signed().get(ATTESTATION)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr(_entry(ITEM), item_text(row, proof))
    return file.getvalue() if attestation is None else attach(file.getvalue(), attestation)


def item_text(index: int, path: Iterable[bytes]) -> bytes:
    """Canonical JSON of a row's number and its audit path."""
    return canonical({"row": index, "path": [node.hex() for node in path]})


def _entry(name: str, packed: bool = False) -> zipfile.ZipInfo:
    """packed: what is a zip file already is stored."""
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    return entry
