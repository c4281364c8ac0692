"""What is measured of a model: the questions that checks ask, several of them perhaps the same one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from provenn.api.files import InvalidFile
from provenn.api.gate.config import Norm, Preprocessing
from provenn.api.specifications import neighbours


@dataclass(frozen=True)
class Network:
    """A model's file and what is put before it."""

    file: Path
    preprocessing: Preprocessing | None = None


@dataclass(frozen=True)
class Sample:
    """A data file, or a folder of images, and its labels if those are elsewhere."""

    data: Path
    labels: str | None = None


@dataclass(frozen=True)
class Robustness:
    """Which inputs are classified rightly, and which certainly so within each radius, exactly as written."""

    network: Network
    sample: Sample
    norm: Norm = "inf"
    radii: tuple[str, ...] = ()
    clip: tuple[float, float] | None = None


@dataclass(frozen=True)
class Constant:
    """The Lipschitz constant of rows of outputs, everywhere."""

    network: Network
    norm: Norm = "2"
    to: Norm | Literal["each"] | None = None
    rows: str = "all"


@dataclass(frozen=True)
class Trend:
    """Whether rows of outputs only rise (increasing) or only fall with features, over a domain.

    document: whether `domain` is a specification document of kind monotone, which says all of this itself.
    """

    network: Network
    features: tuple[str, ...]
    domain: Path
    expect: str
    rows: str = "all"
    document: bool = False


@dataclass(frozen=True)
class Property:
    """Whether the property in a file holds: VNN-LIB, or a document of a kind that is about cases."""

    network: Network
    file: Path


@dataclass(frozen=True)
class Difference:
    """Whether every output differs by less than delta from another network's, over a box or around every input."""

    network: Network
    other: Path
    delta: str
    box: tuple[float, float] | None = None
    sample: Sample | None = None
    radius: str | None = None
    clip: tuple[float, float] | None = None


Question = Robustness | Constant | Trend | Property | Difference


def digest(question: Question, about: dict[str, Any]) -> str:
    """SHA-256 of the question with every file in it by its content, and of what else the answer depends on.

    Raises: InvalidFile if a file cannot be read.
    """
    said = {"kind": type(question).__name__, "asked": _contents(question), "about": about}
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _contents(question: Question) -> dict[str, Any]:
    asked = asdict(question)
    network: Network = question.network
    asked["network"] = {"file": file_digest(network.file), "preprocessing": _tabled(network.preprocessing)}
    for name, value in asked.items():
        if isinstance(value, Path):
            asked[name] = file_digest(value)
    if isinstance(question, Property) or (isinstance(question, Trend) and question.document):
        path = question.file if isinstance(question, Property) else question.domain
        asked["beside"] = {name: file_digest(other) for name, other in neighbours(path).items()}
    sample: Sample | None = getattr(question, "sample", None)
    if sample is not None:
        asked["sample"] = sample_digest(sample)
    return asked


def sample_digest(sample: Sample) -> str:
    """SHA-256 of the inputs' file and of the labels.   Raises: InvalidFile."""
    labels = sample.labels
    if labels is not None and labels.endswith(".npy"):
        labels = file_digest(Path(labels))
    return hashlib.sha256(json.dumps([file_digest(sample.data), labels]).encode()).hexdigest()


def _tabled(preprocessing: Preprocessing | None) -> dict[str, Any] | None:
    return None if preprocessing is None else preprocessing.model_dump()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or of what is in a folder of images.   Raises: InvalidFile."""
    try:
        if path.is_dir():
            return hashlib.sha256(json.dumps(list(_entries(path))).encode()).hexdigest()
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error


def _entries(path: Path) -> Iterator[tuple[str, str | None]]:
    """(name, digest) of everything in folder/CLASS/NAME, in order; a name alone of what is no file.

    Links are followed, as the reader of images does, and a class without images moves the numbers of those after it.
    What lies deeper is not read, so links in circles are harmless.   Raises: OSError.
    """
    for place, folders, names in os.walk(path, followlinks=True, onerror=_raise):
        here = Path(place)
        for entry in sorted(here / name for name in (*folders, *names)):
            yield entry.relative_to(path).as_posix(), file_digest(entry) if entry.is_file() else None
        if here != path:
            folders.clear()
        folders.sort()


def _raise(error: OSError) -> None:
    raise error
