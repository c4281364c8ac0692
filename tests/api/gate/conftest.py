"""A gate in a folder of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from gate_kit import Gate, fill


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Gate:
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    return Gate(tmp_path, capsys)
