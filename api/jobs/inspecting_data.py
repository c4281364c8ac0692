"""Reading a stranger's data in a sandbox, as networks are read: one format, so that one decoder has to be trusted.

Tables and images become that format where they are: `read_data` reads them, and `Client.upload_data` sends them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from provenn.api.batch.arrays import decoded_npz
from provenn.api.batch.canonical import packed
from provenn.api.batch.data import Data
from provenn.api.batch.numbers import floats
from provenn.api.files import InvalidFile
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspection import Refusal
from provenn.verifier.errors import InvalidSpecification


class InspectedData(BaseModel):
    """What a child says of a dataset; it is not believed before it has this form."""

    model_config = ConfigDict(extra="forbid", strict=True)

    count: int = Field(ge=1, lt=1 << 31)
    width: int = Field(ge=1, lt=1 << 31)
    classes: int = Field(ge=1, lt=1 << 31)

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """A child's answer.   Raises: InvalidSpecification if it is of another form."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise InvalidSpecification("the reader gave no sound answer about the data") from error


@dataclass(frozen=True)
class InspectData:
    """Reads an .npz upload and writes the canonical file. upload: to read; canonical: empty; name: for messages."""

    refusal: ClassVar[Refusal] = InvalidSpecification

    upload: Descriptor
    canonical: Descriptor
    name: str

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Both files."""
        return self.upload.number, self.canonical.number

    def run(self) -> dict[str, Any]:
        """The fields of `InspectedData`."""
        os.lseek(self.upload.number, 0, os.SEEK_SET)
        with open(self.upload.number, "rb", closefd=False) as file:
            data = received(file.read(), self.name)
        with open(self.canonical.number, "wb", closefd=False) as file:
            file.write(packed(data))
        count, width = data.inputs.shape
        return {"count": count, "width": width, "classes": max(data.labels) + 1}


def received(content: bytes, name: str) -> Data:
    """What an .npz file of this name holds.   Raises: InvalidSpecification, ResourceLimit."""
    try:
        return _read(content, Path(name))
    except InvalidFile as error:
        raise InvalidSpecification(str(error)) from error


def _read(content: bytes, path: Path) -> Data:
    found = decoded_npz(path, content)
    arrays, labels = found.inputs, found.labels
    if labels is None:
        raise InvalidFile(path, "holds no classes: add an array y with one of every input")
    if arrays.ndim < 2 or not arrays.size or len(labels) != len(arrays):
        shape = list(arrays.shape)
        raise InvalidFile(path, f"holds inputs {shape} and {len(labels)} classes; inputs are [n, ...], classes [n]")
    if min(labels) < 0:
        raise InvalidFile(path, f"has the class {min(labels)}; classes count from 0")
    inputs = floats(path, arrays.reshape(len(arrays), -1))
    return Data(inputs, tuple(labels), found.names or tuple(map(str, range(len(labels)))))
