"""A folder with a gate in it: small networks of which everything is known by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli_kit import PLAIN, Command, Ran, two_layers

from provenn.api.cli import gating

POINTS = [[1.0, 0.0], [0.0, 1.0], [0.6, 0.4], [0.5, 0.45]]
LABELS = [0, 1, 0, 1]
"""PLAIN is relu: x and y win by 1, 1, 0.2 and -0.05 (so the last is misclassified): radii 0.5, 0.5, 0.1, 0."""

SCALED = two_layers([[2, 0], [0, 1]], [0, 0], [[1, 0], [0, 1]])
"""(2 relu(x), relu(y)): its Lipschitz constant is 2; PLAIN's is 1."""

DOMAIN = {"features": [{"name": "a", "range": [0, 1]}, {"name": "b", "range": [-1, 1]}]}

HOLDS = """(declare-const X_0 Real)
(declare-const X_1 Real)
(declare-const Y_0 Real)
(declare-const Y_1 Real)
(assert (>= X_0 0.9))
(assert (<= X_0 1.1))
(assert (>= X_1 -0.1))
(assert (<= X_1 0.1))
(assert (<= Y_0 Y_1))
"""
BROKEN = HOLDS.replace("(assert (<= X_1 0.1))", "(assert (<= X_1 2))")

GATE = """
seed = 3

[models.plain]
file = "plain.onnx"
data = "data.npz"
radii = [0.05, 0.2]

[models.plain.checks]
"""


@dataclass(frozen=True)
class Gate:
    """Runs `provenn gate` in a folder that it fills."""

    folder: Path
    capsys: pytest.CaptureFixture[str]

    def write(self, checks: str, head: str = GATE) -> None:
        """The configuration, ending with these thresholds."""
        (self.folder / "provenn.toml").write_text(head + checks)

    def __call__(self, *options: str) -> Ran:
        return Command(self.capsys)("gate", *options)

    def report(self, *, update: bool = False, recheck: bool = False, server: str | None = None) -> dict[str, Any]:
        """The JSON report, without the command line around it; its exit code is the one that is returned."""
        code = gating.run(gating.Request(None, update, recheck, None, None, None, server), as_json=True)
        found: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        assert code == found["exit_code"]
        return found

    def outcomes(self, *, update: bool = False) -> list[str]:
        """Of every check."""
        return [check["outcome"] for check in self.report(update=update)["checks"]]

    @property
    def entries(self) -> list[Path]:
        """Of the cache."""
        return sorted((self.folder / ".provenn" / "cache").glob("*.json"))


def fill(folder: Path) -> None:
    """Networks, data, properties and a domain."""
    (folder / "plain.onnx").write_bytes(PLAIN)
    (folder / "scaled.onnx").write_bytes(SCALED)
    np.savez(folder / "data.npz", x=np.array(POINTS, np.float32), y=np.array(LABELS))
    (folder / "holds.vnnlib").write_text(HOLDS)
    (folder / "broken.vnnlib").write_text(BROKEN)
    (folder / "domain.json").write_text(json.dumps(DOMAIN))


def timeless(report: dict[str, Any]) -> dict[str, Any]:
    """Without what differs from run to run."""
    kept = {name: value for name, value in report.items() if name != "seconds"}
    left = ("seconds", "cached")
    kept["checks"] = [{n: v for n, v in check.items() if n not in left} for check in report["checks"]]
    return kept
