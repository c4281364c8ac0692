"""`provenn certify --cross-check`, and verdicts of auto_LiRPA's methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, STUBBORN, Command

from provenn.api.certification import Options, certify, load_model
from provenn.api.cli import certifying
from provenn.api.cross_check import Disagreement, cross_check
from provenn.solvers.auto_lirpa import AutoLirpaCrown
from provenn.verifier.spec_json import robustness


@pytest.fixture
def peer() -> None:
    if (status := AutoLirpaCrown.status()) != "available":
        pytest.skip(f"auto_LiRPA: {status}")


@pytest.fixture
def provenn(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.chdir(tmp_path)
    Path("plain.onnx").write_bytes(PLAIN)
    Path("stubborn.onnx").write_bytes(STUBBORN)
    np.save("xs.npy", np.array([[1, 0], [0, 1]], np.float32))
    np.save("ys.npy", np.array([0, 1]))
    return Command(capsys)


BATCH = ("certify", "plain.onnx", "--input", "xs.npy", "--label", "ys.npy", "--eps", "0.25", "--eps", "0.75")


@pytest.mark.usefixtures("peer")
def test_agreement_changes_nothing_but_says_so(provenn: Command) -> None:
    plain, checked = provenn(*BATCH, "--json"), provenn(*BATCH, "--cross-check", "--json")
    assert (checked.code, checked.err) == (plain.code, "")
    assert "cross_check" not in plain.json
    assert checked.json["cross_check"] == {"cases": 4, "disagreements": []}
    assert "no disagreement in 4 cases" in provenn(*BATCH, "--cross-check").out


@pytest.mark.usefixtures("peer")
def test_a_margin_that_cannot_be_is_an_error(provenn: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    honest: Callable[..., Any] = certifying.answer

    def inflated(*given: Any) -> Any:
        return [replace(item, margin=0.9) for item in honest(*given)]

    monkeypatch.setattr(certifying, "answer", inflated)
    ran = provenn(*BATCH, "--cross-check", "--json")
    assert ran.code == 1
    assert ran.json["error"]["type"] == "Disagreement"
    assert ran.json["verdict"] == "falsified"
    assert len(ran.json["cross_check"]["disagreements"]) == 4
    assert "the answer's lower bound 0.9 is above the margin" in ran.err
    assert "item 3: " in provenn(*BATCH, "--cross-check").out


@pytest.mark.usefixtures("peer")
def test_a_counterexample_where_bounds_are_positive_is_an_error() -> None:
    model, options = load_model(PLAIN), Options()
    asked = [robustness([1.0, 0.0], label=0, epsilon="0.25", outputs=2)]
    (item,) = certify(model, asked, options)
    assert cross_check(model, asked, [item], options).error is None
    error = cross_check(model, asked, [replace(item, verdict="falsified")], options).error
    assert isinstance(error, Disagreement)
    assert error.index == 0
    assert "a counterexample was replayed, but crown gives a margin of 0.5" in str(error)


def test_without_auto_lirpa_it_is_refused_before_anything_is_done(provenn: Command) -> None:
    if AutoLirpaCrown.status() == "available":
        pytest.skip("auto_LiRPA can be imported here")
    ran = provenn("certify", "plain.onnx", "--input", "xs.npy", "--label", "0", "--eps", "0.1", "--cross-check")
    assert ran.code == 2
    assert "PYTHONPATH=auto_LiRPA" in ran.err


@pytest.mark.usefixtures("peer")
@pytest.mark.parametrize("method", ["auto-lirpa-crown", "auto-lirpa-alpha-crown"])
def test_its_verdicts_are_computed_at_best(provenn: Command, method: str) -> None:
    ran = provenn(*BATCH, "--method", method, "--json")
    assert {(i["verdict"], i["assurance"], i["certificate"]) for i in ran.json["items"]} == {
        ("verified", "computed", None),
        ("unknown", None, None),
    }
    assert f"method {method} makes no certificates" in ran.json["items"][0]["reason"]
