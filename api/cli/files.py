"""Reading what the user names: networks, properties, arrays, labels. Every refusal names the file and the remedy."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import numpy as np

from provenn.verifier.errors import ProvennError, ResourceLimit

GZIP_MAGIC = b"\x1f\x8b"
UNPACKED_LIMIT = 4 << 30


class InvalidFile(ProvennError):
    """A file cannot be read, or does not hold what the option asks for: `path` says which."""

    def __init__(self, path: Path, message: str) -> None:
        self.path = str(path)
        super().__init__(f"{path}: {message}")


def read_file(path: Path) -> bytes:
    """The file's bytes, unpacked if it is gzip.

    Raises: InvalidFile if it is missing, unreadable, empty or broken; ResourceLimit if it unpacks to more than 4 GiB.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidFile(path, f"cannot be read: {error.strerror or error}") from error
    if not data:
        raise InvalidFile(path, "the file is empty (0 bytes)")
    return _unpacked(path, data) if data.startswith(GZIP_MAGIC) else data


def _unpacked(path: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            unpacked = stream.read(UNPACKED_LIMIT + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InvalidFile(path, f"is not a complete gzip file: {error}") from error
    if len(unpacked) > UNPACKED_LIMIT:
        raise ResourceLimit(f"unpacked size of {path}", "4 GiB")
    if not unpacked:
        raise InvalidFile(path, "the file is empty (0 bytes) once unpacked")
    return unpacked


def read_array(path: Path) -> np.ndarray:
    """A numeric .npy array.   Raises: InvalidFile for another format, another kind of values, nan or infinity."""
    data = read_file(path)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InvalidFile(path, f"is not a .npy array: {error}. Write it with numpy.save") from error
    if not isinstance(array, np.ndarray):
        raise InvalidFile(path, "holds several arrays; write one array with numpy.save")
    if array.dtype.kind not in "fiub":
        raise InvalidFile(path, f"has values of type {array.dtype}; numbers are needed")
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        raise InvalidFile(path, f"has the value {array[index]} at index {list(index)}; every value must be finite")
    return array


def read_inputs(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One input or a batch, as [n, inputs].

    The file holds [*shape], [n, *shape], [inputs] or [n, inputs].   Raises: InvalidFile for any other shape.
    """
    array = read_array(path)
    size = int(np.prod(shape))
    if array.shape in (shape, (size,)):
        return array.reshape(1, size)
    if array.shape[1:] in (shape, (size,)) and len(array) > 0:
        return array.reshape(len(array), size)
    one = list(shape)
    raise InvalidFile(
        path, f"has shape {list(array.shape)}, but the network takes {one}: give {one}, or [n, ...] of it for a batch"
    )


def read_labels(text: str, count: int) -> list[int]:
    """One class an input: a number, numbers separated by commas, or a .npy file.

    Raises: InvalidFile for a file of another shape; ValueError with the reason for anything else.
    """
    labels = _labels(text)
    if len(labels) != count:
        raise ValueError(f"{len(labels)} labels for {count} inputs; give one label an input")
    return labels


def _labels(text: str) -> list[int]:
    if not text.endswith(".npy"):
        try:
            return [int(part) for part in text.split(",")]
        except ValueError:
            raise ValueError(f"'{text}' is neither a class number, nor numbers with commas, nor a .npy file") from None
    array = read_array(Path(text))
    if array.dtype.kind not in "iu" or array.ndim > 1:
        raise InvalidFile(Path(text), f"has shape {list(array.shape)} of {array.dtype}; labels are integers [n]")
    return [int(label) for label in array.reshape(-1)]
