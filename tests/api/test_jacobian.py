"""Intervals of derivatives: they hold at points and beside kinks, converge to points, and parts are never looser."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from derivative_models import chain, derivatives, differences, layers
from hypothesis import given, settings
from hypothesis import strategies as st
from lipschitz_models import convolution, pointwise

from provenn.api.certification import load_model
from provenn.api.domain import Place
from provenn.api.jacobian import JacobianResult, Question, jacobian
from provenn.api.lipschitz_jacobian import METHODS
from provenn.api.lipschitz_question import Around, matrix
from provenn.api.monotonicity import INTERRUPTED, Options
from provenn.verifier.check import check
from provenn.verifier.errors import InvalidSpecification

Numbers = np.ndarray


def bounded(data: bytes, question: Question, method: str = "crown", seconds: float = 3.0) -> tuple[Numbers, Numbers]:
    """The ends, which a certificate states, and between which lies what was seen."""
    return ends(data, jacobian(load_model(data, slopes=True), question, Options(method, seconds)))


def ends(data: bytes, result: JacobianResult) -> tuple[Numbers, Numbers]:
    assert (result.verdict, result.assurance) == ("verified", "checked"), result.reason
    assert result.certificate is not None
    assert result.lower is not None
    assert result.upper is not None
    assert (result.lower <= result.seen.lower).all()
    assert (result.seen.upper <= result.upper).all()
    lower, upper = np.full(result.lower.shape, -np.inf), np.full(result.upper.shape, np.inf)
    for row, column, low, high in check(result.certificate, data).entries:
        lower[row, column] = max(lower[row, column], -np.inf if low is None else low)
        upper[row, column] = min(upper[row, column], np.inf if high is None else high)
    assert (lower == result.lower).all()
    assert (upper == result.upper).all()
    return result.lower, result.upper


def box(*cells: tuple[float, float]) -> Question:
    return Question(Place.box(tuple((Fraction(a), Fraction(b)) for a, b in cells), ""))


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(["Relu", "Tanh", "LeakyRelu"]), st.sampled_from(sorted(METHODS)))
def test_derivatives_at_points_lie_between(seed: int, function: str, method: str) -> None:
    data = chain(*layers([3, 5, 4, 2], seed), function=function)
    question = Question(Place.around(Around((0.2, -0.3, 0.1), "0.5")), "all")
    lower, upper = bounded(data, question, method, seconds=0.3)
    random = np.random.default_rng(seed)
    points = np.array([0.2, -0.3, 0.1]) + random.uniform(-0.49, 0.49, (200, 3))
    graph = load_model(data).graph
    found = differences(graph, points)
    assert (found >= lower - 1e-6).all()
    assert (found <= upper + 1e-6).all()
    exact = derivatives(graph, points)
    assert (exact >= lower).all()
    assert (exact <= upper).all()


@pytest.mark.parametrize("method", ["crown", "bab"])
def test_kinks_inside_count_from_both_sides(method: str) -> None:
    """y = relu(x): derivatives 0 and 1; y = relu(x) - relu(-x) = x: 1, though float64 has another at the kink."""
    one, two = np.float32([[1]]), np.float32([[1], [-1]])
    none = [np.zeros(1, np.float32), np.zeros(1, np.float32)]
    lower, upper = bounded(chain([one, one], none), box((-1, 1)), method)
    assert (lower[0, 0], upper[0, 0]) == (0.0, pytest.approx(1, abs=1e-6))
    linear = chain([two, np.float32([[1, -1]])], [np.zeros(2, np.float32), none[0]])
    for region in ((-1, 1), (0, 0)):
        lower, upper = bounded(linear, box(region), method, 0.5)
        assert lower[0, 0] <= 1 <= upper[0, 0]


def test_around_a_point_bounds_become_the_derivative() -> None:
    data = chain(*layers([3, 6, 5, 2], 4))
    centre = (0.31, -0.22, 0.13)
    exact = derivatives(load_model(data).graph, np.array([centre]))[0]
    for radius in ("1e-6", "0"):
        lower, upper = bounded(data, Question(Place.around(Around(centre, radius))))
        assert lower == pytest.approx(exact, abs=1e-5)
        assert upper == pytest.approx(exact, abs=1e-5)


def test_methods_are_in_order() -> None:
    data = chain(*layers([3, 6, 6, 2], 2))
    question = Question(Place.around(Around((0.1, 0.2, -0.1), "0.4")), "0,1")
    found = {method: bounded(data, question, method, seconds=3.0) for method in ("ibp", "crown", "bab")}
    for looser, tighter in (("ibp", "crown"), ("crown", "bab")):
        slack = 1e-9 * np.abs(found[looser][0]).max()
        assert (found[tighter][0] >= found[looser][0] - slack).all()
        assert (found[tighter][1] <= found[looser][1] + slack).all()
    width = {method: float((upper - lower).sum()) for method, (lower, upper) in found.items()}
    assert width["bab"] < 0.95 * width["crown"]


def test_rows_are_combinations_of_outputs() -> None:
    data = chain(*layers([2, 4, 3], 1))
    place = Place.around(Around((0.5, 0.5), "0.01"))
    lower, upper = bounded(data, Question(place, "pairs:1"))
    every = derivatives(load_model(data).graph, np.array([[0.5, 0.5]]))[0]
    exact = np.array(matrix("pairs:1", 3)) @ every
    assert lower.shape == (2, 2)
    assert (lower <= exact + 1e-6).all()
    assert (exact <= upper + 1e-6).all()


def test_what_no_input_reaches_is_zero() -> None:
    lower, upper = bounded(pointwise("Relu"), Question(Place.around(Around((1.0, 1.0), "0.5"))))
    assert lower.tolist()[0][1] == upper.tolist()[0][1] == 0.0
    assert not np.signbit(lower).any()


def test_a_network_with_max_pooling_keeps_the_whole_region() -> None:
    data = convolution()
    result = jacobian(load_model(data), Question(Place.around(Around((0.3,) * 36, "0.02"))), Options("bab", 5.0))
    ends(data, result)
    assert "max-pooling" in (result.reason or "")


def test_no_proof_still_has_what_is_seen() -> None:
    question = Question(Place.around(Around((0.0, 0.0), "0.5")))
    result = jacobian(load_model(pointwise("Softmax")), question, Options())
    assert (result.verdict, result.lower, result.certificate) == ("unknown", None, None)
    assert result.seen.lower[0, 0] < result.seen.upper[0, 0]
    late = jacobian(load_model(pointwise("Relu")), question, Options("crown", 1e-9))
    assert (late.verdict, late.lower) == ("timeout", None)


def test_ctrl_c_keeps_the_whole_region() -> None:
    def stop(done: int, total: int, phase: str) -> None:
        if phase == "parts":
            raise KeyboardInterrupt

    data = chain(*layers([3, 6, 2], 2))
    result = jacobian(load_model(data), Question(Place.around(Around((0.0,) * 3, "0.5"))), Options(), stop)
    ends(data, result)
    assert result.reason == INTERRUPTED


def test_regions_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidSpecification, match="the region has 3 numbers for 2 inputs"):
        jacobian(load_model(pointwise("Relu")), box((0, 1), (0, 1), (0, 1)), Options())
