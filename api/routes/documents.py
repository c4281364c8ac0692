"""Specification documents at the door: each becomes a question that the service knows, about a network that it has.

What a document composes is a network of the project like any other: it can be downloaded, and certificates are about
it. The job's request, as it is read back, is the question that the document has become.
"""

from __future__ import annotations

import os
import re
import tempfile
from contextlib import ExitStack
from functools import partial
from typing import BinaryIO, cast

from pydantic import ValidationError

from provenn.api.auth import Caller
from provenn.api.jobs.child import Descriptor
from provenn.api.jobs.inspecting_documents import InspectDocument, Resolved
from provenn.api.jobs.inspection import Summary
from provenn.api.jobs.quotas import require_bytes
from provenn.api.problems import invalid
from provenn.api.radius_question import document
from provenn.api.schemas import JobRequest
from provenn.api.service import Service
from provenn.api.tables import ModelRow
from provenn.api.wire import as_file
from provenn.models.specification.documents import is_document

OTHERS = 16
"""Networks that a document may refer to, at most."""
_DIGEST = re.compile(rb'"([0-9a-f]{64})"')


def restricted(request: JobRequest, model: ModelRow, who: Caller, parts: Service) -> ModelRow:
    """The network that the job computes with: the restricted one of a radius with a pattern, else the same.

    Raises: as `resolved`.
    """
    if request.radius is None or request.radius.pattern is None:
        return model
    text = as_file(document(request.radius))
    return _made(text, model, request.semantics, who, parts)[1]


def resolved(request: JobRequest, model: ModelRow, who: Caller, parts: Service) -> tuple[JobRequest, ModelRow]:
    """The request without a document, and the network that it is about.

    Raises: InvalidSpecification naming the key; ResourceLimit, InvalidModel, UnsupportedOp, QuotaExceeded; a problem.
    """
    text = b"" if request.specification is None else request.specification_text()
    if not is_document(text):
        return request, model
    found, model, asked = _made(text, model, request.semantics, who, parts)
    if found.monotonicity is not None:
        return _about(request, {"specification": None, "monotonicity": found.monotonicity}), model
    return _about(request, {"model": model.id, "specification": asked}), model


def _made(text: bytes, model: ModelRow, semantics: str, who: Caller, parts: Service) -> tuple[Resolved, ModelRow, str]:
    """What a document says; the network that it makes, or the given one, and the text that the checker reads."""
    with ExitStack() as stack:
        files = {name: stack.enter_context(parts.blobs.local(name).open("rb")) for name in _named(text, who, parts)}
        given = stack.enter_context(parts.blobs.local(model.id).open("rb"))
        made = [stack.enter_context(tempfile.TemporaryFile(dir=parts.engine.work)) for _ in range(2)]
        others = {name: Descriptor(file.fileno()) for name, file in files.items()}
        composed, specification = (Descriptor(file.fileno()) for file in made)
        task = InspectDocument(text, Descriptor(given.fileno()), others, composed, specification, semantics=semantics)
        found = Resolved.of(parts.engine.inspect(task))
        if found.summary is not None:
            model = _kept(cast(BinaryIO, made[0]), found.summary, model, who, parts)
        made[1].seek(0)
        return found, model, made[1].read().decode()


def _named(text: bytes, who: Caller, parts: Service) -> list[str]:
    """The project's networks that are named in it."""
    names = list(dict.fromkeys(name.decode() for name in _DIGEST.findall(text)))
    return [name for name in names[:OTHERS] if parts.catalogue.model(who.project, name) is not None]


def _about(request: JobRequest, changes: dict[str, object]) -> JobRequest:
    """The request with these members."""
    try:
        return JobRequest.model_validate(request.model_dump() | changes)
    except ValidationError as error:
        raise invalid("/specification", error.errors(include_url=False)[0]["msg"]) from None


def _kept(made: BinaryIO, summary: Summary, given: ModelRow, who: Caller, parts: Service) -> ModelRow:
    """The composed network, as one of the project's."""
    digest = parts.blobs.put_file(made)
    row = ModelRow(
        project_id=who.project,
        key_id=who.key,
        id=digest,
        filename=f"{given.filename} composed"[:200],
        format="onnx",
        source=digest,
        bytes=made.seek(0, os.SEEK_END),
        summary=summary.model_dump(),
    )
    if not parts.catalogue.add(row, partial(require_bytes, row=row, settings=parts.settings)):
        return parts.catalogue.model(who.project, digest) or row
    return row
