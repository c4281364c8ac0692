"""The service is documented: every route in OpenAPI and in docs/service.md, every setting, state and problem."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from openapi_kit import DOCUMENT

from provenn.api.auth import FORBIDDEN, UNAUTHORIZED
from provenn.api.jobs.model import State
from provenn.api.limiting import TOO_MANY
from provenn.api.problems import INTERNAL, INVALID_REQUEST, KINDS, NOT_FOUND, UNAVAILABLE
from provenn.api.settings import Settings

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text()
OPERATIONS = [(method, path, what) for path, ways in DOCUMENT["paths"].items() for method, what in ways.items()]
CELLS = re.findall(r"^\| `([^`]+)` \| ([^|]*) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("method", "path", "operation"), OPERATIONS, ids=[f"{m} {p}" for m, p, _ in OPERATIONS])
def test_every_route_is_described(method: str, path: str, operation: dict[str, Any]) -> None:
    assert operation["summary"]
    assert operation["description"]
    for status in ("4XX", "5XX"):
        assert "application/problem+json" in operation["responses"][status]["content"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        assert content.get("examples") or content.get("example")
    assert f"`{method.upper()} {path}`" in PAGE


def test_the_page_has_no_route_of_its_own() -> None:
    known = {f"{method.upper()} {path}" for method, path, _ in OPERATIONS}
    assert {cell for cell, _ in CELLS if " /" in cell} == known


def test_request_examples_are_valid() -> None:
    from provenn.api.routes.jobs import EXAMPLES
    from provenn.api.schemas import JobRequest

    for example in EXAMPLES.values():
        JobRequest.model_validate(example["value"])


def test_every_setting_is_described_with_its_default() -> None:
    documented = dict(CELLS)
    for name, field in Settings.model_fields.items():
        assert name in documented
        if field.default_factory is None and field.default is not None:
            assert documented[name] == f"`{field.default}`"


def test_every_state_and_problem_is_described() -> None:
    access = {UNAUTHORIZED, FORBIDDEN, TOO_MANY}
    kinds = {*KINDS.values(), *access, INVALID_REQUEST, NOT_FOUND, UNAVAILABLE, INTERNAL}
    assert {f"`{kind.name}` | {kind.status}" for kind in kinds} <= {f"`{a}` | {b}" for a, b in CELLS}
    assert {state.value for state in State} <= {cell for cell, _ in CELLS}


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROVENN_PORT", "9000")
    monkeypatch.setenv("PROVENN_DATA_DIR", "elsewhere")
    assert (Settings().port, Settings().data_dir) == (9000, Path("elsewhere"))
    assert Settings(port=1).port == 1
