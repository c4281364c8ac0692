"""The whole domain of a tabular model: ranges of features, and categories that are fixed or enumerated.

    {"features": [{"name": "age", "range": [18, 100]}, {"name": "sex", "values": [0, 1]},
                  {"name": "colour", "one_hot": 3}, {"name": "bias", "value": 1}]}

Features come in the order of the network's inputs; "one_hot" takes as many inputs as it has categories. Single values
and categories are rounded to float32, as a network gets them; the ends of ranges are exact.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import prod
from typing import Any

import numpy as np

from provenn.api.lipschitz_question import Around
from provenn.verifier.errors import InvalidSpecification, ResourceLimit
from provenn.verifier.numbers import exact, written
from provenn.verifier.spec import InputSet

COMBINATIONS = 1024
"""Of categories, at most."""

KINDS = "range, values, one_hot or value"

Cells = tuple[tuple[Fraction, Fraction], ...]
"""Lower and upper end of every input of a feature."""


@dataclass(frozen=True)
class Place:
    """One region; stated: as a certificate states it; label: its categories, as name=value, empty without any."""

    set: InputSet
    stated: Mapping[str, Any]
    label: str = ""

    @classmethod
    def around(cls, region: Around) -> Place:
        """A ball.   Raises: InvalidSpecification, EmptyRegion."""
        return cls(region.inputs(), region.as_json())

    @classmethod
    def box(cls, cells: Cells, label: str) -> Place:
        """The box of these ends."""
        lower, upper = tuple(low for low, _ in cells), tuple(high for _, high in cells)
        stated = {"lower": [written(v) for v in lower], "upper": [written(v) for v in upper]}
        return cls(InputSet(lower, upper), stated, label)


@dataclass(frozen=True)
class Feature:
    """A feature, its first input, and its categories: all ranges it may have, with their names; one for a range."""

    name: str
    first: int
    choices: tuple[tuple[str, Cells], ...]
    ordered: bool = True

    @property
    def width(self) -> int:
        """How many inputs it takes."""
        return len(self.choices[0][1])

    @property
    def hull(self) -> Cells:
        """From its least to its largest value."""
        ends = [[cell[i] for _, cell in self.choices] for i in range(self.width)]
        return tuple((min(low for low, _ in each), max(high for _, high in each)) for each in ends)


@dataclass(frozen=True)
class Domain:
    """The features of a table, in order."""

    features: tuple[Feature, ...]

    @property
    def inputs(self) -> int:
        """How many inputs they take together."""
        return sum(feature.width for feature in self.features)

    def feature(self, name: str) -> Feature:
        """By its name, or the number of its input.   Raises: InvalidSpecification."""
        for feature in self.features:
            if name == feature.name or (name.isdecimal() and int(name) == feature.first):
                return feature
        known = ", ".join(feature.name for feature in self.features)
        raise InvalidSpecification(f"there is no feature {name!r}; there are {known}")

    def column(self, name: str) -> int:
        """The input of an ordered feature.   Raises: InvalidSpecification for one that is one-hot, or not there."""
        feature = self.feature(name)
        if not feature.ordered:
            raise InvalidSpecification(f"feature {name!r} is one-hot: its categories have no order to be monotone in")
        return feature.first

    def fixed(self, values: Mapping[str, str]) -> Domain:
        """With some features held at a value, or at a category.   Raises: InvalidSpecification."""
        known = {self.feature(name).name: self._held(self.feature(name), value) for name, value in values.items()}
        return Domain(tuple(known.get(feature.name, feature) for feature in self.features))

    def _held(self, feature: Feature, value: str) -> Feature:
        number = exact(value)
        for label, cells in feature.choices:
            if label and exact(label) == number:
                return Feature(feature.name, feature.first, ((label, cells),), feature.ordered)
        low, high = feature.hull[0]
        if len(feature.choices) > 1 or not low <= number <= high:
            raise InvalidSpecification(f"feature {feature.name!r} does not have the value {value}")
        held = _single(number)
        return Feature(feature.name, feature.first, (("", ((held, held),)),), feature.ordered)

    def places(self, asked: Sequence[int]) -> list[Place]:
        """One region a combination of categories; inputs that are asked about range from their least to largest value.

        Raises: ResourceLimit for too many.
        """
        options = [
            (("", feature.hull),) if feature.first in asked and feature.ordered else feature.choices
            for feature in self.features
        ]
        count = prod(map(len, options))
        if count > COMBINATIONS:
            raise ResourceLimit(f"combinations of categories ({count}); hold some fixed", str(COMBINATIONS))
        return list(self._combined(options))

    def _combined(self, options: Sequence[Sequence[tuple[str, Cells]]]) -> Iterator[Place]:
        for chosen in product(*options):
            cells = [cell for _, part in chosen for cell in part]
            pairs = zip(self.features, chosen, options, strict=True)
            label = ", ".join(f"{feature.name}={name}" for feature, (name, _), each in pairs if len(each) > 1)
            yield Place.box(tuple(cells), label)


def read_domain(data: bytes, inputs: int) -> Domain:
    """The domain in a JSON file.   Raises: InvalidSpecification naming the feature and what was expected."""
    try:
        content = json.loads(data.decode(), parse_float=exact, parse_int=exact, parse_constant=exact)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidSpecification(f"not JSON: {error}") from None
    if not isinstance(content, dict) or content.keys() != {"features"} or not isinstance(content["features"], list):
        raise InvalidSpecification('a domain is an object with "features", a list')
    features: list[Feature] = []
    for number, given in enumerate(content["features"]):
        features.append(_feature(given, number, sum(feature.width for feature in features)))
    names = [feature.name for feature in features]
    for name in names:
        if names.count(name) > 1:
            raise InvalidSpecification(f"feature {name!r} is there twice")
    domain = Domain(tuple(features))
    if domain.inputs != inputs:
        raise InvalidSpecification(f"the features take {domain.inputs} inputs, but the network has {inputs}")
    return domain


def _feature(given: Any, number: int, first: int) -> Feature:
    where = f"feature {number}"
    if not isinstance(given, dict) or not isinstance(given.get("name", ""), str):
        raise InvalidSpecification(f'{where} is not an object with "name" and {KINDS}')
    name = given.get("name", str(first))
    kinds = [key for key in given if key != "name"]
    match kinds:
        case ["range"] if _numbers(given["range"]) and len(given["range"]) == 2:
            low, high = given["range"]
            if low > high:
                raise InvalidSpecification(f"{where}, {name!r}: its range ends before it begins")
            return Feature(name, first, (("", ((low, high),)),))
        case ["values"] if _numbers(given["values"]) and given["values"]:
            singles = [(written(v), _single(v)) for v in given["values"]]
            return Feature(name, first, tuple((label, ((v, v),)) for label, v in singles))
        case ["value"] if isinstance(given["value"], Fraction):
            held = _single(given["value"])
            return Feature(name, first, (("", ((held, held),)),))
        case ["one_hot"] if isinstance(given["one_hot"], Fraction) and given["one_hot"] in range(1, COMBINATIONS + 1):
            count = int(given["one_hot"])
            rows = [tuple((Fraction(i == j), Fraction(i == j)) for j in range(count)) for i in range(count)]
            return Feature(name, first, tuple((str(i), row) for i, row in enumerate(rows)), ordered=False)
    expected = '"range": [low, high], "values": [numbers], "value": number, or "one_hot": categories'
    raise InvalidSpecification(f"{where}, {name!r}: expected one of {expected}")


def _numbers(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(v, Fraction) for v in given)


def _single(value: Fraction) -> Fraction:
    """The nearest float32."""
    return Fraction(float(np.float32(float(value))))
