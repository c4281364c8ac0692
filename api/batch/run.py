"""A batch, certified: chunks of bounded size, one after the other, each kept when it is done."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np

from provenn.api.batch.bundle import FORMAT, Manifest
from provenn.api.batch.chunk import Answered, Asked, Chunk, later
from provenn.api.batch.data import Data
from provenn.api.batch.digests import Digest
from provenn.api.batch.merkle import leaf_hash, root
from provenn.api.batch.question import Question
from provenn.api.batch.radius import brackets
from provenn.api.batch.rows import Row, exact_values
from provenn.api.batch.summary import Summary, summarize
from provenn.api.batch.verdicts import verdicts
from provenn.api.batch.work import Memory, Work
from provenn.api.certification import LoadedModel, Options
from provenn.solvers.base import Budget, Progress, silent
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.version import provenn_version

COORDINATES, MOST = 1 << 16, 512
"""Of the inputs certified together, numbers and inputs at most: exact rationals and certificates take memory."""


@dataclass(frozen=True, eq=False)
class BatchResult:
    """rows: all radii of an input, in the order asked, then the next input; root: of the Merkle tree over the rows,
    None without certificates; seconds: wall clock of this run, which may have gone on with an earlier one.
    """

    rows: Sequence[Row]
    summary: Summary
    root: str | None
    seconds: float


def certify_batch(
    model: LoadedModel,
    data: Data,
    question: Question,
    options: Options,
    folder: Path | None = None,
    progress: Progress = silent,
) -> BatchResult:
    """One row an input and radius, or an input, all of them within `options.seconds` together.

    folder: gets results.jsonl, and with certificates batch.zip; until then finished chunks are in its folder work,
    from which the same call goes on. Without it certificates are made, checked, and let go.
    progress: of rows.
    Raises: InvalidSpecification if an input, a label or a radius makes no sense; BackendError for an unknown method or
    device; InvalidFile if the folder has the work of another batch; OSError if it cannot be written.
    """
    start = time.monotonic()
    asked = Asked(model, question, options)
    require_sensible(asked, data)
    size = max(1, min(MOST, COORDINATES // prod(model.graph.input_shape)))
    kept = Memory() if folder is None else Work(folder, _about(asked, data, size))
    for number, first in enumerate(range(0, len(data), size)):
        if not kept.done(number):
            share = (options.seconds + start - time.monotonic()) * min(size, len(data) - first) / (len(data) - first)
            part = data.part(first, min(first + size, len(data)))
            kept.keep(number, _answered(Chunk.run(asked, part, first), share, len(data), progress))
    rows = kept.rows()
    manifest = _manifest(asked, data, rows) if options.certificates else None
    kept.finish(manifest, rows)
    found = None if manifest is None else manifest.root
    return BatchResult(rows, summarize(rows, question), found, time.monotonic() - start)


def _answered(chunk: Chunk, seconds: float, inputs: int, progress: Progress) -> Answered:
    """One chunk; inputs: of all chunks, for the progress."""
    question, budget = chunk.asked.question, Budget(max(0.0, seconds))
    each = max(1, len(question.radii))
    told = later(lambda done, phase: progress(done, inputs * each, phase), chunk.first * each)
    return verdicts(chunk, budget, told) if question.largest is None else brackets(chunk, budget, told)


def require_sensible(asked: Asked, data: Data) -> None:
    """Before hours of work.   Raises: InvalidSpecification naming an input that cannot be asked about."""
    inputs, classes = prod(asked.model.graph.input_shape), prod(asked.model.graph.output_shape)
    if len(data) == 0 or data.inputs.shape != (len(data), inputs):
        shape = list(data.inputs.shape)
        raise InvalidSpecification(f"the data has shape {shape}; [n, {inputs}] with n above 0 was expected")
    for index, label in enumerate(data.labels):
        if not 0 <= label < classes:
            where = f"input {index} ({data.names[index]})"
            raise InvalidSpecification(
                f"{where}: class {label} is none of this network's, which are 0 to {classes - 1}"
            )
    question = asked.question
    if question.clip is None:
        return
    low, high = question.clip
    order = {"inf": inf, "2": 2, "1": 1}[question.norm]
    gaps = (np.maximum(0, np.maximum(low - x, x - high)) for x in map(exact_values, data.inputs))
    outside = np.array([float(np.linalg.norm(gap, order)) for gap in gaps])
    index = int(outside.argmax())
    if outside[index] > 0 and question.largest is not None:
        where = f"input {index} ({data.names[index]})"
        raise InvalidSpecification(f"{where} has values outside of the clip range {low:g} to {high:g}")
    if outside[index] > 0:
        farthest = Chunk(asked, data.part(index, index + 1), index, np.zeros((0, classes), np.float32))
        farthest.specification(0, min(question.radii))


def _about(asked: Asked, data: Data, size: int) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    options = asked.options
    return {
        "format": FORMAT,
        "model": asked.model.sha256,
        "question": asked.question.as_json(),
        "data": Digest.of(data).hex(),
        "names": hashlib.sha256(json.dumps(data.names).encode()).hexdigest(),
        "method": options.method,
        "seed": options.seed,
        "semantics": options.semantics,
        "certificates": options.certificates,
        "inputs": len(data),
        "chunk": size,
        "versions": _versions(),
    }


def _manifest(asked: Asked, data: Data, rows: Sequence[Row]) -> Manifest:
    about = Manifest(
        model_sha256=asked.model.sha256,
        data_sha256=Digest.of(data).hex(),
        question=asked.question,
        semantics=asked.options.semantics,
        inputs=len(data),
        rows=len(rows),
        produced_by=_versions(),
    )
    return about.over(root([leaf_hash(row.leaf()) for row in rows]))


def _versions() -> dict[str, str]:
    """Of what computes: those of a manifest made every chunk."""
    return {"provenn": provenn_version()} | {name: version(name) for name in ("numpy", "onnxruntime", "torch")}
