"""docs/ops.md, out of the table of ops:  python -m provenn.api.cli.ops_page > docs/ops.md"""

from __future__ import annotations

import sys
from collections.abc import Iterable

from provenn.api.cli.listings import operators
from provenn.models.onnx_ops import OPERATORS
from provenn.models.operator_names import OPSETS
from provenn.verifier.ops.base import Op
from provenn.verifier.ops.table import OPS

HEAD = f"""# Operators

Networks are ONNX files of operator sets {OPSETS[0]} to {OPSETS[-1]}, read at a batch of 1. Each of their operators is
read into one of the ops below, or into a few of them. Anything else is refused when a model is read, by the name of
the operator and of the node.

Every op has an interval rule and linear bounds, for float32 and float64, on the CPU and on CUDA. Besides:

- *free*: its linear bounds have free parameters, which alpha-CROWN optimises;
- *derivative*: an enclosure of its derivative is known, as Lipschitz bounds need;
- *checked*: the ONNX operators that the trusted checker reads too, in their usual forms. A verdict about a network
  of these alone can be `checked` (`provenn inspect` tells); about any other network it is `computed`.

`provenn ops --json` prints the same. This page is generated: `python -m provenn.api.cli.ops_page > docs/ops.md`.
"""

COLUMNS = ("op", "what it computes", "ONNX operators", "free", "derivative", "checked")


def page() -> str:
    """The whole text."""
    summaries = {op.__name__: _summary(op) for op in OPS}
    parts = [HEAD]
    rows = operators()
    for kind in dict.fromkeys(row["kind"] for row in rows):
        parts.append(f"## {kind[0].upper()}{kind[1:]}\n\n{_line(COLUMNS)}{_line('---' for _ in COLUMNS)}")
        for row in rows:
            if row["kind"] == kind:
                marks = ["yes" if row[name] else "" for name in ("free_parameters", "derivative")]
                checked = "all" if row["checked"] == row["onnx"] else _listed(row["checked"])
                parts[-1] += _line([row["op"], summaries[row["op"]], _listed(row["onnx"]), *marks, checked])
    within = {name for row in rows for name in row["onnx"]}
    rest = sorted(set(OPERATORS) - within)
    how = "Read as constants, as their input unchanged, or as a part of something above"
    parts.append(f"## Without an op\n\n{how}: {_listed(rest)}.\n")
    return "\n".join(parts)


def _summary(op: type[Op]) -> str:
    """The first paragraph of the docstring, without what is raised."""
    return (op.__doc__ or "").split("\n\n")[0].split("Raises:")[0]


def _line(cells: Iterable[str]) -> str:
    """A row of a table; a bar within a cell would end it."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", r"\|") for cell in cells) + " |\n"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    sys.stdout.write(page())
