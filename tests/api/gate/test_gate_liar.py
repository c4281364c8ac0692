"""A service that says what it likes: nothing counts that is not proved, or executed, here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
from gate_kit import GATE, HOLDS, Gate

from provenn.api.client import Client
from provenn.api.client.errors import UnexpectedAnswer
from provenn.api.gate.config import read_config
from provenn.api.gate.found import Item
from provenn.api.gate.plan import thresholds
from provenn.api.gate.remote import Remote
from provenn.api.gate.statements import Subject
from provenn.api.schemas import Counterexample
from provenn.api.schemas import Item as Told
from provenn.solvers.base import silent

EMPTY = HOLDS.replace("(assert (<= X_0 1.1))", "(assert (<= X_0 0.8))")


def told(verdict: str, assurance: str | None = None, at: list[float] | None = None, **where: Any) -> Told:
    """One answer, without a certificate."""
    found = None if at is None else Counterexample(input=at, output=[0.0, 0.0])
    about = {"index": 0, "input": None, "epsilon": None, **where}
    return Told(
        **about,
        verdict=verdict,
        method="auto",
        margin=None,
        seconds=0.0,
        assurance=assurance,
        semantics="real",
        reason=None,
        certificate=None,
        counterexample=found,
        lipschitz=None,
        monotonicity=None,
        jacobian=None,
    )


@dataclass
class Liar:
    """Answers every job with these items; it is its model, its job and its result, too."""

    items: list[Told]
    id: str = "id"

    def upload(self, *_: Any) -> Liar:
        return self

    def certify(self, *_: Any, **__: Any) -> Liar:
        return self

    def wait(self, *_: Any) -> Liar:
        return self


def asked(gate: Gate, checks: str, items: list[Told]) -> tuple[str, tuple[Item, ...]]:
    """(outcome, items) of the first check."""
    gate.write(checks, GATE.replace("[0.05, 0.2]", "[0.2]"))
    check = thresholds(read_config(gate.folder / "provenn.toml"))[0]
    remote = Remote(cast(Client, Liar(items)), 0, silent)
    found = remote.measure(check.question, Subject.of(check.question), 10.0)
    return str(check.judge(found.items).outcome), found.items


@pytest.mark.parametrize("assurance", ["vacuous", "checked", "computed", None])
def test_without_a_certificate_nothing_is_verified(assurance: str | None, gate: Gate) -> None:
    for name in ("holds", "broken"):
        outcome, (item,) = asked(gate, f'properties = ["{name}.vnnlib"]\n', [told("verified", assurance)])
        assert (outcome, item.verdict, item.assurance) == ("unknown", "unknown", None)
        assert "without a certificate" in str(item.reason)


@pytest.mark.parametrize("answer", [told("verified", "vacuous"), told("falsified", "replayed", [1.0, 0.0])])
def test_that_no_input_is_allowed_is_seen_here(answer: Told, gate: Gate) -> None:
    (gate.folder / "empty.vnnlib").write_text(EMPTY)
    outcome, (item,) = asked(gate, 'properties = ["empty.vnnlib"]\n', [answer])
    assert (outcome, item.assurance) == ("passed", "vacuous")
    assert "vacuously true" in str(item.reason)


def test_a_counterexample_is_executed_here(gate: Gate) -> None:
    broken = 'properties = ["broken.vnnlib"]\n'
    assert asked(gate, broken, [told("falsified", "replayed", [1.0, 1.5])])[0] == "failed"
    for harmless in ([1.0, 0.5], [5.0, 9.0], None):
        outcome, (item,) = asked(gate, broken, [told("falsified", "replayed", harmless)])
        assert (outcome, item.verdict) == ("unknown", "unknown")
    with pytest.raises(UnexpectedAnswer, match="of 3 numbers is no input"):
        asked(gate, broken, [told("falsified", "replayed", [1.0, 1.5, 0.0])])


def test_a_counterexample_lies_within_the_radius(gate: Gate) -> None:
    def items(point: list[float]) -> list[Told]:
        others = [told("unknown", input=index, epsilon=0.2) for index in (0, 1, 3)]
        return [*others, told("falsified", "replayed", point, input=2, epsilon=0.2)]

    def verdicts(point: list[float]) -> list[str]:
        found = asked(gate, "attacked_accuracy = 1\n", items(point))[1]
        return [item.verdict for item in found if item.radius == "0.2"]

    assert verdicts([0.45, 0.55]) == ["unknown", "unknown", "falsified", "unknown"]
    assert verdicts([0.1, 0.9]) == ["unknown"] * 4
    with pytest.raises(UnexpectedAnswer, match="of 1 numbers is no input"):
        verdicts([0.45])
