"""Constants by bounds of the Jacobian, from the file to the certificate, alone and beside LipSDP."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from cli_kit import PLAIN
from service_kit import SMALL, mlp
from test_lipschitz import bounded, certain

from provenn.api import lipschitz, lipschitz_jacobian
from provenn.api.lipschitz import Options, bound, load
from provenn.api.lipschitz_question import Around, Question
from provenn.verifier.errors import BackendError

HERE = Around((-1.0, 1.0), 0.5)


@pytest.mark.parametrize("method", lipschitz_jacobian.METHODS)
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question("inf", "inf", region=HERE), [1.0]),
        (Question("inf", "1", region=HERE), [1.0]),
        (Question("inf", "each", region=HERE), [0.0, 1.0]),
        (Question("inf", rows="pairs", region=HERE), [1.0]),
        (Question("inf", "each", scale=(2.0, 4.0), region=Around((-1.0, 1.0), 2.0)), [0.5, 0.25]),
        (Question("inf", "1", region=Around((0.0, 0.0), 1.0, "2")), [2.0]),
        (Question("inf", "inf", region=Around((0.0, 0.5), 1.0, clip=(0.0, 1.0))), [1.0]),
    ],
)
def test_constants_of_relu(method: str, question: Question, expected: list[float]) -> None:
    result = bounded(PLAIN, question, method=method)
    found = certain(PLAIN, result)
    assert result.method == method
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-6)
    assert all(f >= e for f, e in zip(found, expected, strict=True))


def test_methods_are_in_order_and_auto_is_no_worse_than_either() -> None:
    data = mlp([4, 9, 3], 2)
    around = Around((0.3, -0.2, 0.1, 0.5), 0.2)
    found = {}
    for method in ("ibp", "crown", "lipsdp-neuron", "auto"):
        result = bounded(data, Question("inf", "each", region=around), method=method)
        found[method] = certain(data, result)
    for ibp, crown, lipsdp, auto in zip(*found.values(), strict=True):
        assert crown <= ibp * (1 + 1e-9)
        assert auto <= min(crown, lipsdp) * (1 + 1e-6)


@pytest.mark.parametrize("question", [Question("inf", "inf"), Question("1", "1", region=HERE), Question(region=HERE)])
def test_what_has_no_parts_is_refused(question: Question) -> None:
    with pytest.raises(BackendError, match="it splits a region, row by row"):
        bounded(PLAIN, question, method="bab")


def test_alpha_crown_needs_a_region() -> None:
    with pytest.raises(BackendError, match="optimised over a region"):
        bounded(PLAIN, Question("inf", "inf"), method="alpha-crown")


@pytest.mark.parametrize("output", ["1", "2", "inf"])
@pytest.mark.parametrize("norm", ["1", "2", "inf"])
def test_every_pair_of_norms_has_a_bound(norm: str, output: str) -> None:
    """By the Jacobian alone, and at most that by auto, which never is below a pair."""
    data = mlp([4, 7, 3], 5)
    question = Question(norm, output, region=Around((0.1, -0.2, 0.3, 0.4), 0.3))
    crown, auto = (bounded(data, question, method=m, seconds=2.0) for m in ("crown", "auto"))
    everywhere = bounded(data, Question(norm, output), method="crown", seconds=2.0)
    assert certain(data, everywhere) >= certain(data, crown)
    for upper, other, lower in zip(certain(data, auto), certain(data, crown), np.ravel(auto.lower), strict=True):
        assert lower <= upper
        assert upper <= other * (1 + 1e-6)


def test_branch_and_bound_closes_the_gap() -> None:
    """It ends by itself: the pair that is found lies in the part where the bound is exact."""
    data = mlp([3, 6, 6, 2], 7)
    question = Question("inf", "each", region=Around((0.2, -0.1, 0.4), 0.3))
    crown, result = (bounded(data, question, method=method, seconds=30.0) for method in ("crown", "bab"))
    assert result.method == "bab"
    for upper, lower in zip(certain(data, result), np.ravel(result.lower), strict=True):
        assert upper == pytest.approx(lower, rel=1e-5)
    assert max(certain(data, crown)) > 1.01 * max(certain(data, result))


def test_time_that_ends_before_everything_is_proved_is_said() -> None:
    question = Question("inf", "each", region=Around((0.0,) * 4, 0.3))
    result = bound(load(SMALL), question, Options("crown", seconds=1e-9))
    assert (result.verdict, result.upper, result.certificate) == ("timeout", None, None)


def test_auto_stops_at_what_is_proved_where_multipliers_take_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lipschitz, "PROOF_CUBIC", 1e9)
    result = bounded(PLAIN, Question("inf", "each", region=HERE))
    assert (result.method, certain(PLAIN, result)) == ("crown", pytest.approx([0.0, 1.0], abs=1e-6))


@pytest.mark.shared
def test_a_reference_network(shared: Path) -> None:
    """At most the published value, at least the exact one; multipliers close the gap."""
    folder = shared / "lipschitz" / "local"
    data = (folder / "digits_mlp_64-50-50-10.onnx").read_bytes()
    centre = tuple(np.load(folder / "digits_mlp_64-50-50-10.x0.npy").ravel().tolist())
    exact, published, values = 102.59954435, 102.62395477, {}
    for method in ("crown", "auto"):
        result = bounded(data, Question("inf", "inf", region=Around(centre, "1e-2")), method=method)
        values[method] = certain(data, result)[0]
    assert exact <= values["auto"] < published * (1 - 1e-4)
    assert values["auto"] <= values["crown"] <= published * (1 + 1e-5)
