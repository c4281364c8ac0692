"""What is refused at the door: all that can be seen of a request without computing."""

from __future__ import annotations

import math
from typing import TypeAlias

from provenn.api.batch_schemas import BatchRequest
from provenn.api.jobs.asking import CheckLipschitz, CheckTightness
from provenn.api.jobs.inspection import InspectDerivatives, InspectSpecification
from provenn.api.jobs.tasks import LIPSCHITZ
from provenn.api.pattern_schemas import PatternsRequest, RadiusRequest
from provenn.api.problems import invalid
from provenn.api.schemas import Inputs, JobRequest
from provenn.api.service import Service
from provenn.api.tables import DatasetRow, ModelRow
from provenn.verifier.errors import ResourceLimit

Datasets: TypeAlias = tuple[DatasetRow | None, DatasetRow | None]


def check(request: JobRequest, model: ModelRow, data: Datasets, parts: Service) -> None:
    """What can be refused now; data: the dataset that it is about, and the one that is held out.

    Raises: a problem, BackendError, ResourceLimit, InvalidSpecification.
    """
    inputs, outputs = math.prod(model.summary["input_shape"]), math.prod(model.summary["output_shape"])
    longest = parts.settings.job_seconds
    if request.budget.seconds > longest:
        raise invalid("/budget/seconds", f"{request.budget.seconds:g} is above the limit of {longest:g} seconds")
    if request.batch is None and request.items > parts.settings.max_items:
        raise ResourceLimit(f"inputs times radii ({request.items})", str(parts.settings.max_items))
    if request.lipschitz is not None:
        parts.engine.ask(CheckLipschitz(request.lipschitz.model_dump_json(), request.method, inputs, outputs))
        return
    if request.tightness is not None:
        parts.engine.ask(CheckTightness(request.tightness.model_dump_json(), inputs, outputs))
        return
    if request.patterns is not None:
        _check_patterns(request.patterns, data, inputs, outputs)
        return
    if request.radius is not None:
        parts.backends.require(request.method)
        _check_radius(request.radius, request.model, inputs, outputs)
        return
    if request.derivatives is not None:
        parts.engine.inspect(InspectDerivatives(request.model_dump_json(), inputs, outputs))
        return
    if request.method != LIPSCHITZ:
        parts.backends.require(request.method)
    if request.batch is not None:
        _check_batch(request.batch, data[0], inputs, outputs)
    elif request.inputs is not None:
        _check_inputs(request.inputs, inputs, outputs)
    else:
        parts.engine.inspect(InspectSpecification(request.specification_text(), inputs, outputs))


def _check_batch(batch: BatchRequest, dataset: DatasetRow | None, inputs: int, outputs: int) -> None:
    assert dataset is not None
    _check_data("/batch/dataset", dataset, inputs, outputs)
    if not batch.span(dataset.count):
        raise invalid("/batch/first", f"the dataset has {dataset.count} inputs")


def _check_patterns(asked: PatternsRequest, data: Datasets, inputs: int, outputs: int) -> None:
    for name, dataset in zip(("dataset", "held_out"), data, strict=True):
        if dataset is not None:
            _check_data(f"/patterns/{name}", dataset, inputs, outputs)
    for index, label in enumerate(asked.classes or ()):
        if label >= outputs:
            raise invalid(f"/patterns/classes/{index}", f"class {label}, but the classes are 0 to {outputs - 1}")


def _check_radius(asked: RadiusRequest, model: str, inputs: int, outputs: int) -> None:
    """But for the ReLUs that a pattern names: whoever makes the restricted network looks for these."""
    if asked.pattern is not None and asked.pattern.model != model:
        known = f"it is about a network of sha256 {asked.pattern.model}, not {model}"
        raise invalid("/radius/pattern/model", f"{known}: mine it again from this network")
    if len(asked.input) != inputs:
        raise invalid("/radius/input", f"{len(asked.input)} numbers, but the network has {inputs} inputs")
    where = "/radius/label" if asked.pattern is None else "/radius/pattern/class"
    if asked.winner >= outputs:
        raise invalid(where, f"class {asked.winner}, but the classes are 0 to {outputs - 1}")
    if outputs < 2:
        raise invalid(where, "the network has no other class")


def _check_data(where: str, dataset: DatasetRow, inputs: int, outputs: int) -> None:
    if dataset.width != inputs:
        raise invalid(where, f"inputs of {dataset.width} numbers, but the network has {inputs} inputs")
    if dataset.classes > outputs:
        raise invalid(where, f"class {dataset.classes - 1}, but the classes are 0 to {outputs - 1}")


def _check_inputs(batch: Inputs, inputs: int, outputs: int) -> None:
    for index, values in enumerate(batch.inputs):
        if len(values) != inputs:
            raise invalid(f"/inputs/inputs/{index}", f"{len(values)} numbers, but the network has {inputs} inputs")
    for index, label in enumerate(batch.labels):
        if label >= outputs:
            raise invalid(f"/inputs/labels/{index}", f"label {label}, but the classes are 0 to {outputs - 1}")
    if batch.target is not None and (batch.target >= outputs or batch.target in batch.labels):
        raise invalid("/inputs/target", f"class {batch.target} is a label, or not among the {outputs} classes")
    if batch.clip is not None:
        low, high = batch.clip[0] - min(batch.epsilons), batch.clip[1] + min(batch.epsilons)
        for index, values in enumerate(batch.inputs):
            if min(values) < low or max(values) > high:
                raise invalid(f"/inputs/inputs/{index}", f"nothing within the radius lies in clip {list(batch.clip)}")
