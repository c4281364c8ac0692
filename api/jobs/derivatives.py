"""What jobs about derivatives ask: regions and domains, named features, and how large an answer may be."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod

from provenn.api import jacobian, monotonicity
from provenn.api.certification import LoadedModel
from provenn.api.domain import Domain, Place, columns, read_domain
from provenn.api.lipschitz_question import Around, matrix
from provenn.api.report import jacobian_report, monotonicity_report
from provenn.api.schemas import (
    DerivativeRequest,
    JacobianRequest,
    JobRequest,
    JobResult,
    MonotonicityRequest,
    RegionRequest,
)
from provenn.solvers.base import Progress
from provenn.verifier.errors import InvalidSpecification, ResourceLimit, in_file

ENTRIES = 250_000
"""Derivatives, or pairs of inputs times their length, in one answer: about a million numbers."""

Told = Callable[[str | None, dict[str, float]], JobResult]
"""The certificate's id and the numbers of the run -> the job's result."""


def answered(request: JobRequest, model: LoadedModel, progress: Progress) -> tuple[dict[str, bytes] | None, Told]:
    """The certificate's files, if something is proved, and the result.   Raises: as `require_valid`."""
    inputs, outputs = prod(model.graph.input_shape), prod(model.graph.output_shape)
    if request.jacobian is not None:
        region = entries(request.jacobian, inputs, outputs)
        bounds = jacobian.jacobian(model, region, options(request), progress)
        return bounds.certificate, partial(jacobian_report, bounds, region.rows)
    assert request.monotonicity is not None
    asked, names = dependences(request.monotonicity, inputs, outputs)
    trends = monotonicity.monotonicity(model, asked, options(request), progress)
    return trends.certificate, partial(monotonicity_report, trends, names)


def options(request: JobRequest) -> monotonicity.Options:
    """How to answer; method auto is bab.   Raises: BackendError for an unknown method."""
    method = "bab" if request.method == "auto" else request.method
    return monotonicity.Options(method, request.budget.seconds, request.seed)


def dependences(asked: MonotonicityRequest, inputs: int, outputs: int) -> tuple[monotonicity.Question, list[str]]:
    """The question for a network of these sizes, and the names of its features.

    Raises: InvalidSpecification, ResourceLimit.
    """
    rows, domain = len(matrix(asked.rows, outputs)), None if asked.domain is None else _domain(asked, inputs)
    found = columns(list(map(str, asked.features)), inputs, domain)
    if not found:
        raise InvalidSpecification("no feature has an order and more than one value")
    _require_few(rows * len(found) * inputs, f"rows times features times inputs ({rows} x {len(found)} x {inputs})")
    if domain is None:
        assert asked.region is not None
        places, names = [_around(asked.region, inputs)], list(map(str, found))
    else:
        places = domain.places(found)
        names = [next(f.name for f in domain.features if f.first == column) for column in found]
    return monotonicity.Question(found, tuple(places), asked.rows, asked.expect), names


def entries(asked: JacobianRequest, inputs: int, outputs: int) -> jacobian.Question:
    """The question for a network of these sizes.   Raises: InvalidSpecification, ResourceLimit."""
    rows = len(matrix(asked.rows, outputs))
    _require_few(rows * inputs, f"rows times inputs ({rows} x {inputs})")
    if asked.region is not None:
        return jacobian.Question(_around(asked.region, inputs), asked.rows)
    places = _domain(asked, inputs).places(())
    if len(places) > 1:
        reason = f"a Jacobian is bounded over one region, but the domain has {len(places)} combinations of categories"
        raise InvalidSpecification(f"{reason}: hold all but one with fixed")
    return jacobian.Question(places[0], asked.rows)


def require_valid(request: JobRequest, inputs: int, outputs: int) -> int:
    """How many regions a job about derivatives has.   Raises: BackendError, InvalidSpecification, ResourceLimit."""
    options(request)
    if request.monotonicity is not None:
        return len(dependences(request.monotonicity, inputs, outputs)[0].places)
    if request.jacobian is not None:
        entries(request.jacobian, inputs, outputs)
    return 1


def _domain(asked: DerivativeRequest, inputs: int) -> Domain:
    try:
        domain = read_domain(asked.domain_text(), inputs)
    except InvalidSpecification as error:
        raise in_file("domain", error) from None
    return domain.fixed({name: str(value) for name, value in asked.fixed.items()})


def _around(region: RegionRequest, inputs: int) -> Place:
    if len(region.input) != inputs:
        raise InvalidSpecification(f"the centre has {len(region.input)} numbers for {inputs} inputs")
    return Place.around(Around(region.input, region.epsilon, region.norm, region.clip))


def _require_few(count: int, what: str) -> None:
    if count > ENTRIES:
        raise ResourceLimit(what, str(ENTRIES))
