"""Brackets hold the truth: exactly on networks where it is known, and no sampled point ever contradicts one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from batch_kit import LABELS, POINTS, ROOMY, data
from cli_kit import STUBBORN, two_layers
from hypothesis import given, settings
from hypothesis import strategies as st

from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.radius import Bracket
from provenn.api.batch.run import certify_batch
from provenn.api.certification import Counterexample, ItemResult, Options, load_model

OPTIONS = Options(seconds=60)
ROUNDING = 1e-6
"""Of ROOMY's outputs in float32, which are about 10: an execution may misclassify what is so close to a tie."""


@pytest.mark.parametrize(("norm", "unit"), [("inf", 0.5), ("2", 0.5**0.5), ("1", 1.0)])
def test_the_bracket_holds_the_radius(norm: str, unit: float) -> None:
    found = certify_batch(load_model(ROOMY), data(), Question(largest=0.4, tolerance=0.05, norm=norm), OPTIONS)
    for row, x, label in zip(found.rows, POINTS, LABELS, strict=True):
        truth = (x[label] - x[1 - label]) * unit
        if truth < 0:
            assert (row.verdict, row.certified, row.attacked) == ("falsified", None, 0.0)
        elif truth > 0.4:
            assert (row.verdict, row.certified, row.attacked) == ("verified", 0.4, None)
        else:
            assert row.certified is not None
            assert row.attacked is not None
            assert row.certified < row.attacked <= row.certified / (1 - 0.05) * (1 + 1e-9)
            assert row.certified < truth <= row.attacked + ROUNDING
            assert row.verdict == "verified"
            assert row.counterexample is not None


weights = st.integers(-8, 8).map(lambda k: k / 4)


@settings(max_examples=3, deadline=None)
@given(st.lists(weights, min_size=13, max_size=13), st.lists(weights, min_size=4, max_size=4), st.sampled_from("21i"))
def test_no_point_of_a_grid_contradicts_a_bracket(numbers: list[float], places: list[float], norm: str) -> None:
    w = np.array(numbers)
    model = load_model(
        two_layers(w[:6].reshape(3, 2).tolist(), w[6:9].tolist(), [w[9:12].tolist(), [0.5, w[12], -1.0]])
    )
    points = np.array(places, np.float32).reshape(2, 2)
    outputs = model.executor.run(points)
    labels = tuple(int(k) for k in outputs.argmax(1))
    asked = Question(largest=1.0, tolerance=0.1, norm={"i": "inf"}.get(norm, norm))
    found = certify_batch(model, Data(points, labels, ("0", "1")), asked, OPTIONS)
    order = {"inf": np.inf, "2": 2, "1": 1}[asked.norm]
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 41)] * 2), -1).reshape(-1, 2).astype(np.float32)
    for row, x, label in zip(found.rows, points, labels, strict=True):
        near = model.executor.run(x + grid)
        bad = near.max(1, where=np.arange(2) != label, initial=-np.inf) >= near[:, label]
        distances = np.linalg.norm(((x + grid) - x).astype(np.float64), order, axis=1)[bad]
        if row.certified is not None:
            assert row.certified < min(distances.min(initial=np.inf), row.attacked or np.inf)
        if row.attacked is not None:
            witness = np.array(row.counterexample, np.float32)
            assert np.linalg.norm(witness.astype(np.float64) - x, order) <= row.attacked
            y = model.executor.run(witness[None])[0]
            assert y[1 - label] >= y[label]


def test_a_method_without_an_attack_still_gets_one() -> None:
    """STUBBORN is safe around 0 far and wide, which one linear relaxation does not show."""
    zero = Data(np.zeros((1, 1), np.float32), (0,), ("0",))
    found = certify_batch(load_model(STUBBORN), zero, Question(largest=1.0), Options("crown", seconds=60))
    (row,) = found.rows
    assert row.attacked is None
    assert row.certified is None or row.certified < 1
    assert row.verdict in ("verified", "unknown")
    plain = certify_batch(load_model(ROOMY), data([[1, 0]], [0]), Question(largest=2.0), Options("ibp", seconds=60))
    assert plain.rows[0].attacked == pytest.approx(0.5, rel=0.02)


def test_without_time_there_is_no_bracket() -> None:
    found = certify_batch(load_model(ROOMY), data(), Question(largest=1.0), Options(seconds=0.0))
    assert {row.verdict for row in found.rows} == {"timeout", "falsified"}
    assert {row.certified for row in found.rows} == {None}


def test_a_counterexample_outweighs_a_proof() -> None:
    """What float32 executions do where real arithmetic is safe by less than they round."""
    bracket = Bracket(1.0, 0.01)
    proof = ItemResult("verified", "ibp", 1e-9, 0.0, "checked", certificate={})
    broken = ItemResult("falsified", "attack", None, 0.0, "replayed", counterexample=Counterexample([0.0], [0.0]))
    bracket.learn(1.0, broken, lambda item, radius: 0.9)
    bracket.learn(0.5, proof, lambda item, radius: radius)
    assert (bracket.low, bracket.high) == (0.5, 0.9)
    bracket.learn(0.7, replace(broken), lambda item, radius: 0.4)
    assert (bracket.low, bracket.high, bracket.certified) == (0.0, 0.4, None)
    assert bracket.reason is not None
    following = bracket.to_certify()
    assert following is not None
    assert following < 0.4
