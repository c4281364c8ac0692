"""Lipschitz bounds from the file to the certificate: known constants, what cannot be proved, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN
from lipschitz_models import ILL_POSED, POSED, convolution, implicit, pointwise
from service_kit import SMALL, mlp

import provenn
from provenn.api import lipschitz, lipschitz_lower
from provenn.api.lipschitz import Contradiction, LipschitzResult, Options, bound, load
from provenn.api.lipschitz_question import Around, Question, differences, matrix
from provenn.solvers.lipsdp.searched import Found
from provenn.verifier.errors import (
    BackendError,
    InvalidModel,
    InvalidSpecification,
    ProvennError,
    ResourceLimit,
    UnsupportedOp,
)

ROOT2 = math.sqrt(2)


def bounded(data: bytes, question: Question | None = None, **options: Any) -> LipschitzResult:
    """As a user asks."""
    return bound(load(data), question or Question(), Options(**{"seconds": 8.0, **options}))


def certain(data: bytes, result: LipschitzResult) -> list[float]:
    """The numbers, which the checker has to find in the certificate too."""
    assert (result.verdict, result.assurance) == ("verified", "checked"), result.reason
    assert result.certificate is not None
    uppers = result.upper if isinstance(result.upper, list) else [result.upper]
    lowers = result.lower if isinstance(result.lower, list) else [result.lower]
    assert list(provenn.check(result.certificate, data).uppers) == uppers
    assert all(
        isinstance(u, float) and isinstance(low, float) and low <= u for u, low in zip(uppers, lowers, strict=True)
    )
    return [u for u in uppers if u is not None]


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(), [1.0]),
        (Question("inf", "inf"), [1.0]),
        (Question("inf", "1"), [2.0]),
        (Question("inf"), [ROOT2]),
        (Question("2", "1"), [2.0]),
        (Question(rows="1"), [1.0]),
        (Question(rows="pairs"), [ROOT2]),
        (Question("inf", rows="pairs:1"), [2.0]),
        (Question("2", "each"), [1.0, 1.0]),
        (Question(scale=(2.0, 4.0)), [0.5]),
        (Question("inf", "each", scale=(2.0, 4.0)), [0.5, 0.25]),
        (Question(region=Around((-1.0, 1.0), 0.5)), [1.0]),
        (Question(rows="0", region=Around((-1.0, 1.0), 0.5)), [0.0]),
    ],
)
def test_constants_of_relu(question: Question, expected: list[float]) -> None:
    found = certain(PLAIN, bounded(PLAIN, question))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert all(f >= e for f, e in zip(found, expected, strict=True))


def test_every_method_is_above_the_search_and_in_order() -> None:
    names = ("norm-product", "eclipse-fast", "lipsdp-layer", "lipsdp-neuron", "auto")
    found = {name: certain(SMALL, bounded(SMALL, method=name))[0] for name in names}
    assert found["auto"] == pytest.approx(found["lipsdp-neuron"], rel=1e-6)
    slack = 1 + 1e-7
    assert found["lipsdp-neuron"] <= found["lipsdp-layer"] * slack <= found["norm-product"] * slack**2
    assert found["lipsdp-neuron"] <= found["eclipse-fast"] * slack


def test_the_conic_form_agrees() -> None:
    pytest.importorskip("cvxpy")
    pytest.importorskip("clarabel")
    result = bounded(SMALL, method="lipsdp-conic", solver="clarabel")
    assert result.method == "lipsdp-conic (clarabel)"
    assert certain(SMALL, result)[0] == pytest.approx(certain(SMALL, bounded(SMALL))[0], rel=1e-5)


def test_a_region_is_never_worse() -> None:
    everywhere = certain(SMALL, bounded(SMALL, Question(rows="0-1")))[0]
    for norm, clip in (("inf", None), ("2", (0, 1)), ("1", None)):
        around = Around([0.1, 0.2, 0.3, 0.4], "1/10", norm, clip)
        assert certain(SMALL, bounded(SMALL, Question(rows="0-1", region=around)))[0] <= everywhere * (1 + 1e-7)


def test_the_answer_says_what_was_asked_and_how_well() -> None:
    result = bounded(SMALL, Question("inf", "inf", "0,2"), method="lipsdp-neuron")
    assert (result.norm, result.output_norm, result.rows) == ("inf", "inf", "0,2")
    assert (result.method, result.well_posed, result.reason) == ("lipsdp-neuron", None, None)
    assert result.gap is not None
    assert 0 <= result.gap < 1e-3
    assert {"coordinates", "units", "solve_seconds", "proof_seconds", "check_seconds"} <= result.stats.keys()
    assert result.seconds > 0


def test_functions_of_which_the_checker_knows_slopes_alone() -> None:
    data = pointwise("Elu", "Softplus")
    assert certain(data, bounded(data))[0] == pytest.approx(1.0, rel=1e-6)
    refused = bounded(data, Question(region=Around((0.5, 0.5), 0.1)))
    assert (refused.verdict, refused.upper) == ("unknown", None)
    assert refused.reason is not None
    assert "slopes only" in refused.reason


@pytest.mark.parametrize("data", [convolution(), pointwise("Tanh", residual=True), pointwise("Elu")])
def test_other_networks(data: bytes) -> None:
    certain(data, bounded(data))
    size = math.prod(load(data).graph.input_shape)
    certain(data, bounded(data, Question(region=Around([0.5] * size, 0.1))))


def test_convolutions_frequency_by_frequency() -> None:
    data = convolution(pooled=False)
    result = bounded(data, method="lipsdp-channel")
    assert result.method == "lipsdp-channel"
    assert certain(data, result)[0] >= certain(data, bounded(data))[0] * (1 - 1e-9)
    with pytest.raises(BackendError, match="l2"):
        bounded(data, Question(norm="inf"), method="lipsdp-channel")


def test_an_implicit_layer_that_has_one_fixed_point() -> None:
    result = bounded(POSED)
    assert result.well_posed is True
    # (1 - W)^-1 = [[1, 2], [-2, 1]] / 2.5: its rows' difference is (3, 1) / 2.5, where both units are active
    assert certain(POSED, result)[0] >= math.hypot(3, 1) / 2.5
    refused = bounded(POSED, Question(region=Around((0.0, 0.0), 1.0)))
    assert (refused.verdict, refused.upper, refused.certificate) == ("unknown", None, None)
    assert refused.reason is not None
    assert "no bounds over a region" in refused.reason


@pytest.mark.parametrize("weight", [[[2.0, 0.0], [0.0, 0.0]], [[0.0, 3.0], [3.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]])
def test_an_implicit_layer_without_one_has_no_number(weight: list[list[float]]) -> None:
    result = bounded(implicit(weight))
    assert (result.verdict, result.upper, result.lower, result.assurance) == ("unknown", None, None, None)
    assert (result.well_posed, result.certificate) == (False, None)
    assert result.reason is not None
    assert "implicit" in result.reason


def test_a_network_that_the_checker_does_not_read_has_no_number() -> None:
    result = bounded(pointwise("Exp"), Question(region=Around((0.0, 0.0), 1.0)))
    assert (result.verdict, result.upper, result.assurance) == ("unknown", None, None)
    assert result.reason is not None
    assert "Exp" in result.reason


@pytest.mark.parametrize("operator", ["Exp", "Softmax", "Reciprocal", "Sign"])
def test_no_finite_slope(operator: str) -> None:
    with pytest.raises(UnsupportedOp, match="a bounded region") as refused:
        bounded(pointwise("Relu", operator))
    assert (refused.value.node, refused.value.op_type) == (operator.lower(), operator)


def test_a_file_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidModel, match="ONNX"):
        load(b"This is not a network.")


def test_no_time_gives_no_number() -> None:
    result = bounded(SMALL, seconds=1e-9)
    assert (result.verdict, result.upper, result.certificate) == ("timeout", None, None)


def test_an_interrupt_ends_the_search_and_not_the_proof() -> None:
    data = mlp([8, 20, 20, 4])

    def interrupt(done: int, total: int, phase: str) -> None:
        if "at most" in phase:
            raise KeyboardInterrupt

    result = bound(load(data), Question(), Options(seconds=30.0), interrupt)
    assert result.reason is not None
    assert "interrupted" in result.reason
    assert certain(data, result)[0] >= certain(data, bounded(data))[0] * (1 - 1e-7)


def test_progress_says_how_far_it_is() -> None:
    seen: list[str] = []
    bound(load(SMALL), Question(rows="pairs"), Options(seconds=8.0), lambda done, total, phase: seen.append(phase))
    assert {"closed forms", "proof", "a bound from below"} <= set(seen)
    assert any("at most about" in phase for phase in seen)


def test_a_contradiction_is_not_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*_: object) -> Found:
        return Found(1e9, None, None)  # type: ignore[arg-type]

    monkeypatch.setattr(lipschitz_lower, "searched", wrong)
    with pytest.raises(Contradiction, match="below 1000000000"):
        bounded(SMALL)
    assert not issubclass(Contradiction, ProvennError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "no such method; there are auto, norm-product"),
        ({"solver": "scs"}, "takes no solver"),
        ({"method": "lipsdp-conic", "solver": "abacus"}, "unknown; there are clarabel"),
    ],
)
def test_unknown_methods(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BackendError, match=message):
        Options(**options)


def test_mosek_needs_its_package_and_a_licence() -> None:
    status = lipschitz.conic.availability("mosek")
    if status == "available":
        pytest.skip("MOSEK has a licence here")
    with pytest.raises(BackendError, match="licence"):
        Options("lipsdp-conic", "mosek")


def test_methods_that_do_not_take_the_network() -> None:
    with pytest.raises(BackendError, match="chains of layers"):
        bounded(pointwise("Tanh", residual=True), method="eclipse-fast")
    with pytest.raises(BackendError, match="implicit"):
        bounded(POSED, method="norm-product")


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (Question("3"), "norm '3' to '2' is not known"),
        (Question("2", "3"), "norm '2' to '3' is not known"),
        (Question(rows="2"), "row 2 is not an output of this network; the outputs are 0 to 1"),
        (Question(rows="pairs:2"), "row 2 is not an output"),
        (Question(rows=""), "'' does not name rows"),
        (Question(rows="x"), "'x' does not name rows"),
        (Question(rows="-1"), "'-1' does not name rows"),
        (Question(rows="pairs:"), "does not name rows"),
        (Question(rows="1-0"), "0 comes before 1"),
        (Question(rows="0,0"), "names a row twice"),
        (Question(scale=(1.0,)), "the scale has 1 numbers for 2 inputs"),
        (Question(scale=(1.0, -1.0)), "the scale of input 1 is -1.0"),
        (Question(scale=(1.0, math.nan)), "the scale of input 1 is nan"),
        (Question(region=Around((1.0,), 0.1)), "the centre has 1 numbers for 2 inputs"),
        (Question(region=Around((1.0, 0.0), -0.1)), "epsilon"),
        (Question(region=Around((1.0, 0.0), 0.1, "3")), "norm"),
        (Question(region=Around((1.0, math.inf), 0.1)), "finite"),
        (Question(region=Around((1.0, 0.0), 0.1, clip=(5, 6))), "empty region"),
    ],
)
def test_questions_that_make_no_sense(question: Question, message: str) -> None:
    with pytest.raises(InvalidSpecification, match=message):
        bounded(PLAIN, question)


def test_rows_as_text() -> None:
    eye = tuple(map(tuple, np.eye(4).tolist()))
    assert matrix("all", 4) == matrix("0-3", 4) == eye
    assert matrix("3,0-1", 4) == (eye[3], eye[0], eye[1])
    assert matrix("pairs", 3) == differences([(0, 1), (0, 2), (1, 2)], 3)
    assert matrix("pairs:1", 3) == ((-1.0, 1.0, 0.0), (0.0, 1.0, -1.0))
    with pytest.raises(InvalidSpecification, match="one output"):
        matrix("pairs", 1)
    with pytest.raises(ResourceLimit, match="rows times outputs"):
        matrix("pairs", 1000)


def test_a_file_of_layers_is_never_called_checked_without_its_proof() -> None:
    assert load(ILL_POSED).network is None
    assert load(POSED).network is not None
