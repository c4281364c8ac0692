"""What `inspect`, `ops`, `backends` and `version` say: rows of plain values, and tables of them."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

COMPONENTS = ("numpy", "scipy", "onnx", "onnxruntime", "torch")


def versions() -> dict[str, str]:
    """Provenn's own version, then those of Python and of the packages that results depend on."""
    found = {"provenn": _version("provenn"), "python": platform.python_version()}
    return found | {name: _version(name) for name in COMPONENTS}


def network(data: bytes) -> dict[str, Any]:
    """The summary that the service stores of an upload, and whether the trusted checker reads the network.

    Raises: InvalidModel, UnsupportedOp, ResourceLimit.
    """
    from provenn.models.reading import read
    from provenn.models.summary import summarize

    return {**summarize(data, read(data)).as_dict(), **_checkable(data)}


def _checkable(data: bytes) -> dict[str, Any]:
    """Whether verdicts can be `checked`; else they are `computed` at best."""
    from provenn.verifier.check import CertificateRejected, read_network

    try:
        read_network(data)
    except CertificateRejected as refusal:
        return {"checkable": False, "not_checkable_because": refusal.reason}
    return {"checkable": True}


def operators() -> list[dict[str, Any]]:
    """Every op: the ONNX operators read into it, what kind of function it is, and what is known of it.

    free_parameters: whether alpha-CROWN has something to optimise; derivative: whether Lipschitz bounds may use it;
    checked: the operators among them that the trusted checker reads too; none of products of two computed values.
    """
    from provenn.verifier.check.network_ops import OPERATORS as CHECKED
    from provenn.verifier.ops.base import Op
    from provenn.verifier.ops.table import KINDS

    return [
        {
            "op": op.__name__,
            "onnx": list(op.onnx),
            "affine": op.affine,
            "kind": kind,
            "free_parameters": op.free is not Op.free,
            "derivative": op.affine or hasattr(op, "derivative"),
            "checked": [name for name in op.onnx if name in CHECKED and kind != "products"],
        }
        for kind, ops in KINDS.items()
        for op in ops
    ]


def backends() -> list[dict[str, Any]]:
    """Every method and what it can do here."""
    from provenn.solvers.portfolio import described

    return described()


def facts(values: Mapping[str, Any]) -> RenderableType:
    """One line a fact."""
    grid = Table.grid(padding=(0, 3))
    for name, value in values.items():
        grid.add_row(name.replace("_", " "), Text(_plain(value)))
    return grid


def network_view(summary: Mapping[str, Any]) -> RenderableType:
    """The facts, then one line a layer."""
    layers = summary["layers"]
    return Group(facts({k: v for k, v in summary.items() if k != "layers"}), Text(), table(layers))


def table(rows: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One line a row; the columns are the names of the first."""
    found = Table(*rows[0], box=None, pad_edge=False)
    found.columns[0].no_wrap = True
    for row in rows:
        found.add_row(*(Text(_plain(value), overflow="fold") for value in row.values()))
    return found


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(inner)}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        joined = ", ".join(map(_plain, value))
        return f"[{joined}]" if value and all(isinstance(v, int) for v in value) else joined
    return str(value)


def _version(package: str) -> str:
    try:
        return version_of(package)
    except PackageNotFoundError:
        return "not installed"
