"""Names of inputs, as an .npz file has them: text, of so many characters, one an input."""

from __future__ import annotations

import io
import sys
import unicodedata
from collections.abc import Sequence
from math import prod
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from provenn.api.files import HEADERS, NO_HEADER, InvalidFile
from provenn.verifier.errors import ResourceLimit

NAME = 512
"""Characters of a name: those of a folder's and a file's together, with some more."""
BYTES = 1 << 27
"""Of all names of a file, each as long as the longest."""
UNREADABLE = ("Cc", "Cs", "Zl", "Zp")
"""Categories of characters that no name has: controls, halves of surrogate pairs, ends of lines."""


def decoded_names(path: Path, data: bytes) -> tuple[str, ...]:
    """The array of text [n] of an .npy file's bytes, the member `names` of an .npz file; nothing pickled is opened.

    Raises: InvalidFile for other arrays, and for names that are empty, too long, or hold what no name does;
    ResourceLimit by what the header declares.
    """
    stream = io.BytesIO(data)
    try:
        shape, _, dtype = HEADERS[npy.read_magic(stream)](stream)
    except NO_HEADER as error:
        raise InvalidFile(path, f"the array names is not a .npy array of text: {error}") from error
    if dtype.kind != "U" or len(shape) != 1:
        advice = "they are text [n], numpy.array of str, one an input; rename the array if it is something else"
        raise InvalidFile(path, f"its names have shape {list(shape)} of {dtype}; {advice}")
    there, needed = len(data) - stream.tell(), prod(shape) * dtype.itemsize
    require_bytes(path, needed)
    if there != needed or dtype.itemsize == 0:
        raise InvalidFile(
            path, f"the array names has {there} bytes where shape {list(shape)} of {dtype} needs {needed}"
        )
    if np.frombuffer(data, f"{dtype.byteorder}u4", offset=stream.tell()).max(initial=0) > sys.maxunicode:
        raise InvalidFile(path, "the array names holds what is no character")  # numpy would make a string of it
    names = np.ndarray(shape, dtype, data, stream.tell()).tolist()
    require_names(path, names)
    return tuple(names)


def require_bytes(path: Path, size: int) -> None:
    """Raises: ResourceLimit if the names of a file take too much; called before memory is taken for them."""
    if size > BYTES:
        raise ResourceLimit(f"{path}: the bytes of its names ({size})", f"{BYTES}; shorten the longest")


def require_names(path: Path, names: Sequence[str]) -> None:
    """Raises: InvalidFile naming the input whose name is empty, too long, or holds what no name does."""
    for index, name in enumerate(names):
        if not 0 < len(name) <= NAME:
            raise InvalidFile(path, f"the name of input {index} has {len(name)} characters; 1 to {NAME} are allowed")
        if not name.isprintable() and any(unicodedata.category(each) in UNREADABLE for each in name):
            raise InvalidFile(path, f"the name of input {index}, {name!a}, has characters that cannot be shown")
