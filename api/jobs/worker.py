"""What runs in a child for a job: its question, answered, with everything that is kept of the answer.

Importing this module imports everything a job needs; the forkserver does so once, before it forks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from provenn.api.blobs import Blobs
from provenn.api.certification import ItemResult, LoadedModel, Options, certify, load_model
from provenn.api.jobs import derivatives
from provenn.api.jobs.child import Reporter
from provenn.api.lipschitz import Options as LipschitzOptions
from provenn.api.lipschitz import bound, load
from provenn.api.lipschitz_question import Around, Question
from provenn.api.radius import LIPSCHITZ, Batch, radii
from provenn.api.report import Point, lipschitz_report, report
from provenn.api.schemas import Inputs, JobRequest, JobResult, LipschitzRequest
from provenn.solvers.base import Progress
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.numbers import spoken
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import robustness
from provenn.verifier.spec_reader import read_specification

PROGRESS_SECONDS = 0.25
CHUNK_COORDINATES = 1 << 16
"""Input coordinates of the items certified together: bounds the memory that their exact rationals take."""


@dataclass(frozen=True)
class Certify:
    """A job: the blobs of its model and its request, and where to compute."""

    blobs: Path
    model: str
    request: str
    device: str

    def run(self, reporter: Reporter) -> dict[str, Any]:
        """The result's blob and the certificates'; every blob is written before it is named."""
        start = time.monotonic()
        blobs = Blobs(self.blobs)
        request = JobRequest.model_validate_json(blobs.get(self.request))
        if request.lipschitz is not None:
            return self._bounded(blobs, request, request.lipschitz, reporter)
        if request.derivatives is not None:
            return self._derived(blobs, request, reporter)
        model = load_model(blobs.get(self.model))
        points = list(_points(request))
        stats = {"load_seconds": time.monotonic() - start}
        results: list[ItemResult] = []
        certificates: list[str | None] = []
        size = max(1, CHUNK_COORDINATES // math.prod(model.graph.input_shape))
        if request.method == LIPSCHITZ and request.inputs is not None:
            results = _by_constants(model, request, request.inputs, _progress(reporter, 0, len(points)))
            certificates = _stored(blobs, results)
        for first in range(len(results), len(points), size):
            chunk = points[first : first + size]
            left = request.budget.seconds - (time.monotonic() - start)
            options = Options(
                method=request.method,
                seconds=max(0.0, left * len(chunk) / (len(points) - first)),
                device=self.device,
                seed=request.seed,
                certificates=request.certificates,
                semantics=request.semantics,
            )
            progress = _progress(reporter, first, len(points))
            done = certify(model, [_specification(request, p, model) for p in chunk], options, progress)
            certificates += _stored(blobs, done)
            results += done
        stats["seconds"] = time.monotonic() - start
        answer = report(points, results, certificates, stats)
        made = sorted({c for c in certificates if c is not None})
        return {"result": blobs.put(answer.model_dump_json().encode()), "certificates": made}

    def _bounded(
        self, blobs: Blobs, request: JobRequest, asked: LipschitzRequest, reporter: Reporter
    ) -> dict[str, Any]:
        """The same of a job about a Lipschitz constant."""
        start = time.monotonic()
        model = load(blobs.get(self.model))
        stats = {"load_seconds": time.monotonic() - start}
        options = LipschitzOptions(request.method, asked.solver, request.budget.seconds, request.seed)
        result = bound(model, question(asked), options, _progress(reporter, 0, 0))
        stats["seconds"] = time.monotonic() - start
        return _kept(blobs, request, result.certificate, lambda name: lipschitz_report(result, name, stats))

    def _derived(self, blobs: Blobs, request: JobRequest, reporter: Reporter) -> dict[str, Any]:
        """The same of a job about derivatives."""
        start = time.monotonic()
        model = load_model(blobs.get(self.model), slopes=True)
        stats = {"load_seconds": time.monotonic() - start}
        files, told = derivatives.answered(request, model, _progress(reporter, 0, 0))
        stats["seconds"] = time.monotonic() - start
        return _kept(blobs, request, files, lambda name: told(name, stats))


def _kept(
    blobs: Blobs, request: JobRequest, files: dict[str, bytes] | None, told: Callable[[str | None], JobResult]
) -> dict[str, Any]:
    """The answer of a job with one item: its certificate's files, and its result once these have an id."""
    certificate = blobs.put(to_zip(files)) if files is not None and request.certificates else None
    result = blobs.put(told(certificate).model_dump_json().encode())
    return {"result": result, "certificates": [] if certificate is None else [certificate]}


def question(asked: LipschitzRequest) -> Question:
    """What a request asks."""
    around = asked.region
    region = None if around is None else Around(around.input, around.epsilon, around.norm, around.clip)
    return Question(asked.norm, asked.output_norm, asked.rows, asked.scale, region)


def _by_constants(model: LoadedModel, request: JobRequest, asked: Inputs, progress: Progress) -> list[ItemResult]:
    """Robustness from Lipschitz constants, which all inputs share."""
    batch = Batch(np.array(asked.inputs), asked.labels, asked.norm, asked.target)
    options = LipschitzOptions(seconds=request.budget.seconds, seed=request.seed)
    results = radii(model, batch, options, progress).certified([spoken(e) for e in asked.epsilons])
    return results if request.certificates else [replace(result, certificate=None) for result in results]


def _stored(blobs: Blobs, results: Sequence[ItemResult]) -> list[str | None]:
    """Ids of the certificates; several results may share one."""
    shared = {id(r.certificate): r.certificate for r in results if r.certificate is not None}
    names = {key: blobs.put(to_zip(files)) for key, files in shared.items()}
    return [names.get(id(r.certificate)) for r in results]


def _points(request: JobRequest) -> Iterator[Point]:
    """One item a specification, or one an input and radius: all radii of an input, then the next input."""
    if request.inputs is None:
        yield Point(None, None)
        return
    for index in range(len(request.inputs.inputs)):
        for epsilon in request.inputs.epsilons:
            yield Point(index, epsilon)


def _specification(request: JobRequest, point: Point, model: LoadedModel) -> Specification:
    if request.inputs is None or point.input is None or point.epsilon is None:
        return read_specification(request.specification_text())
    batch = request.inputs
    return robustness(
        batch.inputs[point.input],
        label=batch.labels[point.input],
        epsilon=point.epsilon,
        norm=batch.norm,
        outputs=math.prod(model.graph.output_shape),
        clip=batch.clip,
        target=batch.target,
    )


def _progress(reporter: Reporter, first: int, items: int) -> Progress:
    """Reports over the whole job, at most every PROGRESS_SECONDS."""
    last = -math.inf

    def progress(done: int, total: int, phase: str) -> None:
        nonlocal last
        if time.monotonic() - last >= PROGRESS_SECONDS:
            last = time.monotonic()
            reporter.send({"progress": [first + done, max(items, total), phase]})

    return progress
