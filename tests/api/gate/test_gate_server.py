"""The same checks by a service: the same outcomes, and nothing of it believed without its certificate."""

from __future__ import annotations

from dataclasses import replace

from gate_kit import GATE, Gate, timeless
from service_kit import Server

from provenn.api.gate.config import read_config
from provenn.api.gate.found import Found, Item
from provenn.api.gate.plan import planned
from provenn.api.gate.proofs import believed
from provenn.api.gate.remote import upward
from provenn.api.gate.statements import Subject
from provenn.verifier.numbers import exact, spoken

CHECKS = """
certified_accuracy = [{min = 0.75, radius = "1/30"}, {min = 0.51, radius = 0.2}]
lipschitz = 1.01
properties = ["holds.vnnlib", "broken.vnnlib"]
monotone = {features = "a", domain = "domain.json", expect = "increasing"}
equivalence = {other = "scaled.onnx", delta = 1.11, region = {radius = 0.1}}
"""
HEAD = "budget = 30\n" + GATE.replace("[0.05, 0.2]", "[]")


def test_the_same_outcomes(gate: Gate, server: Server) -> None:
    gate.write(CHECKS, HEAD)
    there = gate.report(server=server.url)
    outcomes = ["passed", "failed", *["passed"] * 3, "failed", "passed"]
    assert [check["outcome"] for check in there["checks"]] == outcomes
    again = gate.report(recheck=True, server=server.url)
    assert all(check["cached"] for check in again["checks"] if check["outcome"] == "passed")
    here = timeless(gate.report())
    for found in (there, here):
        for check in found["checks"]:
            check["examples"] = []  # another search, other counterexamples
    assert timeless(there) == here


def test_a_service_may_refuse(gate: Gate, server: Server) -> None:
    gate.write(
        'certified_accuracy = {min = 1, radius = 0.1, norm = "2"}\n', HEAD.replace("radii", "clip = [5, 6]\nradii")
    )
    ran = gate("--server", server.url)
    assert ran.code == 2
    assert "clip" in ran.err


def test_a_radius_that_no_decimal_is_becomes_a_larger_one() -> None:
    for text in ("1/3", "8/255", "0.1", "0", "2", "1e-9"):
        radius = exact(text)
        found = spoken(upward(radius))
        assert radius <= found <= radius * (1 + exact("1e-15"))


def test_what_a_service_claims_without_proof_is_undecided(gate: Gate) -> None:
    gate.write("certified_accuracy = 1\n")
    config = read_config(gate.folder / "provenn.toml")
    (question,) = planned(config)[0].robustnesses
    claim = Item("verified", "checked", "0" * 64, index=0, name="0", radius="0.05", label=0, predicted=0)
    found = Found((claim, replace(claim, verdict="falsified")), {})
    told = believed(question, Subject.of(question), found)
    assert [item.verdict for item in told.items] == ["unknown", "falsified"]
    assert told.items[0].reason == "a certificate was rejected: it is missing, or holds other bytes than its name says"
