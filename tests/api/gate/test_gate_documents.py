"""Specification documents among a gate's properties, here and at a service."""

from __future__ import annotations

import json
from typing import Any

from cli_kit import PLAIN
from gate_kit import DOMAIN, HOLDS, Gate
from service_kit import Server

from provenn.api.activation_patterns import digest

FORMAT = {"format": "provenn-specification/1"}
BRIGHT = {"type": "linear", "directions": [[1, 1], [0, 1]], "range": [-0.1, 0.1]}
PERTURBED = {**FORMAT, "kind": "perturbation", "input": [1, 0], "label": 0, "perturbations": [BRIGHT]}
RISING = {**FORMAT, "kind": "monotone", "features": ["a"], "rows": "0", "expect": "increasing", "domain": "domain.json"}
CHECKS = 'properties = ["bright.json", "far.json", "rising.json", "falling.json", "limits.toml"]\n'
LIMITS = """format = "provenn-specification/1"
kind = "box"
lower = [0, 0]
upper = [1, 1]
unsafe = [{C = [[1, 1]], d = [2.5]}]
"""


def fill(gate: Gate) -> None:
    documents: dict[str, dict[str, Any]] = {
        "bright.json": PERTURBED,
        "far.json": {**PERTURBED, "perturbations": [{**BRIGHT, "range": [-3, 3]}]},
        "rising.json": RISING,
        "falling.json": {**RISING, "expect": "decreasing"},
        "domain.json": DOMAIN,
    }
    for name, document in documents.items():
        (gate.folder / name).write_text(json.dumps(document))
    (gate.folder / "limits.toml").write_text(LIMITS)


def test_documents_are_properties(gate: Gate) -> None:
    fill(gate)
    gate.write(CHECKS)
    checks = gate.report()["checks"]
    assert [each["outcome"] for each in checks] == ["passed", "failed", "passed", "failed", "passed"]
    assert "which parameters [" in str(checks[1]["examples"])
    assert "where a goes from" in str(checks[3]["examples"])
    assert all(each["cached"] for each in gate.report(recheck=True)["checks"][:1])


def test_a_service_measures_them_and_they_are_proved_again(gate: Gate, server: Server) -> None:
    fill(gate)
    gate.write(CHECKS)
    checks = gate.report(server=server.url)["checks"]
    assert [each["outcome"] for each in checks] == ["passed", "failed", "passed", "failed", "passed"]
    assert "which parameters [" in str(checks[1]["examples"])


def test_activation_patterns_are_properties(gate: Gate, server: Server) -> None:
    """PLAIN is relu: where x >= 1/10 and y <= 0 class 0 wins. A pattern beside a document, and one in it."""
    layers = [{"relu": "a", "neurons": 2, "active": [0], "inactive": [1]}]
    pattern = {"format": "provenn-activation-pattern/1", "model": digest(PLAIN), "class": 0, "layers": layers}
    (gate.folder / "pattern-0.json").write_text(json.dumps(pattern))
    document = {**FORMAT, "kind": "activation-pattern", "lower": -1, "upper": 1, "margin": 0.1}
    (gate.folder / "zero.json").write_text(json.dumps({**document, "pattern": "pattern-0.json"}))
    (gate.folder / "one.json").write_text(json.dumps({**document, "pattern": {**pattern, "class": 1}}))
    gate.write('properties = ["zero.json", "one.json"]\n')
    assert gate.outcomes() == ["passed", "failed"]
    (gate.folder / "pattern-0.json").write_text(json.dumps({**pattern, "class": 1}))
    checks = gate.report(server=server.url)["checks"]
    assert [each["outcome"] for each in checks] == ["failed", "failed"]
    assert checks[0]["examples"]


def test_the_cache_knows_what_a_document_refers_to(gate: Gate) -> None:
    fill(gate)
    (gate.folder / "other.vnnlib").write_text(HOLDS)
    (gate.folder / "v.toml").write_text('format = "provenn-specification/1"\nkind = "vnnlib"\nfile = "other.vnnlib"\n')
    gate.write('properties = ["v.toml"]\n')
    assert gate.outcomes() == ["passed"]
    (gate.folder / "other.vnnlib").write_text(HOLDS.replace("(assert (<= X_1 0.1))", "(assert (<= X_1 2))"))
    assert gate.outcomes() == ["failed"]
    (gate.folder / "v.toml").write_text('format = "provenn-specification/1"\nkind = "vnnlib"\nfile = "gone.vnnlib"\n')
    assert gate("--json").code == 2
