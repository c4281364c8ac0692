"""Any specification file: its form is found by content, gzip is transparent, sizes are limited."""

from __future__ import annotations

import gzip
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.verifier import spec_reader
from provenn.verifier.errors import InvalidSpecification, ProvennError, ResourceLimit
from provenn.verifier.spec_json import FORMAT
from provenn.verifier.spec_reader import gunzipped, read_specification

JSON = json.dumps(
    {"format": FORMAT, "kind": "box", "lower": [-1], "upper": [1], "unsafe": [{"C": [[1]], "d": [2]}]}
).encode()
ONE = b"""(declare-const X_0 Real)(declare-const Y_0 Real)
(assert (>= X_0 -1))(assert (<= X_0 1))(assert (>= Y_0 2))"""
TWO = b"""(vnnlib-version <2.0>)(declare-network N (declare-input X real [1])(declare-output Y real [1]))
(assert (>= X[0] -1.0))(assert (<= X[0] 1.0))(assert (>= Y[0] 2.0))"""
FORMS = {"json": (JSON, "json"), "vnnlib 1.0": (ONE, "vnnlib"), "vnnlib 2.0": (TWO, "json")}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("space", [b"", b"\r\n \t"])
def test_the_three_forms_say_the_same(name: str, space: bytes) -> None:
    data, form = FORMS[name]
    for packed in (
        space + data,
        gzip.compress(space + data, mtime=0),
        gzip.compress(space, mtime=0) + gzip.compress(data, mtime=0),
    ):
        specification = read_specification(packed)
        (case,) = specification.cases
        assert (case.inputs.exact_lower, case.inputs.exact_upper) == ((-1,), (1,))
        assert [(c.matrix, c.bound) for c in case.clauses] == [(((1,),), (2,))]
        assert specification.form == form
        assert read_specification(specification.text).cases[0].clauses == case.clauses
        assert name == "vnnlib 2.0" or specification.text == space + data


@pytest.mark.parametrize("data", [ONE, TWO])
def test_comments_come_before_the_version(data: bytes) -> None:
    comment = b"; (vnnlib-version <2.0>) {\n;\n"
    assert read_specification(comment + data).cases[0].clauses[0].bound == (2,)


@pytest.mark.parametrize("data", [b"", b" \n", b"; only a comment", gzip.compress(b"", mtime=0)])
def test_an_empty_file(data: bytes) -> None:
    with pytest.raises(InvalidSpecification, match="empty"):
        read_specification(data)


@pytest.mark.parametrize("data", [b"\x08\x07\x12\x07pytorch", b"PK\x03\x04", b"[1]", b"declare-const", b"\xff"])
def test_another_kind_of_file(data: bytes) -> None:
    with pytest.raises(InvalidSpecification, match="neither VNN-LIB"):
        read_specification(data)


def test_a_damaged_gzip_file() -> None:
    packed = gzip.compress(ONE, mtime=0)
    with pytest.raises(InvalidSpecification, match="cut short"):
        read_specification(packed[:-4])
    with pytest.raises(InvalidSpecification, match="damaged"):
        read_specification(packed[:-8] + bytes(8))
    with pytest.raises(InvalidSpecification, match="damaged"):
        read_specification(packed + b"more")


def test_a_gzip_bomb_is_refused_while_unpacking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spec_reader, "BYTES", 1 << 20)
    bomb = gzip.compress(bytes(1 << 26), mtime=0)
    assert len(bomb) < 1 << 17
    for data in (bomb, gzip.compress(bytes(1 << 19), mtime=0) * 3, bytes((1 << 20) + 1)):
        with pytest.raises(ResourceLimit, match="1 MiB"):
            gunzipped(data)
    assert gunzipped(gzip.compress(bytes(1 << 20), mtime=0)) == bytes(1 << 20)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([b"", b"{", b"(", b";\n(vnnlib-version <2.0>)", b"\x1f\x8b"]), st.binary(max_size=60))
def test_random_bytes_raise_nothing_but_our_errors(start: bytes, data: bytes) -> None:
    with pytest.raises(ProvennError):
        read_specification(start + data)


@pytest.mark.parametrize("data", FORMS.values(), ids=FORMS)
def test_every_truncation_is_refused_or_read(data: tuple[bytes, str]) -> None:
    for end in range(len(data[0])):
        try:
            assert read_specification(data[0][:end]).cases
        except ProvennError as error:
            assert str(error)


def test_long_hostile_texts_are_refused_in_one_pass() -> None:
    size = 1 << 21
    for data in (
        b'"' + b'\\"' * size,
        b'{"' + b'\\"' * size,
        b"(" * size,
        b"(a b " * size,
        b";" * size,
        b"(" + b" " * size,
    ):
        with pytest.raises(ProvennError):
            read_specification(data)
    with pytest.raises(ProvennError):
        read_specification(b"(vnnlib-version <2.0>)" + b'"\\" ' * size)
    with pytest.raises(ProvennError):
        read_specification(os.urandom(size))
