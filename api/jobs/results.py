"""What a child leaves of an answer, and what it tells the supervisor about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from provenn.api.certification import ItemResult
from provenn.api.jobs.workspace import Outbox
from provenn.api.schemas import Item, JobRequest, JobResult
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.version import provenn_version

PROVED = ("checked", "deployed")
"""Assurances of what the checker has re-proved."""
DECIDED = ("verified", "falsified")
"""Verdicts that another attempt would not better."""


def answered(out: Outbox, result: JobResult) -> dict[str, Any]:
    """What the supervisor needs to know of a result."""
    return {
        "result": out.put(result.model_dump_json().encode()),
        "certificates": sorted({item.certificate for item in result.items if item.certificate is not None}),
        "verdict": result.verdict,
        "reusable": result.verdict in DECIDED and bool(result.items) and all(map(_proved, result.items)),
        "version": provenn_version(),
    }


def _proved(item: Item) -> bool:
    return item.certificate is not None and item.assurance in PROVED


def kept(
    out: Outbox, request: JobRequest, files: dict[str, bytes] | None, told: Callable[[str | None], JobResult]
) -> dict[str, Any]:
    """The answer of a job with one item: its certificate's files, and its result once these have an id."""
    certificate = out.put(to_zip(files)) if files is not None and request.certificates else None
    return answered(out, told(certificate))


def stored(out: Outbox, results: Sequence[ItemResult]) -> list[str | None]:
    """Ids of the certificates; several results may share one."""
    shared = {id(r.certificate): r.certificate for r in results if r.certificate is not None}
    names = {key: out.put(to_zip(files)) for key, files in shared.items()}
    return [names.get(id(r.certificate)) for r in results]
