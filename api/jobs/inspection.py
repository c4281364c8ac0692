"""Short tasks in a sandbox: reading a stranger's network, specification or question, to refuse it at the door.

The child has no rights but its pipe and, of a model, two open files: the upload to read, and an empty one to write.
What it reads with is imported there, and has been before it was born (`preload`): the server needs none of it.
"""

from __future__ import annotations

import json
import mmap
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from provenn.api import problems
from provenn.api.jobs.child import Descriptor, Reporter
from provenn.api.schemas import JobRequest, Layer
from provenn.models.limits import Limits
from provenn.models.sandbox import Confinement, enter
from provenn.verifier.errors import InvalidModel, InvalidSpecification, ResourceLimit

Refusal = type[InvalidModel] | type[InvalidSpecification]
IMPLICIT = "provenn-network/1"
"""The format of a canonical file that is no ONNX: implicit layers, as safetensors."""
COPIES = 3
"""Of a network's bytes: parsed, parsed by ONNX's checker, and as a graph, whose float64 are twice as many."""


class Inspection(Protocol):
    """What is done in a sandbox. Whatever goes wrong there is the file's fault: `refusal`."""

    refusal: ClassVar[Refusal]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Open files that it needs."""
        ...

    def run(self) -> dict[str, Any]:
        """The answer, JSON. May raise anything."""
        ...


def confined(connection: Connection, confinement: Confinement, task: Inspection) -> None:
    """The child's whole life: the sandbox, one task, one answer or one problem."""
    said = problems.told(lambda: _answer(connection, confinement, task), task.refusal)
    connection.send_bytes(json.dumps(said).encode())


def _answer(connection: Connection, confinement: Confinement, task: Inspection) -> dict[str, Any]:
    import torch

    enter(confinement, keep=[connection.fileno(), *task.descriptors])
    Reporter(connection)
    torch.set_num_threads(1)
    try:
        return task.run()
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "can't allocate memory" not in str(error):
            raise
        raise ResourceLimit("memory", f"{confinement.memory_mb} MiB to read a file") from error


class Summary(BaseModel):
    """What a child says of a network; a child is not believed before it has this form."""

    model_config = ConfigDict(extra="forbid", strict=True)

    sha256: str
    opset: int
    producer: str
    input_name: str
    input_shape: list[int]
    output_name: str
    output_shape: list[int]
    parameters: int
    neurons: int
    nodes: int
    layers: list[Layer]


class Inspected(BaseModel):
    """format: what was uploaded; as_is: whether that is the canonical file, or the child has written it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    format: Literal["onnx", "onnx-bundle", "provenn-network/1", "pt2", "safetensors", "state-dict"]
    as_is: bool
    summary: Summary

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Self:
        """A child's answer.   Raises: InvalidModel if it is of another form: the child may be the file's by now."""
        try:
            return cls.model_validate(answer)
        except ValidationError as error:
            raise InvalidModel("the reader gave no sound answer about it") from error


@dataclass(frozen=True)
class InspectModel:
    """Reads an upload, writes the canonical file unless the upload is it, and says what it is.

    upload: open for reading; canonical: empty, open for writing; architecture: of weights, JSON; preprocessing: that
    becomes a part of it, JSON.
    """

    refusal: ClassVar[Refusal] = InvalidModel

    upload: Descriptor
    canonical: Descriptor
    architecture: bytes | None
    preprocessing: bytes | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Both files."""
        return self.upload.number, self.canonical.number

    def run(self) -> dict[str, Any]:
        """The fields of `Inspected`."""
        from provenn.models.arrival import arrive
        from provenn.models.reading import read
        from provenn.models.summary import summarize

        limits = Limits()
        uploaded = _content(self.upload.number, limits)
        arrived = arrive(uploaded, self.architecture, limits, self.preprocessing)
        as_is = arrived.data is uploaded
        del uploaded
        _require_memory(COPIES * len(arrived.data))
        summary = summarize(arrived.data, read(arrived.data)).as_dict()
        if not as_is:
            with open(self.canonical.number, "wb", closefd=False) as file:
                file.write(arrived.data)
        return {"format": arrived.format, "as_is": as_is, "summary": summary}


def _content(descriptor: int, limits: Limits) -> bytes:
    limits.require_bytes(os.fstat(descriptor).st_size, "the file")
    with open(descriptor, "rb", closefd=False) as file:
        file.seek(0)
        return file.read()


def _require_memory(size: int) -> None:
    """Raises: MemoryError if that much is not left; ONNX's parsers would say that the file is broken."""
    try:
        mmap.mmap(-1, size).close()
    except OSError as error:
        raise MemoryError from error


@dataclass(frozen=True)
class InspectSpecification:
    """Reads a specification and says whether it fits a network of these sizes."""

    refusal: ClassVar[Refusal] = InvalidSpecification
    descriptors: ClassVar[tuple[int, ...]] = ()

    text: bytes
    inputs: int
    outputs: int

    def run(self) -> dict[str, Any]:
        """How many cases it has."""
        from provenn.verifier.spec_reader import read_specification

        specification = read_specification(self.text)
        specification.require_fits(self.inputs, self.outputs)
        return {"cases": len(specification.cases)}


@dataclass(frozen=True)
class InspectDerivatives:
    """Reads a job's question about derivatives and says whether it fits a network of these sizes."""

    refusal: ClassVar[Refusal] = InvalidSpecification
    descriptors: ClassVar[tuple[int, ...]] = ()

    request: str
    inputs: int
    outputs: int

    def run(self) -> dict[str, Any]:
        """How many regions it is about."""
        from provenn.api.jobs import derivatives

        request = JobRequest.model_validate_json(self.request)
        return {"regions": derivatives.require_valid(request, self.inputs, self.outputs)}
