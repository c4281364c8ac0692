"""A server, and a supervisor of workers, load nothing that computes: children do, and are asked what only they know."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi_problem.error import Problem
from service_kit import Server

from provenn.api import radius
from provenn.api.backends import Backends
from provenn.api.jobs import searching, tasks
from provenn.api.jobs.asking import ListBackends
from provenn.api.jobs.child import Reporter
from provenn.api.jobs.inspection import IMPLICIT
from provenn.api.jobs.rows import FALSIFIED
from provenn.api.jobs.task import Task
from provenn.models.implicit_file import FORMAT
from provenn.solvers.base import Verdict
from provenn.solvers.portfolio import BACKENDS
from provenn.verifier.errors import BackendError

HEAVY = {"torch", "onnxruntime", "cvxpy", "scipy.optimize", "scipy.stats"}
SERVE = ("provenn.api.cli.app", "provenn.api.cli.serving", "provenn.api.app")
WORKER = ("provenn.api.cli.app", "provenn.api.cli.serving", "provenn.api.supervisor", "provenn.api.cluster.actor")
NEEDLESS = {"scipy", "onnx", "securesystemslib"}
"""What a server reads and signs certificates with; a supervisor of workers does not even that."""


def loaded(code: str, *arguments: str) -> set[str]:
    """The modules that the code prints in a process of its own: this one has loaded what it compares with."""
    line = [sys.executable, "-c", code, *arguments]
    ended = subprocess.run(line, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr
    return set(ended.stdout.split())


@pytest.mark.parametrize(("modules", "more"), [(SERVE, set()), (WORKER, NEEDLESS)], ids=["serve", "worker"])
def test_what_supervises_imports_nothing_that_computes(modules: tuple[str, ...], more: set[str]) -> None:
    found = loaded(f"import sys\nfor name in {modules}: __import__(name)\nprint(*sys.modules)")
    assert "provenn.api.jobs.engine" in found or "provenn.api.cluster.actor" in found
    assert not (HEAVY | more) & found


@pytest.mark.slow
def test_a_server_that_has_answered_everything_has_loaded_none_of_it(tmp_path: Path) -> None:
    found = loaded("import sys, everything_kit; everything_kit.ask(sys.argv[1])", str(tmp_path))
    assert "provenn.api.routes.jobs" in found
    assert not HEAVY & found


def test_what_is_named_without_what_computes_has_its_name() -> None:
    assert (FALSIFIED, IMPLICIT, tasks.LIPSCHITZ) == (Verdict.FALSIFIED, FORMAT, radius.LIPSCHITZ)
    assert set(tasks.DIVISIBLE) == {"auto", searching.METHOD} <= set(BACKENDS)


def backends(**changes: str) -> tuple[Backends, list[Task]]:
    """All of them, but for their statuses; and what was asked of a child."""
    asked: list[Task] = []

    def ask(task: Task) -> dict[str, Any]:
        asked.append(task)
        found = task.run(None)  # type: ignore[arg-type]  # it reports nothing
        return {"backends": [each | {"status": changes.get(each["name"], "available")} for each in found["backends"]]}

    return Backends(ask), asked


def test_methods_are_known_from_a_child_that_is_asked_once() -> None:
    known, asked = backends(crown="not installed: pip install it")
    for name in set(BACKENDS) - {"crown"}:
        known.require(name)
    with pytest.raises(BackendError, match="unknown method; known methods: auto, ibp"):
        known.require("magic")
    with pytest.raises(BackendError, match="not installed: pip install it"):
        known.require("crown")
    assert asked == [ListBackends()]


class Dies:
    """A task that its child does not survive."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        raise SystemExit(7)


def test_a_child_that_does_not_answer_is_a_problem(server: Server) -> None:
    with pytest.raises(Problem) as found:
        server.service.engine.ask(Dies())
    assert (found.value.status, found.value.detail) == (503, "no worker process answers (exit code 7)")
