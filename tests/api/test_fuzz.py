"""The fuzz run of uploads, for three seconds: that it can be run, and that what it says of itself is true."""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
from service_kit import serving

sys.path.insert(0, str(Path(__file__).parents[1] / "fuzz"))
from fuzz_server import Running
from upload_fuzz import MEMORY, SECONDS, fuzz, report
from upload_mutations import MEANINGS, changed
from upload_seeds import DATASET, SPECIFICATION, Upload, seeds

from provenn.api.routes import models


def test_changed_uploads_harm_nothing(tmp_path: Path) -> None:
    with serving(tmp_path / "data", inspect_seconds=SECONDS, inspect_memory_mb=MEMORY) as server:
        seen = Running(os.getpid(), server.url, server.client, tmp_path / "data")
        outcome = fuzz(seen, seeds(slow=False), 3, 1)
    assert not outcome.failures, "\n".join(report(outcome))
    assert outcome.by_http > 0
    assert len(outcome.answers) > 1


def test_a_server_that_falls_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = seeds(slow=False)
    sound, calls, valid = (
        models._admitted,
        itertools.count(),
        [u for u in kept if u.format not in (SPECIFICATION, DATASET)],
    )

    def fall(*given: Any) -> Any:
        return sound(*given) if next(calls) < len(valid) else 1 / 0

    monkeypatch.setattr(models, "_admitted", fall)
    with serving(tmp_path / "data", inspect_seconds=SECONDS, inspect_memory_mb=MEMORY) as server:
        outcome = fuzz(Running(os.getpid(), server.url, server.client, tmp_path / "data"), kept, 0.1, 1)
    assert any("status 500" in failure for failure in outcome.failures)


@pytest.mark.parametrize("upload", seeds(slow=False), ids=lambda upload: upload.format)
def test_changes_are_changes_and_can_be_repeated(upload: Upload) -> None:
    made = [changed(upload, seeds(slow=False), Random(seed)) for seed in range(30)]
    assert made == [changed(upload, seeds(slow=False), Random(seed)) for seed in range(30)]
    assert len({(each.data, each.architecture) for each in made} - {(upload.data, upload.architecture)}) > 20


def test_every_format_has_changes_of_its_own() -> None:
    assert {upload.format for upload in seeds(slow=False)} | {"pt2"} == set(MEANINGS)
