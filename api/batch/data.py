"""Inputs with their classes, out of the files that people keep them in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from provenn.api.batch.arrays import Arrays, batch, read_npz
from provenn.api.batch.images import read_images
from provenn.api.batch.numbers import Array, floats
from provenn.api.batch.parquet import read_parquet
from provenn.api.batch.tables import read_csv
from provenn.api.files import InvalidFile, read_array, read_labels

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")


@dataclass(frozen=True, eq=False)
class Data:
    """inputs [n, inputs], float32 or float64, in the user's units; the class of each; a name of each, for reports."""

    inputs: Array
    labels: tuple[int, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        """How many inputs."""
        return len(self.labels)

    def part(self, first: int, last: int) -> Data:
        """The inputs first, .., last - 1."""
        return Data(self.inputs[first:last], self.labels[first:last], self.names[first:last])


def read_data(path: Path, shape: tuple[int, ...], labels: str | None = None) -> Data:
    """The inputs, of `shape` each, of an .npz, .npy, .csv or .parquet file, or of a folder of images.

    labels: the classes (as `read_labels` takes them) of a file that holds none.
    Every number is kept exactly as the file has it; nothing pickled is opened.   Format: docs/data.md.
    Raises: InvalidFile, naming the file, what was expected and what to do; ResourceLimit for too many numbers.
    """
    if path.is_dir():
        inputs, classes, files = read_images(path, shape)
        return _joined(path, inputs, _classes(path, classes, labels, len(inputs)), files)
    found = _read(path, shape, labelled=labels is None)
    count = len(found.inputs)
    names = found.names or tuple(map(str, range(count)))
    return _joined(path, found.inputs, _classes(path, found.labels, labels, count), names)


def _read(path: Path, shape: tuple[int, ...], labelled: bool) -> Arrays:
    """What the file holds, the inputs as [n, inputs]."""
    match Path(path.name.lower().removesuffix(".gz")).suffix:
        case ".npz":
            return read_npz(path, shape)
        case ".npy":
            return Arrays(batch(path, read_array(path), shape), None, None)
        case ".csv":
            return Arrays(*read_csv(path, shape, labelled), None)
        case ".parquet":
            return Arrays(*read_parquet(path, shape), None)
    known = ", ".join(SUFFIXES)
    raise InvalidFile(path, f"is no data file: give one that ends in {known}, or a folder with a folder a class")


def _classes(path: Path, found: Sequence[int] | None, labels: str | None, count: int) -> Sequence[int]:
    """The classes, from the one place where they are."""
    if found is not None and labels is not None:
        raise InvalidFile(path, "has the class of every input in it; leave the labels out")
    if found is not None:
        return found
    if labels is None:
        raise InvalidFile(path, "holds no classes: give labels (a .npy file, or numbers separated by commas)")
    try:
        return read_labels(labels, count)
    except ValueError as error:
        raise InvalidFile(path, f"its labels: {error}") from error


def _joined(path: Path, inputs: Array, labels: Sequence[int], names: Sequence[str]) -> Data:
    if len(labels) != len(inputs):
        raise InvalidFile(path, f"holds {len(inputs)} inputs and {len(labels)} classes; there is one class an input")
    negative = next((i for i, label in enumerate(labels) if label < 0), None)
    if negative is not None:
        raise InvalidFile(path, f"the class of input {negative} is {labels[negative]}; classes count from 0")
    return Data(floats(path, inputs), tuple(labels), tuple(names))
