"""Short tasks in a child: reading a stranger's network, specification or question, to refuse it at the door."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from provenn.api.blobs import Blobs
from provenn.api.jobs import derivatives
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.task import Task
from provenn.api.schemas import JobRequest
from provenn.models.reading import read
from provenn.models.summary import summarize
from provenn.verifier.errors import InvalidModel, InvalidSpecification
from provenn.verifier.spec_reader import read_specification

Refusal = type[InvalidModel] | type[InvalidSpecification]


class Inspection(Task, Protocol):
    """A task whose child's death is the file's fault, and this error."""

    refusal: ClassVar[Refusal]


@dataclass(frozen=True)
class InspectModel:
    """Reads a staged upload and says what it is."""

    refusal: ClassVar[Refusal] = InvalidModel

    blobs: Path
    name: str

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The summary."""
        data = Blobs(self.blobs).read_staged(self.name)
        return dict(summarize(data, read(data)).as_dict())


@dataclass(frozen=True)
class InspectSpecification:
    """Reads a specification and says whether it fits a network of these sizes."""

    refusal: ClassVar[Refusal] = InvalidSpecification

    text: bytes
    inputs: int
    outputs: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """How many cases it has."""
        specification = read_specification(self.text)
        specification.require_fits(self.inputs, self.outputs)
        return {"cases": len(specification.cases)}


@dataclass(frozen=True)
class InspectDerivatives:
    """Reads a job's question about derivatives and says whether it fits a network of these sizes."""

    refusal: ClassVar[Refusal] = InvalidSpecification

    request: str
    inputs: int
    outputs: int

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """How many regions it is about."""
        request = JobRequest.model_validate_json(self.request)
        return {"regions": derivatives.require_valid(request, self.inputs, self.outputs)}
