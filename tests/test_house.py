"""The house rules that a reader relies on, held by a test: small files, small functions, nothing swallowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = ("verifier", "models", "solvers", "api", "provenn")
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    return (n for n in ast.walk(tree) if isinstance(n, Function))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 450
    for function in functions(ast.parse(source)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= 60, f"{function.name} has {length} lines"
        # A route's or command's parameters are its public form: the framework reads them one by one.
        if not function.decorator_list:
            count = len(function.args.args) + len(function.args.kwonlyargs)
            assert count <= 7, f"{function.name} takes {count} parameters"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_nothing_is_swallowed_and_nothing_is_executed(path: Path) -> None:
    allowed_broad = path.relative_to(ROOT).as_posix() in {"api/problems.py"}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ExceptHandler):
            names = ast.unparse(node.type) if node.type else ""
            assert allowed_broad or names not in ("", "Exception", "BaseException"), f"line {node.lineno}: {names}"
            assert not (len(node.body) == 1 and isinstance(node.body[0], ast.Pass)), f"line {node.lineno}: swallowed"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in ("eval", "exec"), f"line {node.lineno}"


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda p: p.name)
def test_what_tests_are_called_does_not_depend_on_the_clock(path: Path) -> None:
    """Workers that collect a second apart must find the same tests, or none of them is run."""
    for node in ast.walk(ast.parse(path.read_text())):
        calls = (c for d in getattr(node, "decorator_list", ()) for c in ast.walk(d) if isinstance(c, ast.Call))
        names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
        assert not names & {"now", "utcnow", "today", "time", "monotonic", "getpid", "uuid4", "mkdtemp"}


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Which one a worker imports would depend on the order otherwise."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert {name for name in names if names.count(name) > 1} == set()


def test_the_trusted_kernel_is_small_enough_to_read() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "verifier" / "check").rglob("*.py"))
    assert 0 < lines < 4100
