"""The short form of the storm: whatever is killed, every job ends once, with the answer it has without a service."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from storm import storm


@pytest.mark.xdist_group("postgresql")
def test_nothing_is_lost_on_postgresql(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    happened, wrong = storm(tmp_path, postgresql(), 10, 50, 1)
    assert not wrong, happened
    assert happened["jobs succeeded"] + happened["jobs failed"] == 50


@pytest.mark.slow
def test_nothing_is_lost_on_sqlite(tmp_path: Path) -> None:
    happened, wrong = storm(tmp_path, None, 6, 30, 2)
    assert not wrong, happened
    assert happened["jobs succeeded"] + happened["jobs failed"] == 30
