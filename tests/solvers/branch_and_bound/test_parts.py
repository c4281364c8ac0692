"""A search that several have gone on with ends as one search does, and its proof is whole."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from search_kit import interrupted
from test_kept import always, hard, kept_in, provable, resumed  # noqa: F401 - a fixture

from provenn.solvers.base import Budget, Problem, Verdict
from provenn.solvers.branch_and_bound import BranchAndBound
from provenn.solvers.branch_and_bound.parts import divide, join
from provenn.verifier.errors import BackendError


def begun(problem: Problem, split: str, path: Path) -> None:
    """A search that was left off early."""
    with pytest.raises(InterruptedError):
        BranchAndBound(split=split).solve(replace(problem, state=path), Budget(60), interrupted)


@pytest.mark.parametrize("split", ["input", "neuron"])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_parts_that_are_finished_prove_the_whole(split: str, count: int, tmp_path: Path) -> None:
    whole, source = provable(), tmp_path / "search.state"
    begun(whole, split, source)
    parts = [tmp_path / f"part{number}" for number in range(count)]
    opened = divide(source, parts)
    assert opened == sum(len(block) for part in parts for block in kept_in(part, whole).open)
    for part in parts:
        found = BranchAndBound(split=split).solve(replace(whole, state=part, part=True), Budget(60))
        assert found.outcomes[0].verdict != Verdict.FALSIFIED
        assert sum(len(block) for block in kept_in(part, whole).open) == 0
    join(source, parts, tmp_path / "joined")
    assert resumed(whole, split, tmp_path / "joined") > 0


@pytest.mark.parametrize("split", ["input", "neuron"])
def test_parts_that_are_left_off_are_open_in_the_whole(split: str, tmp_path: Path) -> None:
    whole, source = provable(), tmp_path / "search.state"
    begun(whole, split, source)
    parts = [tmp_path / f"part{number}" for number in range(3)]
    divide(source, parts)
    way = BranchAndBound(split=split)
    with pytest.raises(InterruptedError):
        way.solve(replace(whole, state=parts[0], part=True), Budget(60), interrupted)
    way.solve(replace(whole, state=parts[2], part=True), Budget(60))
    join(source, parts, tmp_path / "joined")
    opened = [int(i) for block in kept_in(tmp_path / "joined", whole).open for i in block["id"]]
    assert len(opened) == len(set(opened)) == sum(len(b) for p in parts for b in kept_in(p, whole).open)
    assert resumed(whole, split, tmp_path / "joined") > 0


def test_a_part_that_is_missing_is_noticed(tmp_path: Path) -> None:
    """Its share of the region is neither open nor proved: the whole is not verified."""
    whole, source = provable(), tmp_path / "search.state"
    begun(whole, "input", source)
    parts = [tmp_path / f"part{number}" for number in range(2)]
    divide(source, parts)
    BranchAndBound(split="input").solve(replace(whole, state=parts[0], part=True), Budget(60))
    join(source, parts[:1], tmp_path / "joined")
    found = BranchAndBound(split="input").solve(replace(whole, state=tmp_path / "joined"), Budget(60))
    assert found.outcomes[0].verdict != Verdict.VERIFIED


def test_shares_are_disjoint_and_even(tmp_path: Path) -> None:
    problem, source = hard(30), tmp_path / "search.state"
    begun(problem, "neuron", source)
    parts = [tmp_path / f"part{number}" for number in range(3)]
    opened = divide(source, parts)
    shares = [[int(i) for block in kept_in(part, problem).open for i in block["id"]] for part in parts]
    assert len({i for share in shares for i in share}) == opened == sum(map(len, shares))
    assert np.ptp([len(share) for share in shares]) <= 1


def test_a_file_that_is_no_search_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(b"nothing")
    with pytest.raises(BackendError, match="no state"):
        divide(tmp_path / "nothing", [tmp_path / "part"])
