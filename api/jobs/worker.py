"""What runs in a child for a job: its question, answered, with everything that is kept of the answer.

Importing this module imports everything a job needs; the forkserver does so once, before it forks.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from provenn.api.certification import ItemResult, LoadedModel, Options, certify
from provenn.api.jobs import bracketing, derivatives, measuring
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.loading import loaded, readings
from provenn.api.jobs.narrowing import Narrowing
from provenn.api.jobs.progressing import told
from provenn.api.jobs.results import answered, kept, stored
from provenn.api.jobs.tasks import Certify
from provenn.api.jobs.workspace import Outbox
from provenn.api.lipschitz import Options as LipschitzOptions
from provenn.api.lipschitz import bound
from provenn.api.lipschitz_question import Around, Question
from provenn.api.radius import LIPSCHITZ, Batch, radii
from provenn.api.report import Point, lipschitz_report, report
from provenn.api.schemas import Inputs, JobRequest, LipschitzRequest
from provenn.solvers.base import Progress
from provenn.verifier.numbers import spoken
from provenn.verifier.spec import Specification
from provenn.verifier.spec_json import robustness
from provenn.verifier.spec_reader import read_specification

CHUNK_COORDINATES = 1 << 16
"""Input coordinates of the items certified together: bounds the memory that their exact rationals take."""


def certified(task: Certify, reporter: Reporter) -> dict[str, Any]:
    """The digests of the result's and the certificates' files, each of which is written before it is named."""
    start = time.monotonic()
    out = Outbox(task.folder)
    request = JobRequest.model_validate_json(task.request.read_bytes())
    if request.lipschitz is not None:
        return _bounded(task, out, request, request.lipschitz, reporter)
    if request.derivatives is not None:
        return _derived(task, out, request, reporter)
    if request.tightness is not None:
        return _measured(task, out, request, reporter)
    if request.radius is not None:
        return bracketing.answered(task, out, request, reporter)
    model = loaded(task.model)
    points = list(_points(request))
    stats = {"load_seconds": time.monotonic() - start}
    results: list[ItemResult] = []
    certificates: list[str | None] = []
    size = max(1, CHUNK_COORDINATES // math.prod(model.graph.input_shape))
    if request.method == LIPSCHITZ and request.inputs is not None:
        results = _by_constants(model, request, request.inputs, told(reporter, 0, len(points)))
        certificates = stored(out, results)
    for first in range(len(results), len(points), size):
        chunk = points[first : first + size]
        left = request.budget.seconds - (time.monotonic() - start)
        options = Options(
            method=request.method,
            seconds=max(0.0, left * len(chunk) / (len(points) - first)),
            device=task.device,
            seed=request.seed,
            certificates=request.certificates,
            semantics=request.semantics,
        )
        specifications = [_specification(request, p, model) for p in chunk]
        narrowing = Narrowing.of(model.graph, specifications[0].cases, start) if len(points) == 1 else None
        done = certify(model, specifications, options, told(reporter, first, len(points), narrowing))
        certificates += stored(out, done)
        results += done
    stats["seconds"] = time.monotonic() - start
    return answered(out, report(points, results, certificates, stats))


def _bounded(
    task: Certify, out: Outbox, request: JobRequest, asked: LipschitzRequest, reporter: Reporter
) -> dict[str, Any]:
    """The same of a job about a Lipschitz constant."""
    start = time.monotonic()
    model = readings(task.model)
    stats = {"load_seconds": time.monotonic() - start}
    options = LipschitzOptions(request.method, asked.solver, request.budget.seconds, request.seed)
    result = bound(model, question(asked), options, told(reporter, 0, 0))
    stats["seconds"] = time.monotonic() - start
    return kept(out, request, result.certificate, lambda name: lipschitz_report(result, name, stats))


def _derived(task: Certify, out: Outbox, request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """The same of a job about derivatives."""
    start = time.monotonic()
    model = loaded(task.model, slopes=True)
    stats = {"load_seconds": time.monotonic() - start}
    files, reported = derivatives.answered(request, model, told(reporter, 0, 0))
    stats["seconds"] = time.monotonic() - start
    return kept(out, request, files, lambda name: reported(name, stats))


def _measured(task: Certify, out: Outbox, request: JobRequest, reporter: Reporter) -> dict[str, Any]:
    """The same of a job about tightness."""
    start = time.monotonic()
    model = loaded(task.model)
    stats = {"load_seconds": time.monotonic() - start}
    result = measuring.tightness(request, model, told(reporter, 0, 0), stats)
    stats["seconds"] = time.monotonic() - start
    return answered(out, result)


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
