"""The stored tensors of a .pt2 file: raw bytes, and a JSON file that says how they are laid out."""

from __future__ import annotations

from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from provenn.models import strided
from provenn.models.pt2 import fields
from provenn.models.pt2.archive import ADVICE, CONFIGURATIONS, Archive
from provenn.models.pt2.program import Meta, meta
from provenn.verifier.errors import InvalidModel

TYPES: dict[int, np.dtype[Any]] = {
    4: np.dtype("<i4"),
    5: np.dtype("<i8"),
    7: np.dtype("<f4"),
    8: np.dtype("<f8"),
}
"""By torch's number (ScalarType of the schema): the types that are read."""

WIDTHS = {1: 1, 2: 1, 3: 2, 6: 2, 12: 1, 13: 2, **{number: kind.itemsize for number, kind in TYPES.items()}}
NAMES = {4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64", 12: "bool", 13: "bfloat16"}


class Payload:
    """The tensors of one folder, by name, every entry checked against the bytes that are there."""

    def __init__(self, archive: Archive, folder: str) -> None:
        self._archive, self._folder = archive, folder
        name = CONFIGURATIONS[folder]
        config = fields.members(fields.parsed(archive.text(name), name), name, {"config"})["config"]
        self._entries = {n: self._entry(n, v) for n, v in fields.mapping(config, name).items()}
        self._read = cache(archive.read)

    def _entry(self, name: str, value: Any) -> tuple[str, Meta]:
        """(path, layout) of a tensor.   Raises: InvalidModel unless its shape is exactly the bytes that are stored."""
        what = f"stored tensor {fields.shown(name)}"
        found = fields.members(value, what, {"path_name", "is_param", "use_pickle", "tensor_meta"})
        if fields.flag(found["use_pickle"], f"{what}: use_pickle"):
            raise InvalidModel(f"{what} has use_pickle true: a pickle can run code and is never opened; {ADVICE}")
        fields.flag(found["is_param"], f"{what}: is_param")
        path = self._folder + fields.text(found["path_name"], f"{what}: path_name")
        layout = meta(found["tensor_meta"], what, None)
        if path not in self._archive.members or path == CONFIGURATIONS[self._folder]:
            raise InvalidModel(f"{what}: its file {fields.shown(path)} is not in the archive")
        if layout.type not in WIDTHS:
            raise InvalidModel(f"{what} has dtype {layout.type} of torch, which is not read; call module.float()")
        shape = _fixed(layout)
        expected, stored = prod(shape) * WIDTHS[layout.type], self._archive.members[path].file_size
        if layout.offset or expected != stored or not strided.is_dense(shape, layout.strides):
            raise InvalidModel(
                f"{what} of shape {_short(shape)} (strides {_short(layout.strides)}, storage_offset {layout.offset}) "
                f"needs {expected} bytes of its own, {stored} are stored: a view of another tensor is not read; "
                f"call .clone() on it before export, or {ADVICE}"
            )
        return path, layout

    def meta(self, name: str) -> Meta:
        """How a tensor is laid out.   Raises: InvalidModel if there is none of this name."""
        if name not in self._entries:
            raise InvalidModel(f"the stored tensor {fields.shown(name)} is not in {CONFIGURATIONS[self._folder]}")
        return self._entries[name][1]

    def tensor(self, name: str) -> NDArray[Any]:
        """The numbers of a tensor.   Raises: InvalidModel if they are of a type that is not read."""
        layout, path = self.meta(name), self._entries[name][0]
        if layout.type not in TYPES:
            kind = NAMES.get(layout.type, f"type {layout.type} of torch")
            raise InvalidModel(f"the stored tensor {fields.shown(name)} is {kind}; call module.float() before export")
        found = strided.dense(np.frombuffer(self._read(path), TYPES[layout.type]), _fixed(layout), layout.strides)
        if found is None:
            raise InvalidModel(f"the file of the stored tensor {fields.shown(name)} is shorter than the archive says")
        return found


def _fixed(layout: Meta) -> tuple[int, ...]:
    return tuple(n for n in layout.shape if isinstance(n, int))


def _short(numbers: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, numbers[:8]))}{', ..' if len(numbers) > 8 else ''}]"
