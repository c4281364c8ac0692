"""What jobs about tightness ask, and their answers: a measurement, without a certificate."""

from __future__ import annotations

import numpy as np

from provenn.api.certification import LoadedModel
from provenn.api.report import measured_report
from provenn.api.schemas import JobRequest, JobResult
from provenn.api.tightness import Question, TightnessResult, measure
from provenn.api.tightness_schemas import LayerTightness, Tightness, TightnessRequest
from provenn.solvers.base import Progress
from provenn.verifier.errors import InvalidSpecification, ResourceLimit

ENTRIES = 1_000_000
"""Numbers in one answer."""


def tightness(request: JobRequest, model: LoadedModel, progress: Progress, stats: dict[str, float]) -> JobResult:
    """The answer.   Raises: as `require_valid`; UnsupportedOp where the network is not piecewise linear."""
    assert request.tightness is not None
    shape = model.graph.input_shape
    found = measure(model.graph, asked(request.tightness, shape), progress)
    return measured_report(found.seconds, told(found), stats)


def asked(request: TightnessRequest, shape: tuple[int, ...]) -> Question:
    """The question for a network with inputs of this shape.   Raises: InvalidSpecification."""
    inputs = np.array(request.inputs).reshape(-1, *shape)
    labels = None if request.labels is None else np.array(request.labels)
    return Question(inputs, labels, float(request.epsilon), request.clip, request.layers)


def require_valid(request: TightnessRequest, inputs: int, outputs: int) -> None:
    """Raises: InvalidSpecification for a question that does not fit a network of these sizes; ResourceLimit."""
    for index, values in enumerate(request.inputs):
        if len(values) != inputs:
            reason = f'"inputs"[{index}] has {len(values)} numbers, but the network has {inputs} inputs'
            raise InvalidSpecification(reason)
    if len(request.inputs) * outputs > ENTRIES:
        raise ResourceLimit(f"inputs times outputs ({len(request.inputs)} x {outputs})", str(ENTRIES))
    asked(request, (inputs,)).require_fits(outputs)


def told(found: TightnessResult) -> Tightness:
    """As it goes over the wire."""
    layers = [LayerTightness(name=each.name, op=each.op, tightness=each.tightness) for each in found.layers]
    return Tightness(tightness=found.tightness, outputs=found.outputs.tolist(), layers=layers)
