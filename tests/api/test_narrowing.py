"""Bounds of outputs beside a job: they hold, each stage within the one before, and take a share of the time alone."""

from __future__ import annotations

import itertools
import time
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from service_kit import LARGE, Server, mlp, small_request

from provenn.api.certification import load_model
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.narrowing import FIRST, OUTPUTS, SHARE, STAGES, Narrowing
from provenn.api.jobs.progressing import told
from provenn.api.jobs.said import Advance
from provenn.verifier.spec_json import robustness

MODEL = load_model(mlp([4, 12, 12, 3], seed=2))
LONG = 1e6
"""Seconds that a job has taken when every stage's time has come."""


def narrowing(centre: list[float], epsilon: float, began: float, norm: str = "inf") -> Narrowing:
    cases = robustness(centre, label=0, epsilon=epsilon, outputs=3, norm=norm, clip=(-2, 2)).cases
    found = Narrowing.of(MODEL.graph, cases, began)
    assert found is not None
    return found


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.floats(-1, 1, width=32), min_size=4, max_size=4),
    st.sampled_from([0.0, 0.01, 0.3, 1.0]),
    st.sampled_from(["inf", "2", "1"]),
)
def test_every_stage_holds_and_lies_in_the_one_before(centre: list[float], epsilon: float, norm: str) -> None:
    found = narrowing(centre, epsilon, time.monotonic() - LONG, norm)
    assert [found.go_on() for _ in range(len(STAGES) + 1)] == [True] * len(STAGES) + [False]
    assert [each["method"] for each in found.found] == ["ibp", "crown", "alpha-crown"]
    offsets = np.random.default_rng(0).uniform(-1, 1, (50, 4))
    length = np.abs(offsets).sum(1) if norm == "1" else np.linalg.norm(offsets, axis=1) if norm == "2" else np.ones(50)
    points = np.clip(np.array(centre) + epsilon * offsets / np.maximum(1, length)[:, None], -2, 2)
    outputs = MODEL.graph.forward(torch.tensor(points, dtype=torch.float64)).numpy()
    slack = 1e-4 * (1 + np.abs(outputs).max())  # float32 bounds, which nobody calls proofs
    for each in found.found:
        assert (outputs >= np.array(each["lower"]) - slack).all()
        assert (outputs <= np.array(each["upper"]) + slack).all()
    for one, other in itertools.pairwise(found.found):
        assert all(a <= b for a, b in zip(one["lower"], other["lower"], strict=True))
        assert all(a >= b for a, b in zip(one["upper"], other["upper"], strict=True))


def test_a_stage_waits_until_it_fits_into_the_share() -> None:
    assert not narrowing([0.0] * 4, 0.1, time.monotonic()).go_on()
    found = narrowing([0.0] * 4, 0.1, time.monotonic() - 1.5 * FIRST / SHARE)
    assert found.go_on()
    assert not found.go_on()


def test_large_networks_and_several_cases_are_left_alone() -> None:
    cases = robustness([0.0] * 4, label=0, epsilon=0.1, outputs=3).cases
    assert Narrowing.of(MODEL.graph, cases * 2, 0.0) is None
    wide = load_model(mlp([2, 3, OUTPUTS + 1])).graph
    assert Narrowing.of(wide, robustness([0.0] * 2, label=0, epsilon=0.1, outputs=OUTPUTS + 1).cases, 0.0) is None


class Pipe(Reporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[dict[str, Any]] = []

    def send(self, message: dict[str, Any]) -> None:
        self.said.append(message["progress"])


def test_every_stage_is_reported_at_once() -> None:
    pipe, found = Pipe(), narrowing([0.0] * 4, 0.1, time.monotonic() - LONG)
    progress = told(pipe, 0, 1, found)
    for _ in range(len(STAGES) + 5):
        progress(0, 1, "words")
    assert len(pipe.said) == len(STAGES)
    assert Advance.model_validate(pipe.said[-1]).bounds is not None


ENCLOSURE = {"method": "ibp", "seconds": 0.1, "lower": [0.0], "upper": [1.0]}


@pytest.mark.parametrize(
    "bounds",
    [
        "ibp",
        [ENCLOSURE] * 17,
        [ENCLOSURE | {"lower": [0.0] * (OUTPUTS + 1)}],
        [ENCLOSURE | {"lower": [float("nan")]}],
        [ENCLOSURE | {"upper": ["1"]}],
        [ENCLOSURE | {"seconds": -1.0}],
        [ENCLOSURE | {"more": 1}],
        [{"method": "ibp"}],
    ],
)
def test_what_has_another_form_is_not_believed(bounds: object) -> None:
    step = {"done": 0, "total": 1, "phase": "ibp"}
    assert Advance.model_validate(step | {"bounds": [ENCLOSURE]})
    with pytest.raises(ValidationError):
        Advance.model_validate(step | {"bounds": bounds})


def test_a_job_about_one_input_shows_them_and_a_batch_does_not(server: Server) -> None:
    model = server.model(LARGE)
    one = {"inputs": [[0.5] * 64], "labels": [0], "epsilons": [0.02]}
    request = {"model": model, "inputs": one, "cache": False, "budget": {"seconds": 3}}
    shown = server.ended(server.submit(request))["progress"]["bounds"]
    assert shown[0]["method"] == "ibp"
    assert all(low <= high for low, high in zip(shown[-1]["lower"], shown[-1]["upper"], strict=True))
    batch = server.ended(server.submit(small_request(server.model(mlp([4, 8, 3])), epsilons=[0.01, 0.02])))
    assert batch["progress"]["bounds"] is None
