"""Whatever an answer says: a false question is never called verified, a robust input never falsified."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, two_layers
from hypothesis import given, settings
from hypothesis import strategies as st

import provenn
from provenn.api.client import UnexpectedAnswer
from provenn.api.client.evidence import Answer, Robust
from provenn.api.results import Asked, Origin
from provenn.api.schemas import Counterexample, Item
from provenn.verifier.check import CertificateRejected
from provenn.verifier.spec_json import robustness

AT = np.array([1.0, 0.0])
SAFER = two_layers([[3, 0], [0, 1]], [0, 0], [[1, 0], [0, 1]])
NUMBERS = st.floats() | st.sampled_from([0.0, 0.25, 0.5, 1.0, 1e39])
FOUND = st.none() | st.builds(Counterexample, input=st.lists(NUMBERS, max_size=3), output=st.lists(NUMBERS, max_size=2))
ITEMS = st.builds(
    Item,
    verdict=st.sampled_from(["verified", "falsified", "unknown", "timeout", "proved"]),
    assurance=st.sampled_from(["checked", "deployed", "computed", "replayed", "vacuous", None]),
    margin=st.none() | st.floats(),
    counterexample=FOUND,
    semantics=st.sampled_from(["real", "float32"]),
    reason=st.none() | st.text(max_size=9),
    lipschitz=st.none(),
    monotonicity=st.none(),
    jacobian=st.none(),
)


def robust(eps: float, accept: bool = False) -> Robust:
    question = robustness(AT, label=0, epsilon=eps, outputs=2)
    return Robust(question, Asked(AT, 0, eps, "inf"), "real", accept)


@pytest.fixture(scope="module")
def proofs() -> list[dict[str, bytes] | None]:
    """Certificates that hold: of smaller radii, another norm, another model, of all float32 executions."""
    asked: list[tuple[bytes, dict[str, Any]]] = [
        (PLAIN, {"eps": 0.25}),
        (PLAIN, {"eps": 0.625, "norm": "2"}),
        (SAFER, {"eps": 0.625}),
        (PLAIN, {"eps": 0.25, "semantics": "float32"}),
    ]
    found = [provenn.verify(model, AT, label=0, **how).certificate for model, how in asked]
    assert None not in found
    return [None, {}, *found]


def judged(question: Robust, answer: Answer) -> str:
    try:
        return question.judged(answer).verdict
    except (CertificateRejected, UnexpectedAnswer) as refusal:
        return type(refusal).__name__


@settings(deadline=None, max_examples=150)
@given(item=ITEMS, which=st.integers(0, 5), eps=st.sampled_from([0.5, 0.625, 3.0]))
def test_what_is_false_is_never_verified(
    proofs: list[dict[str, bytes] | None], item: Item, which: int, eps: float
) -> None:
    origin = Origin("http://service", "job", "model")
    assert judged(robust(eps), Answer(item, proofs[which], PLAIN, origin)) != "verified"


@settings(deadline=None, max_examples=150)
@given(item=ITEMS, which=st.integers(0, 5), accept=st.booleans())
def test_what_is_true_is_never_falsified(
    proofs: list[dict[str, bytes] | None], item: Item, which: int, accept: bool
) -> None:
    verdict = judged(robust(0.25, accept), Answer(item, proofs[which], PLAIN, Origin("http://service", "job", "model")))
    assert verdict != "falsified"
    if verdict == "verified":
        assert which == 2 or (accept and proofs[which] is None and item.assurance == "computed")
