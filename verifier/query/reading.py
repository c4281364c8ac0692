"""Any VNN-LIB file, gzipped or not, by its content: 1.0 or 2.0."""

from __future__ import annotations

import re

from provenn.verifier.errors import InvalidSpecification
from provenn.verifier.query.query import Query
from provenn.verifier.query.vnnlib1 import read_vnnlib1
from provenn.verifier.query.vnnlib2 import read_vnnlib2
from provenn.verifier.spec_reader import gunzipped

_START = re.compile(rb"(?:\s+|;[^\n]*+)*+(\(\s*(?:vnnlib-version|declare-network)?|)")


def read_query(data: bytes) -> Query:
    """The query in `data`.

    Raises: InvalidSpecification with the line where there is one; ResourceLimit; BackendError without `vnnlib`.
    """
    text = gunzipped(data)
    start = _START.match(text)
    assert start is not None
    if start[1].endswith((b"vnnlib-version", b"declare-network")):
        return read_vnnlib2(text)
    if not start[1]:
        if start.end() == len(text):
            raise InvalidSpecification("the query is empty")
        raise InvalidSpecification("not VNN-LIB", text.count(b"\n", 0, start.end()) + 1)
    return read_vnnlib1(text)
