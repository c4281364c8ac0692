"""Documents of kind "monotone" as questions about derivatives of a network."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from math import prod
from typing import TypeVar

import numpy as np

from provenn.api.domain import Domain, Place, columns, read_domain
from provenn.api.keywords import HowDerivatives, Shape
from provenn.api.lipschitz_question import Around, matrix
from provenn.api.monotonicity import Question, require_several
from provenn.api.schemas import MonotonicityRequest, RegionRequest
from provenn.models.specification.monotone import Monotone, Region
from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.numbers import spoken, written

T = TypeVar("T")


def question(asked: Monotone, inputs: int, outputs: int) -> tuple[Question, dict[int, str]]:
    """The question for a network of these sizes, and the names of its features.

    A centre is rounded to float64.   Raises: InvalidSpecification naming the key; ResourceLimit.
    """
    _at("rows", lambda: matrix(asked.rows, outputs))
    domain = _at("domain", lambda: _domain(asked, inputs))
    found = _at("features", lambda: _columns(asked, inputs, domain))
    if domain is not None:
        places = domain.places(found)
        names = {column: domain.feature(str(column)).name for column in found}
    else:
        assert asked.region is not None
        region = asked.region
        places = [_at("region", lambda: _around(region, inputs))]
        names = {column: f"input {column}" for column in found}
    for place in places:
        _at("features", partial(require_several, found, place))
    return Question(found, tuple(places), asked.rows, asked.expect), names


def over_which(asked: Monotone, shape: Shape) -> HowDerivatives:
    """Rows and place, as `provenn.monotonicity` takes them by name, of a network with inputs of this shape.

    Raises: InvalidSpecification naming the key.
    """
    if asked.domain is not None:
        return {"rows": asked.rows, "domain": asked.domain, "fixed": asked.fixed}
    assert asked.region is not None
    region = asked.region
    if len(region.input) != prod(shape):
        said = f"the centre has {len(region.input)} numbers for {prod(shape)} inputs"
        raise InvalidSpecification(f'"region"."input": {said}')
    centre = np.array([float(x) for x in region.input]).reshape(shape)
    clip = _ends(region)
    found: HowDerivatives = {"rows": asked.rows, "domain": None, "at": centre, "eps": written(region.epsilon)}
    return {**found, "region_norm": region.norm, "clip": clip}


def request(asked: Monotone) -> MonotonicityRequest:
    """The same as a service takes it.   Raises: InvalidSpecification for a number that JSON has only as text."""
    region = None
    if asked.region is not None:
        given = asked.region
        epsilon = _decimal("epsilon", "radii", given.epsilon)
        centre = [float(x) for x in given.input]
        region = RegionRequest(input=centre, epsilon=epsilon, norm=given.norm, clip=_ends(given))
    return MonotonicityRequest(
        features=list(asked.features),
        expect=asked.expect,
        rows=asked.rows,
        domain=None if asked.domain is None else asked.domain.decode(),
        fixed=dict(asked.fixed),
        region=region,
    )


def _ends(region: Region) -> tuple[float, float] | None:
    """Of its clip.   Raises: InvalidSpecification."""
    if region.clip is None:
        return None
    return _decimal("clip", "ranges", region.clip[0]), _decimal("clip", "ranges", region.clip[1])


def _decimal(key: str, what: str, value: Fraction) -> float:
    """The float that stands for this very number.   Raises: InvalidSpecification naming the key, if none does."""
    if spoken(found := float(value)) != value:
        said = f"a service takes {what} of regions as decimals, which {written(value)} is not"
        raise InvalidSpecification(f'"region"."{key}": {said}')
    return found


def _domain(asked: Monotone, inputs: int) -> Domain | None:
    return None if asked.domain is None else read_domain(asked.domain, inputs).fixed(asked.fixed)


def _columns(asked: Monotone, inputs: int, domain: Domain | None) -> tuple[int, ...]:
    found = columns(asked.features, inputs, domain)
    if not found:
        raise InvalidSpecification("no feature has an order and more than one value")
    return found


def _around(region: Region, inputs: int) -> Place:
    if len(region.input) != inputs:
        raise InvalidSpecification(f"the centre has {len(region.input)} numbers for {inputs} inputs")
    clip = None if region.clip is None else (written(region.clip[0]), written(region.clip[1]))
    return Place.around(Around([float(x) for x in region.input], written(region.epsilon), region.norm, clip))


def _at(key: str, read: Callable[[], T]) -> T:
    """What is read, an error naming the key."""
    try:
        return read()
    except InvalidSpecification as error:
        raise InvalidSpecification(f'"{key}": {error}') from None
