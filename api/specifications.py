"""A specification file beside a network: read, resolved, its errors and its neighbours named by their paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenn.api.files import read_file
from provenn.models.specification import Files
from provenn.models.specification.documents import MONOTONE, document_of, no_files, require_meaning, resolve
from provenn.models.specification.fields import as_json, shown
from provenn.models.specification.monotone import Monotone, asked
from provenn.models.specification.stated import Stated
from provenn.verifier.check import CertificateRejected, Report, check
from provenn.verifier.errors import InvalidSpecification, ProvennError, in_file
from provenn.verifier.spec_json import FORMAT
from provenn.verifier.spec_reader import gunzipped

LONGEST = 1000
"""Names of files have fewer characters: what `neighbours` takes for none, `beside` must not read."""


def beside(path: Path) -> Files:
    """Files that a document names are relative to it."""

    def content(name: str) -> bytes:
        if not _names(name):
            raise InvalidSpecification(f"{shown(name)} is no name of a file: it has 1 to {LONGEST - 1} characters")
        return read_file(path.parent / name)

    return content


def read_property(path: Path, model: bytes, semantics: str = "real") -> Stated | Monotone:
    """What a specification file says of a network; semantics: of what it is to be proved.

    Raises: InvalidFile, InvalidSpecification, ResourceLimit, all naming the file; BackendError; InvalidModel,
    UnsupportedOp where the document composes the network with others.
    """
    data = read_file(path)
    try:
        return resolve(data, model, beside(path), semantics)
    except ProvennError as error:
        raise in_file(path, error) from None


def given_property(
    specification: str | Path | bytes | Mapping[str, Any], model: bytes, semantics: str = "real"
) -> Stated | Monotone:
    """The same of a file, its bytes, or a document as an object, which refers to no files.   Raises: likewise."""
    if isinstance(specification, bytes):
        return resolve(specification, model, semantics=semantics)
    if isinstance(specification, Mapping):
        return resolve(as_json(specification), model, semantics=semantics)
    return read_property(Path(specification), model, semantics)


def monotone_in(path: Path) -> Monotone | None:
    """The question in a file, if it is a document of kind monotone.

    Raises: InvalidFile, InvalidSpecification, ResourceLimit, all naming the file.
    """
    data = read_file(path)
    try:
        document = document_of(gunzipped(data))
        return None if document is None or document["kind"] != MONOTONE else asked(document, beside(path))
    except ProvennError as error:
        raise in_file(path, error) from None


def neighbours(path: Path) -> dict[str, Path]:
    """Files beside a document of which it has the names, by these: what it says depends on them.

    Raises: InvalidFile, InvalidSpecification, ResourceLimit, all naming the file.
    """
    data = read_file(path)
    try:
        document = document_of(gunzipped(data))
    except ProvennError as error:
        raise in_file(path, error) from None
    names = [] if document is None else list(_texts(document))
    return {name: path.parent / name for name in names if _is_file(path.parent / name)}


def _texts(value: object) -> Iterator[str]:
    """Those in it that may be names of files."""
    if isinstance(value, str) and _names(value):
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


def _is_file(path: Path) -> bool:
    """Not one whose name is longer than the system has them."""
    try:
        return path.is_file()
    except OSError:
        return False


def _names(text: str) -> bool:
    """Whether it may be the name of a file."""
    return 0 < len(text) < LONGEST and "\0" not in text


@dataclass(frozen=True)
class Claimed:
    """What a certificate has to be about. model: the ONNX file; text: the specification; words, kind: of a document."""

    model: bytes
    text: bytes | None = None
    words: str = ""
    kind: str = ""

    def checked(self, certificate: Mapping[str, bytes]) -> Report:
        """Re-proves every claim of a certificate of this, in semantics in which the kind has a meaning.

        Raises: CertificateRejected.
        """
        report = check(certificate, self.model, self.text)
        try:
            require_meaning(self.kind, report.semantics)
        except InvalidSpecification as error:
            raise CertificateRejected("manifest", str(error)) from None
        return report


def claimed(data: bytes, model: bytes, files: Files = no_files) -> Claimed:
    """What a certificate of a specification of a network has to be about.

    Of VNN-LIB, and of those kinds that the checker reads, the given ones; a document is resolved again, and the network
    composed again where it composes one.   Raises: as `resolve`; InvalidSpecification for kind monotone.
    """
    text = gunzipped(data)
    document = document_of(text) if FORMAT.encode() in text else None
    if document is None:
        return Claimed(model, data)
    found = resolve(data, model, files)
    if isinstance(found, Monotone):
        raise InvalidSpecification("a certificate of kind monotone is about derivatives: check it without the document")
    return Claimed(found.model, found.specification.text, found.words, document["kind"])
