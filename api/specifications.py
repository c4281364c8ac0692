"""A specification file beside a network: read, resolved, its errors and its neighbours named by their paths."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from provenn.api.files import read_file
from provenn.models.specification import Files
from provenn.models.specification.documents import MONOTONE, document_of, no_files, resolve
from provenn.models.specification.fields import as_json
from provenn.models.specification.monotone import Monotone, asked
from provenn.models.specification.stated import Stated
from provenn.verifier.errors import InvalidSpecification, ProvennError, in_file
from provenn.verifier.spec_json import FORMAT
from provenn.verifier.spec_reader import gunzipped

LONGEST = 1000
"""Characters of a name of a file."""


def beside(path: Path) -> Files:
    """Files that a document names are relative to it."""
    return lambda name: read_file(path.parent / name)


def read_property(path: Path, model: bytes) -> Stated | Monotone:
    """What a specification file says of a network.

    Raises: InvalidFile, InvalidSpecification, ResourceLimit, all naming the file; BackendError; InvalidModel,
    UnsupportedOp where the document composes the network with others.
    """
    data = read_file(path)
    try:
        return resolve(data, model, beside(path))
    except ProvennError as error:
        raise in_file(path, error) from None


def given_property(specification: str | Path | bytes | Mapping[str, Any], model: bytes) -> Stated | Monotone:
    """The same of a file, its bytes, or a document as an object, which refers to no files.   Raises: likewise."""
    if isinstance(specification, bytes):
        return resolve(specification, model)
    if isinstance(specification, Mapping):
        return resolve(as_json(specification), model)
    return read_property(Path(specification), model)


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
    return {name: path.parent / name for name in names if (path.parent / name).is_file()}


def _texts(value: object) -> Iterator[str]:
    """Those in it that may be names of files."""
    if isinstance(value, str) and 0 < len(value) < LONGEST and "\0" not in value:
        yield value
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _texts(part)


@dataclass(frozen=True)
class Claimed:
    """model: the ONNX file that a certificate has to be about; text: and the specification; words: of a document."""

    model: bytes
    text: bytes | None = None
    words: str = ""


def claimed(data: bytes, model: bytes, files: Files = no_files) -> Claimed:
    """What a certificate of a specification of a network has to be about.

    Of VNN-LIB, and of those kinds that the checker reads, the given ones; a document is resolved again, and the network
    composed again where it composes one.   Raises: as `resolve`; InvalidSpecification for kind monotone.
    """
    text = gunzipped(data)
    if FORMAT.encode() not in text or document_of(text) is None:
        return Claimed(model, data)
    found = resolve(data, model, files)
    if isinstance(found, Monotone):
        raise InvalidSpecification("a certificate of kind monotone is about derivatives: check it without the document")
    return Claimed(found.model, found.specification.text, found.words)
