"""The shapes that signatures state, checked at every call: for tests, and only there."""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType

from beartype import beartype
from jaxtyping import jaxtyped

checked = jaxtyped(typechecker=beartype)


def check_shapes(*packages: str) -> None:
    """From now on, modules of these packages are imported with their shapes checked."""
    sys.meta_path.insert(0, _Finder(packages))


class _Finder(MetaPathFinder):
    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not any(fullname == name or fullname.startswith(f"{name}.") for name in self.packages):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(spec.loader.name, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compiled here and now: what is kept beside the file knows nothing of this decorator."""
        tree = ast.fix_missing_locations(_Decorated().visit(ast.parse(self.get_data(self.path), self.path)))
        code: CodeType = compile(tree, self.path, "exec", dont_inherit=True)
        return code


class _Decorated(ast.NodeTransformer):
    """Functions that state a shape, and dataclasses one of whose fields does.

    jaxtyping's own hook decorates the others too, closures anew every time that one is made, which takes longer than
    all that is tested; their types are what the type checker proves.
    """

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        annotations = [argument.annotation for argument in ast.walk(node.args) if isinstance(argument, ast.arg)]
        if any(map(_states_a_shape, [*annotations, node.returns])):
            node.decorator_list.append(_decorator(node))
        return self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        if any(_states_a_shape(field.annotation) for field in node.body if isinstance(field, ast.AnnAssign)):
            node.decorator_list.insert(0, _decorator(node))
        return self.generic_visit(node)


def _states_a_shape(annotation: ast.AST | None) -> bool:
    parts = ast.walk(annotation) if annotation is not None else ()
    return any(isinstance(part, ast.Name) and part.id == "Float" for part in parts)


def _decorator(node: ast.AST) -> ast.expr:
    expression = ast.parse(f'__import__("{__name__}").checked', mode="eval").body
    return ast.copy_location(expression, node)
