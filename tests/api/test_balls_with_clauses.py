"""Balls in the norms 2 and 1 with clauses of any form: decided where the box around them is not, and proved."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from service_kit import mlp

import provenn
from provenn.models.executor import OnnxExecutor

NETWORK = mlp([3, 8, 8, 2], 11)
CENTRE, RADIUS = np.array([0.25, -0.5, 0.125]), 0.5
POINTS = np.random.default_rng(1).uniform(-1, 1, (20000, 3))


def largest(points: np.ndarray) -> float:
    """Of y_0 + y_1, among points around the centre."""
    return float(OnnxExecutor(NETWORK).run((CENTRE + RADIUS * points).astype(np.float32)).sum(1).max())


def inside(norm: int) -> np.ndarray:
    return POINTS / np.maximum(np.linalg.norm(POINTS, norm, axis=1, keepdims=True), 1)


def ball(norm: str, limit: float, **changes: Any) -> dict[str, Any]:
    """Both y_0 + y_1 >= limit and y_0 >= -100: the second row alone excludes nothing."""
    unsafe = [{"C": [[1, 1], [1, 0]], "d": [limit, -100]}]
    about = {"format": "provenn-specification/1", "kind": "ball", "input": CENTRE.tolist(), "epsilon": RADIUS}
    return about | {"norm": norm, "unsafe": unsafe} | changes


@pytest.mark.parametrize("semantics", ["real", "float32"])
@pytest.mark.parametrize("norm", ["1", "2"])
def test_the_ball_is_decided_and_not_the_box_around_it(norm: str, semantics: str) -> None:
    reached = largest(inside(int(norm)))
    beyond = largest(POINTS)
    assert beyond > reached + 0.02
    limit = reached + (beyond - reached) / 3
    found = provenn.prove(NETWORK, ball(norm, limit), semantics=semantics)
    assert isinstance(found, provenn.ItemResult)
    assert found.verdict == "verified"
    assert found.certificate is not None
    report = provenn.check(found.certificate, NETWORK)
    assert report.assurance == ("checked" if semantics == "real" else "deployed")
    assert 0 < report.margin <= limit - reached
    around = provenn.prove(NETWORK, ball("inf", limit), semantics=semantics)
    assert isinstance(around, provenn.ItemResult)
    assert around.verdict == "falsified"


@pytest.mark.parametrize("norm", ["1", "2"])
def test_counterexamples_lie_in_the_ball(norm: str) -> None:
    limit = largest(inside(int(norm))) - 1e-3
    found = provenn.prove(NETWORK, ball(norm, limit))
    assert isinstance(found, provenn.ItemResult)
    assert found.verdict == "falsified"
    assert found.counterexample is not None
    x = np.array(found.counterexample.input)
    assert np.linalg.norm(x - CENTRE, int(norm)) <= RADIUS
    assert OnnxExecutor(NETWORK).run(x.astype(np.float32)[None]).sum() >= limit - 1e-6


def test_a_branch_and_bound_certificate_of_a_ball() -> None:
    limit = largest(inside(2)) + 2e-3
    found = provenn.prove(NETWORK, ball("2", limit), method="branch-and-bound")
    assert isinstance(found, provenn.ItemResult)
    assert (found.verdict, found.assurance) == ("verified", "checked")


def test_cases_of_several_norms_in_one_specification() -> None:
    unsafe = [{"C": [[1, 1]], "d": [max(largest(inside(1)), largest(inside(2))) + 0.01]}]
    box = {"lower": (CENTRE - RADIUS).tolist(), "upper": (CENTRE + RADIUS).tolist(), "unsafe": unsafe}
    balls = [{"ball": {"input": CENTRE.tolist(), "epsilon": RADIUS, "norm": norm}} for norm in ("2", "1")]
    point = {"lower": CENTRE.tolist(), "upper": CENTRE.tolist(), "unsafe": unsafe}
    asked = {"format": "provenn-specification/1", "kind": "cases", "cases": [box | balls[0], point, box | balls[1]]}
    found = provenn.prove(NETWORK, asked)
    assert isinstance(found, provenn.ItemResult)
    assert (found.verdict, found.assurance) == ("verified", "checked")
