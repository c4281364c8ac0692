"""Jobs that mine activation patterns from a dataset: a measurement, without a certificate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from provenn.api.activation_patterns import Mining, Samples, Watched, coverage, mine
from provenn.api.batch.canonical import unpacked
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.progressing import told
from provenn.api.jobs.results import answered
from provenn.api.jobs.tasks import Mine
from provenn.api.jobs.workspace import Outbox
from provenn.api.pattern_schemas import PatternCoverage, Patterns, PatternsRequest
from provenn.api.report import measured_report
from provenn.api.schemas import JobRequest
from provenn.solvers.base import Progress
from provenn.verifier.errors import ResourceLimit
from provenn.verifier.numbers import spoken

ENTRIES = 1_000_000
"""Neurons of all patterns of one answer."""


def answer(task: Mine, reporter: Reporter) -> dict[str, Any]:
    """What the supervisor needs to know.   Raises: as `mined`."""
    start = time.monotonic()
    request = JobRequest.model_validate_json(task.request.read_bytes())
    assert request.patterns is not None
    model, progress = task.model.read_bytes(), told(reporter, 0, 0)
    samples, held = read(task.dataset), None if task.held_out is None else read(task.held_out)
    if request.patterns.share is not None:
        samples, held = samples.split(spoken(request.patterns.share), request.seed)
    stats = {"load_seconds": time.monotonic() - start}
    found = mined(model, request.patterns, samples, held, progress)
    stats["seconds"] = time.monotonic() - start
    return answered(Outbox(task.folder), measured_report(stats["seconds"], found, stats))


def read(dataset: Path) -> Samples:
    """The data as onnxruntime gets them: float32."""
    data = unpacked(dataset)
    return Samples(data.inputs.astype(np.float32), np.array(data.labels, np.int64))


def mined(model: bytes, asked: PatternsRequest, samples: Samples, held: Samples | None, progress: Progress) -> Patterns:
    """The patterns, and their coverage: of the data held out, or of all.

    Raises: ResourceLimit; InvalidSpecification for a class without samples, or a ReLU that is not there; InvalidModel.
    """
    require_bounded(model, asked, samples)
    classes = None if asked.classes is None else tuple(asked.classes)
    layers = None if asked.layers is None else tuple(asked.layers)
    found = mine(model, samples, Mining(asked.exact_delta, classes, layers, asked.labels, asked.wrong), progress)
    rows = coverage(model, found, samples if held is None else held, progress)
    count = 0 if held is None else len(held.inputs)
    covered = [PatternCoverage.model_validate(row, from_attributes=True) for row in rows]
    return Patterns(patterns=found, coverage=covered, held_out=count)


def require_bounded(model: bytes, asked: PatternsRequest, samples: Samples) -> None:
    """Raises: ResourceLimit for a larger answer than ENTRIES; InvalidSpecification, InvalidModel."""
    watched = Watched(model, asked.layers)
    classes = int(np.prod(watched.network.output_shape))
    if asked.classes is not None:
        classes = len(asked.classes)
    elif asked.labels == "dataset" and samples.labels is not None:
        classes = len(np.unique(samples.labels))
    if classes * watched.neurons > ENTRIES:
        raise ResourceLimit(f"classes times ReLU neurons ({classes} x {watched.neurons})", str(ENTRIES))
