"""The house rules that a reader relies on, held by a test: small files, small functions, nothing swallowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
FLOORS = ("verifier", "models", "solvers", "api", "provenn")
FILES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    return (n for n in ast.walk(tree) if isinstance(n, Function))


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_files_and_functions_stay_small() -> None:
    found = []
    for path in FILES:
        source = path.read_text()
        found += [name(path)] * (len(source.splitlines()) > 450)
        for function in functions(ast.parse(source)):
            length = (function.end_lineno or function.lineno) - function.lineno + 1
            # A route's or command's parameters are its public form: the framework reads them one by one.
            taken = 0 if function.decorator_list else len(function.args.args) + len(function.args.kwonlyargs)
            if length > 60 or taken > 7:
                found.append(f"{name(path)}: {function.name} has {length} lines and takes {taken} parameters")
    assert not found


def test_nothing_is_swallowed_and_nothing_is_executed() -> None:
    found = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                broad = caught in ("", "Exception", "BaseException") and name(path) != "api/problems.py"
                swallowed = len(node.body) == 1 and isinstance(node.body[0], ast.Pass)
                found += [f"{name(path)}: line {node.lineno}: except {caught}"] * (broad or swallowed)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("eval", "exec"):
                found.append(f"{name(path)}: line {node.lineno}: {node.func.id}")
    assert not found


def test_what_tests_are_called_does_not_depend_on_the_clock() -> None:
    """Workers that collect a second apart must find the same tests, or none of them is run."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            calls = [c for d in getattr(node, "decorator_list", ()) for c in ast.walk(d) if isinstance(c, ast.Call)]
            called = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
            changing = called & {"now", "utcnow", "today", "time", "monotonic", "getpid", "uuid4", "mkdtemp"}
            assert not changing, f"{name(path)}: line {node.lineno}"


def test_modules_of_tests_have_names_of_their_own() -> None:
    """Which one a worker imports would depend on the order otherwise."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert {name for name in names if names.count(name) > 1} == set()


def test_the_trusted_kernel_is_small_enough_to_read() -> None:
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "verifier" / "check").rglob("*.py"))
    assert 0 < lines < 4100
