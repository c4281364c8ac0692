"""Reading what the user names: networks, properties, arrays, labels. Every refusal names the file and the remedy."""

from __future__ import annotations

import gzip
import io
import tokenize
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy

from provenn.verifier.errors import ProvennError, ResourceLimit

GZIP_MAGIC = b"\x1f\x8b"
UNPACKED_LIMIT = 4 << 30
HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
"""Of the versions of the .npy format that hold plain numbers."""
NO_HEADER = (ValueError, KeyError, EOFError, OSError, SyntaxError, RecursionError, tokenize.TokenError)
"""What numpy raises for a header that is none: it has Python read some of them."""


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
    if data.startswith(b"PK"):
        raise InvalidFile(path, "holds several arrays; write one array with numpy.save")
    return decoded_array(path, data)


def decoded_array(path: Path, data: bytes, what: str = "") -> np.ndarray:
    """The array of a .npy file's bytes, which are the file or its part `what`; nothing pickled is opened.

    The header is believed only where the bytes that follow are as many as it says: no memory is taken on its word.
    Raises: InvalidFile for another format, another kind of values, nan or infinity, missing bytes.
    """
    stream = io.BytesIO(data)
    try:
        shape, fortran, dtype = HEADERS[npy.read_magic(stream)](stream)
    except NO_HEADER as error:
        raise InvalidFile(path, f"{what}is not a .npy array of numbers: {error}. Write it with numpy.save") from error
    if dtype.hasobject:
        advice = "write numbers with numpy.save"
        raise InvalidFile(path, f"{what}is not a .npy array of numbers, but of pickled objects, never opened; {advice}")
    if dtype.kind not in "fiub" or dtype.itemsize > 8:
        raise InvalidFile(path, f"{what}has values of type {dtype}; numbers are needed")
    there, needed = len(data) - stream.tell(), prod(shape) * dtype.itemsize
    if there != needed or min(shape, default=0) < 0:
        raise InvalidFile(path, f"{what}has {there} bytes where shape {list(shape)} of {dtype} needs {needed}")
    order: Any = "F" if fortran else "C"
    array = np.ndarray(shape, dtype, data, stream.tell(), order=order).copy()
    if not np.isfinite(array).all():
        index = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        found = f"the value {array[index]} at index {list(index)}"
        raise InvalidFile(path, f"{what}has {found}; every value must be finite")
    return array


def read_inputs(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    """One input or a batch, as [n, inputs].

    The file holds [*shape], [n, *shape], [inputs] or [n, inputs].   Raises: InvalidFile for any other shape.
    """
    return as_inputs(path, read_array(path), shape)


def as_inputs(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array [*shape], [n, *shape], [inputs] or [n, inputs] as [n, inputs].   Raises: InvalidFile for another."""
    size = prod(shape)
    if array.shape in (shape, (size,)):
        return array.reshape(1, size)
    if array.shape[1:] in (shape, (size,)) and len(array) > 0:
        return array.reshape(len(array), size)
    one = list(shape)
    advice = f"give {one}, or [n, ...] of it for a batch"
    if len(shape) == 3 and array.shape[-3:] == (*shape[1:], shape[0]):
        advice = "its channels come last: move them first, or declare layout hwc in the network's preprocessing"
    raise InvalidFile(path, f"has shape {list(array.shape)}, but the network takes {one}: {advice}")


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
