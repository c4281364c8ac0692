"""Many uploads read one after another in one sandboxed child: starting a child for each costs ten times the reading."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, ClassVar

from upload_seeds import DATASET, INPUTS, OUTPUTS, SPECIFICATION, Upload

from provenn.api import problems
from provenn.api.batch.canonical import packed
from provenn.api.jobs.inspecting_data import received
from provenn.models.arrival import arrive
from provenn.models.limits import Limits
from provenn.models.reading import read
from provenn.models.summary import summarize
from provenn.verifier.errors import InvalidModel, InvalidSpecification, ResourceLimit
from provenn.verifier.spec_reader import read_specification


@dataclass(frozen=True)
class Batch:
    """A task of a sandboxed child."""

    refusal: ClassVar[type[InvalidModel]] = InvalidModel
    descriptors: ClassVar[tuple[int, ...]] = ()

    uploads: tuple[Upload, ...]

    def run(self) -> dict[str, Any]:
        """Of every upload: seconds, and what `problems.told` says."""
        return {"said": [_read(upload) for upload in self.uploads]}


def _read(upload: Upload) -> tuple[float, dict[str, Any]]:
    start = time.monotonic()
    refusal = InvalidSpecification if upload.format == DATASET else InvalidModel
    said = problems.told(lambda: _content(upload), refusal)
    return time.monotonic() - start, said


def _content(upload: Upload) -> dict[str, Any]:
    """The summary, the number of cases, or the sizes of data.   Raises: anything."""
    try:
        if upload.format == SPECIFICATION:
            specification = read_specification(upload.data)
            specification.require_fits(INPUTS, OUTPUTS)
            return {"cases": len(specification.cases)}
        if upload.format == DATASET:
            data = received(upload.data, "fuzz")
            packed(data)
            return {"count": len(data)}
        arrived = arrive(upload.data, upload.architecture, Limits())
        return {
            "format": arrived.format,
            "as_is": True,
            "summary": summarize(arrived.data, read(arrived.data)).as_dict(),
        }
    except MemoryError as error:
        raise ResourceLimit("memory", "what a child may have") from error
