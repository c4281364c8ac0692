"""The whole domain of a tabular model: ranges of features, and categories that are fixed or enumerated.

    {"features": [{"name": "age", "range": [18, 100]}, {"name": "sex", "values": [0, 1]},
                  {"name": "colour", "one_hot": 3}, {"name": "bias", "value": 1}]}

Features come in the order of the network's inputs; "one_hot" takes as many inputs as it has categories. Single values
and categories are rounded to float32, as a network gets them; the ends of ranges are exact.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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

LARGEST = Fraction(float(np.finfo(np.float32).max))
"""In magnitude, of all ends and values."""

KINDS = "range, values, one_hot or value"

_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_SPAN = re.compile(r"(\d{1,9})-(\d{1,9})", re.ASCII)

Cells = tuple[tuple[Fraction, Fraction], ...]
"""Lower and upper end of every input of a feature."""


@dataclass(frozen=True)
class Place:
    """One region; stated: as a certificate states it; label: its categories, as name=value, empty without any.

    values: of some inputs the values that they really take; the region has all between the least and the largest.
    """

    set: InputSet
    stated: Mapping[str, Any]
    label: str = ""
    values: Mapping[int, tuple[float, ...]] = field(default_factory=dict)

    @classmethod
    def around(cls, region: Around) -> Place:
        """A ball.   Raises: InvalidSpecification, EmptyRegion."""
        return cls(region.inputs(), region.as_json())

    @classmethod
    def box(cls, cells: Cells, label: str, values: Mapping[int, tuple[float, ...]] | None = None) -> Place:
        """The box of these ends."""
        lower, upper = tuple(low for low, _ in cells), tuple(high for _, high in cells)
        stated = {"lower": [written(v) for v in lower], "upper": [written(v) for v in upper]}
        return cls(InputSet(lower, upper), stated, label, values or {})


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
        """By its name; where there is none of this name, by the number of an input.   Raises: InvalidSpecification."""
        for feature in self.features:
            if name == feature.name:
                return feature
        if _NUMBER.fullmatch(name) and int(name) < self.inputs:
            return next(feature for feature in self.features if int(name) < feature.first + feature.width)
        known = ", ".join(feature.name for feature in self.features)
        raise InvalidSpecification(f"there is no feature {name!r}; there are {known}")

    def column(self, name: str) -> int:
        """The input of an ordered feature.

        Raises: InvalidSpecification for one that is not there, is one-hot, or has one value alone.
        """
        feature = self.feature(name)
        if not feature.ordered:
            said = f"feature {feature.name!r} is one-hot: its categories have no order to be monotone in"
            raise InvalidSpecification(said)
        low, high = feature.hull[0]
        if low == high:
            said = f"feature {feature.name!r} has one value alone: there is nothing to be monotone in"
            raise InvalidSpecification(said)
        return feature.first

    def fixed(self, values: Mapping[str, str]) -> Domain:
        """With some features held at a value, or at a category.   Raises: InvalidSpecification."""
        known = {self.feature(name).name: self._held(self.feature(name), value) for name, value in values.items()}
        return Domain(tuple(known.get(feature.name, feature) for feature in self.features))

    def _held(self, feature: Feature, value: str) -> Feature:
        where = f"feature {feature.name!r}"
        try:
            number = exact(value)
        except InvalidSpecification as error:
            raise InvalidSpecification(f"{where}: {error}") from None
        labels = [label for label, _ in feature.choices if label]
        for label, cells in feature.choices:
            if label and exact(label) == number:
                return Feature(feature.name, feature.first, ((label, cells),), feature.ordered)
        low, high = feature.hull[0]
        if labels or not low <= number <= high:
            known = ", ".join(labels) if labels else f"{written(low)} to {written(high)}"
            raise InvalidSpecification(f"{where} does not have the value {value}; it has {known}")
        held = _single(number, where)
        return Feature(feature.name, feature.first, (("", ((held, held),)),), feature.ordered)

    def places(self, asked: Sequence[int]) -> list[Place]:
        """One region a combination of categories; inputs that are asked about range from their least to largest value.

        Raises: ResourceLimit for too many.
        """
        ranging = [feature for feature in self.features if feature.first in asked and feature.ordered]
        options = [(("", feature.hull),) if feature in ranging else feature.choices for feature in self.features]
        count = prod(map(len, options))
        if count > COMBINATIONS:
            raise ResourceLimit(f"combinations of categories ({count}); hold some fixed", str(COMBINATIONS))
        values = {
            feature.first: tuple(sorted(float(cells[0][0]) for _, cells in feature.choices))
            for feature in ranging
            if len(feature.choices) > 1
        }
        return list(self._combined(options, values))

    def _combined(
        self, options: Sequence[Sequence[tuple[str, Cells]]], values: Mapping[int, tuple[float, ...]]
    ) -> Iterator[Place]:
        for chosen in product(*options):
            cells = [cell for _, part in chosen for cell in part]
            pairs = zip(self.features, chosen, options, strict=True)
            label = ", ".join(f"{feature.name}={name}" for feature, (name, _), each in pairs if len(each) > 1)
            yield Place.box(tuple(cells), label, values)


def columns(asked: Sequence[str], inputs: int, domain: Domain | None = None) -> tuple[int, ...]:
    """The inputs that a list names: features of a domain, numbers of inputs, spans of them such as "3-5", or "all".

    "all": of a domain, every feature that has an order and more than one value.
    Raises: InvalidSpecification for what is not there, not ordered, or named twice.
    """
    named = domain or Domain(tuple(Feature(str(i), i, (("", ((Fraction(0), Fraction(1)),)),)) for i in range(inputs)))
    names = {feature.name for feature in named.features}
    found: list[int] = []
    for part in map(str.strip, asked):
        span = None if part in names else _SPAN.fullmatch(part)
        if part == "all" and part not in names:
            found += [f.first for f in named.features if f.ordered and f.hull[0][0] < f.hull[0][1]]
        elif span is not None and int(span[1]) <= int(span[2]) < inputs:
            found += [named.column(str(number)) for number in range(int(span[1]), int(span[2]) + 1)]
        elif domain is None and part not in names:
            reason = f"give numbers from 0 to {inputs - 1}, as 0,3 or 3-5, or all; names are those of a domain file"
            raise InvalidSpecification(f"there is no input {part!r}: {reason}")
        else:
            found.append(named.column(part))
    repeated = _repeated(found)
    if repeated is not None:
        raise InvalidSpecification(f"input {repeated} is asked about twice")
    return tuple(found)


def read_domain(data: bytes, inputs: int) -> Domain:
    """The domain in a JSON file.   Raises: InvalidSpecification naming the feature and what was expected."""
    try:
        numbers: dict[str, Any] = {"parse_float": exact, "parse_int": exact, "parse_constant": exact}
        content = json.loads(data.decode(), **numbers, object_pairs_hook=_unique)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise InvalidSpecification(f"not JSON: {error}") from None
    if not isinstance(content, dict) or content.keys() != {"features"} or not isinstance(content["features"], list):
        raise InvalidSpecification('a domain is an object with "features", a list')
    features: list[Feature] = []
    for number, given in enumerate(content["features"]):
        features.append(_feature(given, number, sum(feature.width for feature in features)))
    repeated = _repeated([feature.name for feature in features])
    if repeated is not None:
        raise InvalidSpecification(f"feature {repeated!r} is there twice")
    domain = Domain(tuple(features))
    if domain.inputs != inputs:
        raise InvalidSpecification(f"the features take {domain.inputs} inputs, but the network has {inputs}")
    return domain


def _feature(given: Any, number: int, first: int) -> Feature:
    where = f"feature {number}"
    if not isinstance(given, dict) or not isinstance(given.get("name", "-"), str) or given.get("name") == "":
        raise InvalidSpecification(f'{where} is not an object with "name", a text that is not empty, and {KINDS}')
    name = given.get("name", str(first))
    kinds, said = [key for key in given if key != "name"], f"{where}, {name!r}"
    match kinds:
        case ["range"] if _numbers(given["range"]) and len(given["range"]) == 2:
            low, high = given["range"]
            if low > high:
                raise InvalidSpecification(f"{said}: its range ends before it begins")
            for end in (low, high):
                _single(end, said)
            return Feature(name, first, (("", ((low, high),)),))
        case ["values"] if _numbers(given["values"]) and given["values"]:
            singles = [(written(v), _single(v, said)) for v in given["values"]]
            if _repeated([single for _, single in singles]) is not None:
                raise InvalidSpecification(f"{said}: two of its values are the same, as float32 numbers")
            return Feature(name, first, tuple((label, ((v, v),)) for label, v in singles))
        case ["value"] if isinstance(given["value"], Fraction):
            held = _single(given["value"], said)
            return Feature(name, first, (("", ((held, held),)),))
        case ["one_hot"] if isinstance(given["one_hot"], Fraction) and given["one_hot"] in range(1, COMBINATIONS + 1):
            count = int(given["one_hot"])
            rows = [tuple((Fraction(i == j), Fraction(i == j)) for j in range(count)) for i in range(count)]
            return Feature(name, first, tuple((str(i), row) for i, row in enumerate(rows)), ordered=False)
    expected = f'"range": [low, high], "values": [numbers], "value": number, or "one_hot": 1 to {COMBINATIONS}'
    raise InvalidSpecification(f"{said}: expected one of {expected}")


def _numbers(given: Any) -> bool:
    return isinstance(given, list) and all(isinstance(v, Fraction) for v in given)


def _single(value: Fraction, where: str) -> Fraction:
    """The nearest float32.   Raises: InvalidSpecification naming the feature if there is none."""
    if abs(value) > LARGEST:
        raise InvalidSpecification(f"{where}: {written(value)} is beyond float32, which networks get")
    return Fraction(float(np.float32(float(value))))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object.   Raises: InvalidSpecification if it has a key twice."""
    repeated = _repeated([key for key, _ in pairs])
    if repeated is not None:
        raise InvalidSpecification(f"an object has {repeated!r} twice")
    return dict(pairs)


def _repeated(some: Sequence[Hashable]) -> Hashable | None:
    """The first that was there before."""
    known = set[Hashable]()
    for each in some:
        if each in known:
            return each
        known.add(each)
    return None
