"""Inputs, classes and names out of an .npz file, as numpy.savez writes them."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from provenn.api.batch import names as texts
from provenn.api.batch.numbers import require_numbers
from provenn.api.files import InvalidFile, as_inputs, decoded_array, read_file

INPUTS, LABELS, NAMES = ("x", "inputs", "images"), ("y", "labels"), "names"
HEADER = 1 << 16
"""Bytes that an .npy file may have before its numbers."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """inputs: [n, ...]; labels, names: of each, None where there is no such array."""

    inputs: np.ndarray
    labels: list[int] | None
    names: tuple[str, ...] | None


def read_npz(path: Path, shape: tuple[int, ...]) -> Arrays:
    """The arrays x (or inputs, images), as [n, inputs], y (or labels) and names.

    Other arrays are not opened.   Raises: InvalidFile; ResourceLimit by the sizes that the archive declares, beyond
    which nothing is unpacked.
    """
    found = decoded_npz(path, read_file(path))
    return replace(found, inputs=batch(path, found.inputs, shape))


def decoded_npz(path: Path, data: bytes) -> Arrays:
    """The same of a file's bytes, the inputs in the shape that they have there."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            inputs = _array(path, archive, _member(path, archive, INPUTS))
            named = [name for name in LABELS if f"{name}.npy" in archive.namelist()]
            labels = _array(path, archive, _member(path, archive, LABELS)) if named else None
            names = _names(path, archive) if f"{NAMES}.npy" in archive.namelist() else None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        raise InvalidFile(path, f"is not a complete .npz file: {error}. Write it with numpy.savez") from error
    if names is not None and len(names) != (inputs.shape or (1,))[0]:
        advice = "names are one an input; rename the array if it is something else"
        raise InvalidFile(path, f"holds inputs {list(inputs.shape)} and {len(names)} names; {advice}")
    return Arrays(inputs, None if labels is None else _whole(path, labels), names)


def batch(path: Path, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """As `as_inputs`; axes of length 1 may be more or less, and a flat network takes every shape of as many numbers.

    Raises: InvalidFile; ResourceLimit.
    """
    require_numbers(path, array.size)
    own = array.shape[1:]
    alike = [n for n in own if n != 1] == [n for n in shape if n != 1] or len(shape) == 1
    if len(array.shape) > 1 and len(array) and alike and prod(own) == prod(shape):
        return array.reshape(len(array), -1)
    return as_inputs(path, array, shape)


def _member(path: Path, archive: zipfile.ZipFile, names: tuple[str, ...]) -> str:
    """The one array of these names."""
    there = [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]
    found = [name for name in names if name in there]
    if len(found) != 1:
        held = ", ".join(there[:10]) or "none"
        raise InvalidFile(path, f"must hold one array named {' or '.join(names)}; it holds {held}")
    if there.count(found[0]) > 1:
        raise InvalidFile(path, f"holds the array {found[0]} twice; write the file anew with numpy.savez")
    return found[0]


def _array(path: Path, archive: zipfile.ZipFile, name: str) -> np.ndarray:
    member = archive.getinfo(f"{name}.npy")
    require_numbers(path, (member.file_size - HEADER) // 8)  # zipfile unpacks no more than is declared
    return decoded_array(path, archive.read(member), f"the array {name} ")


def _names(path: Path, archive: zipfile.ZipFile) -> tuple[str, ...]:
    member = archive.getinfo(f"{_member(path, archive, (NAMES,))}.npy")
    texts.require_bytes(path, member.file_size - HEADER)
    return texts.decoded_names(path, archive.read(member))


def _whole(path: Path, labels: np.ndarray) -> list[int]:
    """The classes [n] or [n, 1]."""
    if labels.dtype.kind not in "iu" or labels.size != (labels.shape or (1,))[0]:
        advice = "classes are integers [n]"
        if labels.ndim == 2:
            advice += "; of one row a class they are labels.argmax(axis=1)"
        raise InvalidFile(path, f"its classes have shape {list(labels.shape)} of {labels.dtype}; {advice}")
    return [int(label) for label in labels.reshape(-1)]
