"""Batches in process: verdicts against exact radii, chunks, budgets, and what goes on after a kill."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from batch_kit import LABELS, POINTS, ROOMY, data

from provenn.api.batch import run
from provenn.api.batch.checking import check_batch
from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.rows import Row
from provenn.api.batch.run import certify_batch
from provenn.api.certification import LoadedModel, Options, load_model
from provenn.api.files import InvalidFile
from provenn.verifier.errors import InvalidSpecification

RADII = ("0.1", 0.4, "1/16")
OPTIONS = Options(seconds=30)


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    return load_model(ROOMY)


def test_every_row_is_what_is_known_exactly(model: LoadedModel) -> None:
    said: list[tuple[int, int]] = []
    found = certify_batch(model, data(), Question(RADII), OPTIONS, progress=lambda k, n, _: said.append((k, n)))
    assert [(row.index, row.epsilon) for row in found.rows] == [(i, e) for i in range(6) for e in (0.1, 0.4, 0.0625)]
    for row in found.rows:
        x, label = POINTS[row.index], LABELS[row.index]
        truth = (x[label] - x[1 - label]) / 2
        assert row.epsilon is not None
        assert row.verdict == ("verified" if row.epsilon < truth else "falsified")
        assert row.predicted == int(np.argmax(x))
        assert (row.certificate is not None) == (row.verdict == "verified") == (row.assurance == "checked")
        if row.counterexample is not None:
            assert np.abs(np.array(row.counterexample) - x).max() <= row.epsilon
            assert row.counterexample[1 - label] >= row.counterexample[label]
    wrong = [row for row in found.rows if row.index == 4]
    assert {(row.method, row.counterexample) for row in wrong} == {("execution", (0.75, 1.0))}
    assert (found.summary.clean.count, found.summary.clean.total) == (5, 6)
    assert {n for _, n in said} == {18}
    assert found.root is not None


def test_a_counterexample_is_replayed_at_larger_radii(model: LoadedModel) -> None:
    found = certify_batch(model, data([[0.5, 0.375]], [0]), Question((0.4, 0.1, 0.0625)), OPTIONS)
    assert [row.method for row in found.rows] == ["execution", "execution", "attack"]
    assert len({row.counterexample for row in found.rows}) == 1


def test_float64_inputs_are_taken_exactly(model: LoadedModel) -> None:
    exact = Data(np.array([[0.1, 0.3]]), (1,), ("0",))
    found = certify_batch(model, exact, Question(("0.0999", "0.1001")), OPTIONS)
    assert [row.verdict for row in found.rows] == ["verified", "falsified"]


def without_seconds(rows: list[Row]) -> list[Row]:
    return [replace(row, seconds=0.0) for row in rows]


def test_chunks_change_nothing(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = certify_batch(model, data(), Question(RADII), OPTIONS)
    monkeypatch.setattr(run, "MOST", 2)
    parts = certify_batch(model, data(), Question(RADII), OPTIONS, tmp_path)
    exact = [replace(row, counterexample=None, method="") for row in whole.rows]
    assert without_seconds(exact) == without_seconds(
        [replace(row, counterexample=None, method="") for row in parts.rows]
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["batch.zip", "results.jsonl"]


def test_without_time_everything_is_open_but_what_one_run_shows(model: LoadedModel) -> None:
    found = certify_batch(model, data(), Question((0.1,)), Options(seconds=0.0))
    assert [row.verdict for row in found.rows] == ["timeout"] * 4 + ["falsified", "timeout"]


def test_without_certificates_there_is_no_root(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "batch.zip").write_bytes(b"of an earlier run")
    found = certify_batch(model, data(), Question((0.1,)), Options(seconds=30, certificates=False), tmp_path)
    assert found.root is None
    assert (found.rows[0].verdict, found.rows[0].assurance) == ("verified", "computed")
    assert (found.summary.at(0.1).certified.count, found.summary.at(0.1).verdicts["verified"]) == (0, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


@pytest.mark.parametrize("asked", [Question((0.1,)), Question(largest=0.1)])
def test_verified_is_proved(model: LoadedModel, asked: Question, tmp_path: Path) -> None:
    """What a method without certificates has bounded is unknown, and the bundle is accepted."""
    found = certify_batch(replace(model, network=None), data(), asked, OPTIONS, tmp_path)
    assert {row.verdict for row in found.rows} == {"unknown", "falsified"}
    assert "floating point only" in (found.rows[0].reason or "")
    assert {row.certified for row in found.rows} == {None}
    assert all(each.certified.count == 0 for each in found.summary.radii)
    assert check_batch(tmp_path / "batch.zip", ROOMY).root == found.root


@pytest.mark.parametrize(
    ("given", "asked", "said"),
    [
        (data(POINTS, [0, 1, 1, 0, 2, 0]), Question((0.1,)), r"input 4 \(4\): class 2 .* 0 to 1"),
        (data([[1, 2, 3]], [0]), Question((0.1,)), r"shape \[1, 3\]"),
        (data([[0, 1], [0.5, 1.5]], [1, 1]), Question((0.6, 0.1), clip=(0, 1)), r"input 1 \(1\): empty region"),
        (data([[0, 1], [0.5, 1.5]], [1, 1]), Question(largest=1.0, clip=(0, 1)), r"input 1 \(1\) has values outside"),
    ],
)
def test_what_makes_no_sense_is_refused_at_once(model: LoadedModel, given: Data, asked: Question, said: str) -> None:
    with pytest.raises(InvalidSpecification, match=said):
        certify_batch(model, given, asked, OPTIONS)


KILLED = """
import os, signal, sys
from pathlib import Path
from batch_kit import ROOMY, data
from provenn.api.batch import run
from provenn.api.batch.question import Question
from provenn.api.certification import Options, load_model

def progress(done, total, phase):
    if done > 6:
        os.kill(os.getpid(), signal.SIGKILL)

run.MOST = 1
asked = Question(("0.1", 0.4, "1/16"))
run.certify_batch(load_model(ROOMY), data(), asked, Options(seconds=30), Path(sys.argv[1]), progress)
"""


def test_a_killed_run_goes_on(model: LoadedModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With the rows, the certificates and the root of a run that was not."""
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    paths = [str(path) for path in (Path(__file__).parent, Path(__file__).parents[1])]
    environment = {"PYTHONPATH": ":".join(paths), "PATH": "", "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    kept = sorted(path.name for path in (tmp_path / "work").iterdir())
    assert kept == ["00000.zip", "00001.zip", "about.json"]
    monkeypatch.setattr(run, "MOST", 1)
    with pytest.raises(InvalidFile, match="or of another version: it differs in question"):
        certify_batch(model, data(), Question((0.1,)), OPTIONS, tmp_path)
    with pytest.raises(InvalidFile, match="differs in data"):
        certify_batch(model, data(POINTS, reversed(LABELS)), Question(RADII), OPTIONS, tmp_path)
    with pytest.raises(InvalidFile, match="differs in model"):
        certify_batch(replace(model, sha256="0" * 64), data(), Question(RADII), OPTIONS, tmp_path)
    with monkeypatch.context() as changed, pytest.raises(InvalidFile, match="differs in versions"):
        changed.setattr(run, "provenn_version", lambda: "0.0.1")
        certify_batch(model, data(), Question(RADII), OPTIONS, tmp_path)
    said: list[int] = []
    resumed = certify_batch(model, data(), Question(RADII), OPTIONS, tmp_path, lambda k, n, _: said.append(k))
    assert min(said) >= 6
    fresh = certify_batch(model, data(), Question(RADII), OPTIONS, tmp_path / "fresh")
    assert without_seconds(list(resumed.rows)) == without_seconds(list(fresh.rows))
    assert resumed.root == fresh.root
    assert (tmp_path / "batch.zip").read_bytes() == (tmp_path / "fresh" / "batch.zip").read_bytes()


def test_broken_work_is_refused(model: LoadedModel, tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "about.json").write_text("{")
    with pytest.raises(InvalidFile, match=r"delete .* to begin again"):
        certify_batch(model, data(), Question(RADII), OPTIONS, tmp_path)
