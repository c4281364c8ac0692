"""A batch as jobs: cut into parts of some inputs, each of which leaves its rows and certificates when it is done.

What is done stays done, whoever dies: a part is a job of its own, and its files are its row's.
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import ceil, prod
from pathlib import Path
from typing import Any

from provenn.api.batch.bundle import Manifest, write_bundle
from provenn.api.batch.canonical import unpacked
from provenn.api.batch.chunk import Answered, Asked, Chunk, Radii, Told
from provenn.api.batch.data import Data
from provenn.api.batch.digests import Digest
from provenn.api.batch.merkle import leaf_hash, root
from provenn.api.batch.radius import NOTHING, brackets
from provenn.api.batch.rows import Row
from provenn.api.batch.run import COORDINATES, MOST
from provenn.api.batch.summary import Summary, summarize
from provenn.api.batch.verdicts import verdicts
from provenn.api.batch_schemas import BatchRequest, BatchSummary
from provenn.api.certification import Options
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.loading import loaded
from provenn.api.jobs.progressing import told
from provenn.api.jobs.said import PARTS
from provenn.api.jobs.tasks import CERTIFICATES, ROWS, BatchPart, CertifyPart, JoinBatch, SplitBatch
from provenn.api.jobs.workspace import Outbox
from provenn.api.report import overall
from provenn.api.schemas import Counts, JobRequest, JobResult
from provenn.solvers.base import Budget, Progress
from provenn.verifier.version import provenn_version

BUNDLE = "batch.zip"


def split(task: SplitBatch) -> dict[str, Any]:
    """Each part's request, written and named, with how many rows it has."""
    out, request = Outbox(task.folder), JobRequest.model_validate_json(task.request.read_bytes())
    asked = _asked(request)
    span, parts = asked.span(len(unpacked(task.dataset))), []
    size = max(task.size, ceil(len(span) / PARTS))
    for first in range(span.start, span.stop, size):
        count = min(size, span.stop - first)
        part = request.model_copy(update={"batch": asked.model_copy(update={"first": first, "count": count})})
        body = part.model_dump_json().encode()
        parts.append({"request": out.put(body), "items": count * asked.radii, "bytes": len(body)})
    return {"parts": parts}


def certified(task: CertifyPart, reporter: Reporter) -> dict[str, Any]:
    """Its rows and its certificates, in a file each."""
    out, budget = Outbox(task.folder), Budget(task.seconds)
    request = JobRequest.model_validate_json(task.request.read_bytes())
    asked, model = _asked(request), loaded(task.model)
    options = Options(request.method, task.seconds, task.device, request.seed, request.certificates, request.semantics)
    mine = _spanned(task.dataset, asked)
    one = Asked(model, asked.question(), options)
    size = max(1, min(MOST, COORDINATES // prod(model.graph.input_shape)))
    found: list[Row] = []
    total = len(mine) * asked.radii
    with out.file() as rows, out.file() as archive, zipfile.ZipFile(archive, "w") as pack:
        for first in range(0, len(mine), size):
            several = mine.part(first, first + size)
            share = Budget(max(0.0, budget.left) * len(several) / (len(mine) - first))
            report = _counted(told(reporter, first * asked.radii, total), total)
            chunk = Chunk.run(one, several, asked.first + first)
            answer = brackets if asked.largest is not None else verdicts
            answered = answer(chunk, share, report)
            for row in answered.rows:
                rows.write(row.line())
            for digest, data in answered.certificates.items():
                pack.writestr(f"{digest}.zip", data)
            found += [replace(row, counterexample=None) for row in answered.rows]
    files = [out.keep(ROWS, rows), out.keep(CERTIFICATES, archive)]
    return _answer(out, found, summarize(found, asked.question()), files)


def _counted(report: Progress, total: int) -> Told:
    return lambda done, phase: report(done, total, phase)


class BrokenPart(Exception):
    """The parts together are not the rows of the batch, in their order: nothing is made of them."""

    def __init__(self, row: int, index: int | None) -> None:
        super().__init__(f"row {row} is about input {index}")


def joined(task: JoinBatch) -> dict[str, Any]:
    """The rows, and the bundle with the root of all of them."""
    out, request = Outbox(task.folder), JobRequest.model_validate_json(task.request.read_bytes())
    asked = _asked(request)
    with out.file() as file:
        for part in task.parts:
            _copy(task, part, file, request)
    lines = Path(file.name)
    data, digest = _spanned(task.dataset, asked), Digest.of(_spanned(task.dataset, asked))
    hashes, rows = [], []
    for number, row in enumerate(_read(lines)):
        if row.index != asked.first + number // asked.radii:
            raise BrokenPart(number, row.index)
        hashes.append(leaf_hash(row.leaf()))
        rows.append(replace(row, counterexample=None))
    if len(rows) != len(data) * asked.radii:
        raise BrokenPart(len(rows), None)
    manifest = Manifest(
        task.model_sha256,
        digest.hex(),
        asked.question(),
        request.semantics,
        len(data),
        len(hashes),
        {"provenn": provenn_version()},
    ).over(root(hashes))
    files = [_bundled(task, out, manifest, lines)] if request.certificates else []
    files.append(out.keep(ROWS, file))
    return _answer(out, rows, summarize(rows, asked.question()), files, manifest.root)


def _bundled(task: JoinBatch, out: Outbox, manifest: Manifest, lines: Path) -> dict[str, Any]:
    with out.file() as bundle:
        leaves = (row.leaf() for row in _read(lines))
        write_bundle(bundle, manifest, leaves, _certificates(task.parts))
    return out.keep(BUNDLE, bundle)


def _copy(task: JoinBatch, part: BatchPart, file: Any, request: JobRequest) -> None:
    """A part's rows; those of one that has none are timeouts."""
    if part.rows is not None:
        with part.rows.open("rb") as rows:
            shutil.copyfileobj(rows, file)
        return
    asked = _asked(JobRequest.model_validate_json(part.request.read_bytes()))
    one = Asked(loaded(task.model), asked.question(), Options(request.method, semantics=request.semantics))
    chunk = Chunk.run(one, _spanned(task.dataset, asked), asked.first)
    answered = Answered()
    reason = "its part of the batch was killed for the time it took"
    for place in range(len(chunk)):
        for radius in asked.question().radii or (None,):
            ends = Radii(None if radius is None else float(radius))
            answered.add(chunk, place, replace(NOTHING, reason=reason), ends)
    for row in answered.rows:
        file.write(row.line())


def _asked(request: JobRequest) -> BatchRequest:
    assert request.batch is not None
    return request.batch


def _spanned(dataset: Path, asked: BatchRequest) -> Data:
    data = unpacked(dataset)
    span = asked.span(len(data))
    return data.part(span.start, span.stop)


def _read(lines: Path) -> Iterator[Row]:
    with lines.open("rb") as file:
        yield from map(Row.from_json, file)


def _certificates(parts: Iterable[BatchPart]) -> Iterator[tuple[str, bytes]]:
    """Of all parts, each once."""
    seen: set[str] = set()
    for part in parts:
        if part.certificates is not None:
            with zipfile.ZipFile(part.certificates) as pack:
                for name in pack.namelist():
                    digest = name.removesuffix(".zip")
                    if digest not in seen:
                        seen.add(digest)
                        yield digest, pack.read(name)


def _answer(
    out: Outbox, rows: list[Row], summary: Summary, files: list[dict[str, Any]], top: str | None = None
) -> dict[str, Any]:
    """What the supervisor needs to know. The certificates are in the files."""
    verdict = overall([row.verdict for row in rows])
    told = None if top is None else BatchSummary.model_validate(summary.as_json() | {"root": top})
    counts = [Counts(epsilon=each.epsilon, **each.verdicts) for each in summary.radii]
    stats = {"row_seconds": sum(row.seconds for row in rows)}
    result = JobResult(verdict=verdict, items=[], summary=counts, stats=stats, batch=told)
    name = out.put(result.model_dump_json().encode())
    known = {"certificates": [], "verdict": verdict, "reusable": False, "version": provenn_version()}
    return {"result": name, "files": files, **known}
