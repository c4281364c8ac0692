"""What is said of outputs that rise or fall: proved where it is so by construction, shown by pairs where it is not."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import onnxruntime
import pytest
from derivative_models import chain, layers, monotone, nearly_monotone
from hypothesis import given, settings
from hypothesis import strategies as st
from lipschitz_models import convolution, pointwise

from provenn.api import monotonicity as module
from provenn.api.certification import load_model
from provenn.api.domain import Place, read_domain
from provenn.api.lipschitz_question import Around
from provenn.api.monotonicity import Dependence, MonotonicityResult, Options, Question, Trend, monotonicity
from provenn.solvers.trend import Pair
from provenn.verifier.check import check
from provenn.verifier.errors import BackendError, InvalidSpecification


def box(inputs: int, low: float = -1, high: float = 1) -> Place:
    return Place.box(((Fraction(low), Fraction(high)),) * inputs, "")


def decided(data: bytes, question: Question, seconds: float = 5.0, method: str = "bab") -> MonotonicityResult:
    """Its result; the certificate proves every sign that it names, and every pair is real."""
    result = monotonicity(load_model(data, slopes=True), question, Options(method, seconds))
    signs = {(e.row, e.column, -1) for e in result.dependences if e.lower >= 0}
    signs |= {(e.row, e.column, 1) for e in result.dependences if e.upper <= 0}
    if result.certificate is not None:
        stated = check(result.certificate, data).entries
        assert signs == {(row, column, -1 if upper is None else 1) for row, column, _, upper in stated}
        assert all((low or 0.0) == 0.0 and (high or 0.0) == 0.0 for *_, low, high in stated)
    assert (result.certificate is None) == (not signs) == (result.assurance is None)
    for each in result.dependences:
        for pair, sign in ((each.fall, -1), (each.rise, 1)):
            if pair is not None:
                confirm(data, question, each, pair, sign)
    return result


def confirm(data: bytes, question: Question, each: Dependence, pair: Pair, sign: int) -> None:
    """By onnxruntime, in a session of our own."""
    different = np.flatnonzero((pair.first != pair.second).ravel())
    assert different.tolist() == [each.column]
    assert pair.first.flat[each.column] < pair.second.flat[each.column]
    assert any(p.set.contains(pair.first) and p.set.contains(pair.second) for p in question.places)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    ends = [np.ravel(session.run(None, {"x": end[None]})[0])[each.row] for end in (pair.first, pair.second)]
    assert sign * (float(ends[1]) - float(ends[0])) > 0
    assert float(ends[1]) - float(ends[0]) == pytest.approx(pair.change, rel=1e-3, abs=1e-6)


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 10**6), st.sampled_from(["Relu", "Tanh", "Sigmoid"]), st.booleans())
def test_monotone_by_construction_is_proved(seed: int, function: str, falling: bool) -> None:
    weights, biases = monotone([4, 6, 5, 2], seed, rising=1, dead=2)
    if falling:
        weights[-1] *= -1
    result = decided(chain(weights, biases, function), Question((1, 2), (box(4),)), method="crown")
    expected = Trend.DECREASING if falling else Trend.INCREASING
    assert [e.trend for e in result.dependences if e.column == 2] == [Trend.CONSTANT] * 2
    for each in result.dependences:
        assert each.trend in (expected, Trend.CONSTANT)
        assert (each.rise if falling else each.fall) is None


@settings(deadline=None, max_examples=8)
@given(st.integers(0, 10**6))
def test_what_is_proved_and_what_pairs_show_never_differ(seed: int) -> None:
    data = chain(*layers([3, 5, 2], seed))
    result = decided(data, Question((0, 1, 2), (box(3),)), seconds=0.5)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    points = np.random.default_rng(seed).uniform(-1, 1, (500, 3)).astype(np.float32)
    for each in result.dependences:
        moved = points.copy()
        moved[:, each.column] = 1.0
        change = (session.run(None, {"x": moved})[0] - session.run(None, {"x": points})[0])[:, each.row]
        assert each.lower < 0 or change.min() > -1e-5
        assert each.upper > 0 or change.max() < 1e-5


def test_a_network_that_is_not_monotone_has_both_pairs() -> None:
    data = chain([np.float32([[1], [-1]]), np.float32([[1, 1]])], [np.zeros(2, np.float32), np.zeros(1, np.float32)])
    result = decided(data, Question((0,), (box(1),)))
    (each,) = result.dependences
    assert each.trend == Trend.NEITHER
    assert each.fall is not None
    assert each.rise is not None
    assert each.fall.change == pytest.approx(-1, abs=0.01)
    assert (result.reason, result.certificate, result.timed_out) == (None, None, False)


def test_branch_and_bound_decides_what_the_whole_region_does_not() -> None:
    data, question = nearly_monotone(6), Question((0,), (box(5),))
    (crown,) = decided(data, question, method="crown").dependences
    assert crown.trend == Trend.UNKNOWN
    found = decided(data, question, seconds=60.0)
    assert found.dependences[0].trend == Trend.INCREASING
    assert found.dependences[0].upper <= crown.upper
    assert found.stats["parts"] > 1


def test_methods_that_take_the_region_as_a_whole_say_so() -> None:
    result = decided(nearly_monotone(6), Question((0,), (box(5),)), method="ibp")
    assert result.reason == "ibp bounds the region as a whole; method bab divides it"
    assert not result.timed_out


def test_categories_are_enumerated_and_held() -> None:
    """y = relu(x + 10 c0 - 5) - relu(-x + 10 c1 - 5): rises with x in category 0 and 1; weight 1 for category 2: -x."""
    first = np.float32([[1, 10, 0, 0], [-1, 0, 10, 0], [1, 0, 0, 10]])
    data = chain([first, np.float32([[1, -1, -1]])], [np.full(3, -5, np.float32), np.zeros(1, np.float32)])
    text = json.dumps({"features": [{"name": "x", "range": [-1, 1]}, {"name": "c", "one_hot": 3}]})
    domain = read_domain(text.encode(), 4)
    every = decided(data, Question((0,), tuple(domain.places([0]))))
    assert every.dependences[0].trend == Trend.NEITHER
    assert every.stats["regions"] == 3
    for category, trend in enumerate([Trend.INCREASING, Trend.INCREASING, Trend.DECREASING]):
        held = domain.fixed({"c": str(category)})
        assert decided(data, Question((0,), tuple(held.places([0])))).dependences[0].trend == trend


def test_pairs_have_values_that_features_take() -> None:
    """y = |x - 1/2|: x in {0, 1} gives no pair, though it falls and rises between; x in {0, 1/2, 1} does."""
    shift = np.float32([-0.5, 0.5])
    data = chain([np.float32([[1], [-1]]), np.float32([[1, 1]])], [shift, np.zeros(1, np.float32)])
    for values, trend in (([0, 1], Trend.UNKNOWN), ([0, 0.5, 1], Trend.NEITHER)):
        domain = read_domain(json.dumps({"features": [{"values": values}]}).encode(), 1)
        result = decided(data, Question((0,), tuple(domain.places([0]))), seconds=2.0)
        assert result.dependences[0].trend == trend


@pytest.mark.parametrize("norm", ["inf", "2", "1"])
def test_balls(norm: str) -> None:
    """y = relu(x0) - relu(x1 - 1/2): x1 is felt where |x1| > 1/2 alone."""
    weights = [np.eye(2, dtype=np.float32), np.float32([[1, -1]])]
    data = chain(weights, [np.float32([0, -0.5]), np.zeros(1, np.float32)])
    small = Question((0, 1), (Place.around(Around((0.0, 0.0), "0.4", norm)),))
    assert [e.trend for e in decided(data, small).dependences] == [Trend.INCREASING, Trend.CONSTANT]
    large = Question((0, 1), (Place.around(Around((0.0, 0.0), "0.6", norm)),))
    rises, falls = decided(data, large).dependences
    assert (rises.trend, falls.trend) == (Trend.INCREASING, Trend.DECREASING)
    assert falls.fall is not None


def test_pairs_are_found_in_balls_of_many_inputs() -> None:
    """Whose boxes are far larger: lines end where the ball does."""
    weights, biases = layers([40, 30, 1], 3)
    question = Question((0, 5), (Place.around(Around((0.1,) * 40, "2", "2")),))
    result = decided(chain(weights, biases), question, seconds=3.0, method="crown")
    assert all(each.fall or each.rise for each in result.dependences)


def test_a_network_that_the_kernel_does_not_read_has_pairs() -> None:
    question = Question((0, 1), (Place.around(Around((0.0, 0.0), 1.0)),))
    result = decided(pointwise("Softmax"), question)
    assert "no proof is possible" in (result.reason or "")
    assert "Softmax" in (result.reason or "")
    assert result.dependences[0].rise is not None
    assert result.dependences[1].fall is not None
    assert {e.trend for e in result.dependences} == {Trend.UNKNOWN}


def test_a_network_whose_parts_the_kernel_does_not_bound_keeps_the_whole() -> None:
    question = Question((2, 32), (Place.around(Around((0.3,) * 36, 0.05)),))
    result = decided(convolution(), question)
    assert "max-pooling is not bounded again for parts" in (result.reason or "")
    assert Trend.INCREASING in [e.trend for e in result.dependences]
    assert not result.timed_out


def test_time_that_ends_is_said() -> None:
    result = decided(nearly_monotone(6), Question((0,), (box(5),)), seconds=1e-9)
    assert (result.timed_out, result.reason, result.certificate) == (True, module.LATE, None)
    assert result.dependences[0].trend == Trend.UNKNOWN


def test_ctrl_c_keeps_what_is_proved() -> None:
    weights, biases = monotone([4, 6, 1], 0, rising=1)

    def stop(done: int, total: int, phase: str) -> None:
        if phase == "parts":
            raise KeyboardInterrupt

    model = load_model(chain(weights, biases))
    result = monotonicity(model, Question((0, 1), (box(4, -9, 9),)), Options(), stop)
    assert result.dependences[1].trend == Trend.INCREASING
    assert result.certificate is not None
    early = monotonicity(model, Question((1,), (box(4),)), Options(), lambda *_: stop(0, 0, "parts"))
    assert (early.interrupted, early.reason, early.certificate) == (True, module.INTERRUPTED, None)


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question((), (box(2),)), "features are inputs 0 to 1"),
        (Question((2,), (box(2),)), "features are inputs 0 to 1"),
        (Question((0, 0), (box(2),)), "every feature is asked about once"),
        (Question((0,), ()), "over at least one region"),
        (Question((0,), (box(3),)), "a region has 3 numbers for 2 inputs"),
        (Question((0,), (box(2, 1, 1),)), "input 0 has one value alone"),
        (Question((0,), (box(2),), "2"), "row 2 is not an output"),
    ],
)
def test_questions_that_do_not_fit(question: Question, message: str) -> None:
    data = chain(*layers([2, 3, 2], 0))
    with pytest.raises(InvalidSpecification, match=message):
        monotonicity(load_model(data), question, Options())


def test_unknown_methods_are_refused() -> None:
    with pytest.raises(BackendError, match="no such method; there are crown"):
        Options("magic")
