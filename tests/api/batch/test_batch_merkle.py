"""The tree of hashes against the recursion that RFC 6962 defines it by."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provenn.api.batch.merkle import audit_path, leaf_hash, root, root_by_path


def defined(leaves: list[bytes]) -> bytes:
    """Section 2.1: split before the largest power of two below the number of leaves."""
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    k = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + defined(leaves[:k]) + defined(leaves[k:])).digest()


@given(st.lists(st.binary(max_size=8), min_size=1, max_size=40), st.data())
def test_the_root_is_as_defined_and_every_path_leads_to_it(leaves: list[bytes], data: st.DataObject) -> None:
    hashes = [leaf_hash(leaf) for leaf in leaves]
    assert root(hashes) == defined(leaves)
    index = data.draw(st.integers(0, len(leaves) - 1))
    path = audit_path(hashes, index)
    assert len(path) <= (len(leaves) - 1).bit_length()
    assert root_by_path(hashes[index], index, len(leaves), path) == root(hashes)
    assert root_by_path(hashes[index], index, len(leaves), [*path, b"\0" * 32]) is None
    assert root_by_path(hashes[index], len(leaves), len(leaves), path) is None
    if path:
        assert root_by_path(hashes[index], index, len(leaves), path[:-1]) is None
        changed = [*path[:-1], bytes(32)]
        assert root_by_path(hashes[index], index, len(leaves), changed) != root(hashes)


def test_known_values() -> None:
    assert root([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert leaf_hash(b"").hex() == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    with pytest.raises(IndexError, match="no leaf 2 among 2"):
        audit_path([bytes(32)] * 2, 2)
