"""Domains of tabular models: what a file may say, the message for what it may not, regions and columns."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.api.domain import COMBINATIONS, Domain, columns, read_domain
from provenn.verifier.errors import InvalidSpecification, ResourceLimit

FEATURES = [
    {"name": "age", "range": [18, 100]},
    {"name": "sex", "values": [0, 1]},
    {"name": "colour", "one_hot": 3},
    {"name": "bias", "value": 1},
    {"range": [-0.1, 0.3]},
]


def domain(*features: Any, inputs: int | None = None) -> Domain:
    size = inputs or sum(f.get("one_hot", 1) for f in features)
    return read_domain(json.dumps({"features": list(features)}).encode(), size)


def test_every_combination_is_a_region() -> None:
    places = domain(*FEATURES).places(())
    assert [place.label for place in places] == [f"sex={s}, colour={c}" for s in (0, 1) for c in range(3)]
    last = places[-1].set
    assert last.exact_lower == (18, 1, 0, 0, 1, 1, Fraction(-1, 10))
    assert last.exact_upper == (100, 1, 0, 0, 1, 1, Fraction(3, 10))
    assert places[-1].stated["upper"][-1] == "0.3"


def test_what_is_asked_ranges_over_everything_between_its_values() -> None:
    places = domain(*FEATURES).places([0, 1])
    assert [place.label for place in places] == ["colour=0", "colour=1", "colour=2"]
    assert (places[0].set.exact_lower[1], places[0].set.exact_upper[1]) == (0, 1)
    assert places[0].values == {1: (0.0, 1.0)}


def test_values_are_those_of_float32_and_ends_are_exact() -> None:
    (first, second) = domain({"name": "v", "values": [0.1, 0.2]}, {"range": [0.1, 0.2]}).places(())
    assert float(first.set.exact_lower[0]) == np.float32(0.1)
    assert float(second.set.exact_upper[0]) == np.float32(0.2)
    assert first.set.exact_lower[1] == Fraction(1, 10)


def test_features_are_held_at_values_and_categories() -> None:
    held = domain(*FEATURES).fixed({"colour": "2", "age": "20.5", "sex": "1.0"})
    (place,) = held.places(())
    assert place.set.exact_lower[:5] == (Fraction(41, 2), 1, 0, 0, 1)
    assert place.label == ""


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"hue": "1"}, "there is no feature 'hue'; there are age, sex, colour, bias, 6"),
        ({"age": "17"}, "feature 'age' does not have the value 17; it has 18 to 100"),
        ({"sex": "0.5"}, "feature 'sex' does not have the value 0.5; it has 0, 1"),
        ({"colour": "3"}, "feature 'colour' does not have the value 3; it has 0, 1, 2"),
        ({"colour": "red"}, "feature 'colour': 'red' is not a number"),
    ],
)
def test_what_cannot_be_held(held: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidSpecification, match=message):
        domain(*FEATURES).fixed(held)


def test_a_category_that_is_held_stays() -> None:
    once = domain({"name": "colour", "one_hot": 3}).fixed({"colour": "2"})
    assert once.fixed({"colour": "2"}).inputs == 3
    with pytest.raises(InvalidSpecification, match="does not have the value 0; it has 2"):
        once.fixed({"colour": "0"})


def test_columns_are_named_in_many_ways() -> None:
    known = domain(*FEATURES)
    assert columns(["age", " 6", "sex"], 7, known) == (0, 6, 1)
    assert columns(["0-1"], 7, known) == (0, 1)
    assert columns(["all"], 7, known) == (0, 1, 6)
    assert columns(["3", "0-1"], 7) == (3, 0, 1)
    assert columns(["all"], 3) == (0, 1, 2)
    named = domain({"name": "1", "range": [0, 1]}, {"name": "0-1", "range": [0, 1]}, {"name": "all", "range": [0, 1]})
    assert columns(["1", "0-1", "all"], 3, named) == (0, 1, 2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("colour", "feature 'colour' is one-hot: its categories have no order"),
        ("3", "feature 'colour' is one-hot"),
        ("0-2", "feature 'colour' is one-hot"),
        ("bias", "feature 'bias' has one value alone"),
        ("7", "there is no feature '7'"),
        ("0-7", "there is no feature '0-7'"),
        ("", "there is no feature ''"),
        ("age,0", "input 0 is asked about twice"),
    ],
)
def test_columns_that_are_refused(asked: str, message: str) -> None:
    with pytest.raises(InvalidSpecification, match=message):
        columns(asked.split(","), 7, domain(*FEATURES))


@pytest.mark.parametrize("asked", ["age", "7", "3-1", "1-7", "-1", "1.0", "٣"])
def test_without_a_domain_features_are_numbers(asked: str) -> None:
    with pytest.raises(InvalidSpecification, match=r"there is no input '.*': give numbers from 0 to 6"):
        columns([asked], 7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "not JSON: 'utf-8' codec"),
        (b"{", "not JSON"),
        (b"[]", 'a domain is an object with "features", a list'),
        (b'{"features": {}}', 'a domain is an object with "features", a list'),
        (b'{"features": [], "more": 1}', 'a domain is an object with "features", a list'),
        (b'{"features": []}', "the features take 0 inputs, but the network has 1"),
        (b'{"features": [3]}', 'feature 0 is not an object with "name"'),
        (b'{"features": [{"name": 3, "range": [0, 1]}]}', 'feature 0 is not an object with "name"'),
        (b'{"features": [{"name": "", "range": [0, 1]}]}', "a text that is not empty"),
        (b'{"features": [{"name": "a"}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "range": [0, 1], "value": 1}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "range": [0]}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "range": [true, false]}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "range": ["0", "1"]}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "range": [1, 0]}]}', "feature 0, 'a': its range ends before it begins"),
        (b'{"features": [{"name": "a", "range": [0, 1], "range": [0, 2]}]}', "an object has 'range' twice"),
        (b'{"features": [{"name": "a", "range": [0, NaN]}]}', "'NaN' is not a number"),
        (b'{"features": [{"name": "a", "range": [0, 1e39]}]}', "feature 0, 'a': 1000.* is beyond float32"),
        (b'{"features": [{"name": "a", "value": -1e300}]}', "feature 0, 'a': -1000.* is beyond float32"),
        (b'{"features": [{"name": "a", "value": "1"}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "values": []}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "values": [1, 1.0]}]}', "feature 0, 'a': two of its values are the same"),
        (b'{"features": [{"name": "a", "one_hot": 0}]}', "feature 0, 'a': expected one of .* 1 to 1024"),
        (b'{"features": [{"name": "a", "one_hot": 2.5}]}', "feature 0, 'a': expected one of"),
        (b'{"features": [{"name": "a", "one_hot": 2}]}', "the features take 2 inputs, but the network has 1"),
        (b'{"features": [{"name": "a", "value": 1}, {"name": "a", "value": 1}]}', "feature 'a' is there twice"),
        (b'{"features": [{"value": 1}, {"name": "0", "value": 1}]}', "feature '0' is there twice"),
    ],
)
def test_bad_files(text: bytes, message: str) -> None:
    with pytest.raises(InvalidSpecification, match=message):
        read_domain(text, 1)


def test_too_many_combinations_are_refused_until_some_are_held() -> None:
    binary = [{"name": f"b{i}", "values": [0, 1]} for i in range(11)]
    known = domain(*binary)
    with pytest.raises(ResourceLimit, match=r"combinations of categories \(2048\); hold some fixed"):
        known.places(())
    assert len(known.places([3])) == COMBINATIONS
    assert len(known.fixed({"b0": "1"}).places(())) == COMBINATIONS


@given(st.lists(st.sampled_from(["range", "values", "one_hot", "value"]), min_size=1, max_size=5), st.data())
def test_regions_cover_exactly_what_the_features_may_be(kinds: list[str], data: st.DataObject) -> None:
    made = {
        "range": {"range": [-1, 2]},
        "values": {"values": [0, 1, 3]},
        "one_hot": {"one_hot": 2},
        "value": {"value": 5},
    }
    may: dict[str, list[list[float]]] = {"range": [[-1.0], [2.0], [0.5]], "values": [[0.0], [1.0], [3.0]]}
    may |= {"one_hot": [[1.0, 0.0], [0.0, 1.0]], "value": [[5.0]]}
    not_there = {"range": [2.5], "values": [0.5], "one_hot": [1.0, 1.0], "value": [4.0]}
    places = domain(*(made[kind] for kind in kinds)).places(())
    point = [data.draw(st.sampled_from(may[kind])) for kind in kinds]
    assert sum(place.set.contains(np.concatenate(point)) for place in places) == 1
    wrong = data.draw(st.integers(0, len(kinds) - 1))
    point[wrong] = not_there[kinds[wrong]]
    assert not any(place.set.contains(np.concatenate(point)) for place in places)
