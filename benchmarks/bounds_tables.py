"""The tables of the benchmark of bounds: what is measured for each, and how it is printed."""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bounds_cases
from bounds_cases import GROWTH, THROUGHPUT, Question, Size
from bounds_tools import TOOLS, prepared
from measure import Cost, cost, in_child
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from bounds import Plan

Row = dict[str, Any]

WHOSE = dict(zip(TOOLS, ("", "peer "), strict=True))
"""What the columns of a tool begin with."""

CLOSE = {"ibp": 1e-4, "crown": 1e-4, "alpha-crown": 1e-2}
"""How far below the reference margin ours may be, relative to it."""

TIGHTER = 5e-6
"""How much above the reference margin, relative to it, counts as tighter: more than its rounding to six digits."""

LEAST = 0.5
"""MiB that a process can grow by without its calls' doing."""

DIGITS, IMAGES, RADIUS = ("digits-mlp-robust", "digits-cnn-robust"), 1000, 0.03

TINY = Size(8, 4, 1, 1, radius=1.0)

COLD = """
import torch
from provenn.verifier.bounds.backward import crown
from provenn.verifier.graph import sequential
from provenn.verifier.interval import Interval
from provenn.verifier.ops.linear import Linear
from provenn.verifier.ops.relu import Relu
from provenn.verifier.region import Region
layer = Linear(torch.eye(4, dtype=torch.float64), torch.zeros(4, dtype=torch.float64))
region = Region(Interval(-torch.ones(1, 4, dtype=torch.float64), torch.ones(1, 4, dtype=torch.float64)))
crown(sequential((4,), [layer, Relu(), layer]), region).output_lower(torch.eye(4, dtype=torch.float64).unsqueeze(1))
"""


def reference(plan: Plan) -> list[Row]:
    """The reference cases."""
    rows = []
    for name, method in _reference_pairs(plan):
        costs = {tool: _measured(plan, tool, method, bounds_cases.reference_question, name) for tool in plan.tools}
        rows.append({"case": name, "method": method} | _side_by_side(costs))
    return rows + _means(rows, plan.methods)


def values(plan: Plan) -> list[Row]:
    """Our margins against the reference values, row by row."""
    known = {case.name: case.margins for case in bounds_cases.references(plan.shared)}
    rows = []
    for name, method in _reference_pairs(plan):
        tool, theirs = plan.tools[0], known[name][method]
        found = _measured(replace(plan, runs=1), tool, method, bounds_cases.reference_question, name)
        gaps = [(o - t) / max(abs(t), 1e-6) for o, t in zip(found.values[:, 0].tolist(), theirs, strict=True)]
        good, tighter = sum(g >= -CLOSE[method] for g in gaps), sum(g > TIGHTER for g in gaps)
        counts = {"rows": len(gaps), "equal or tighter": good, "tighter": tighter}
        rows.append({"case": name, "method": method} | counts | {"worst %": 100 * min(gaps), "best %": 100 * max(gaps)})
    return rows + [_total(rows, method) for method in plan.methods if rows]


def throughput(plan: Plan) -> list[Row]:
    """Boxes a second in one call."""
    rows = []
    for name in THROUGHPUT if bounds_cases.references(plan.shared) else ():
        case = THROUGHPUT[name]
        if case.method not in plan.methods:
            continue
        costs = {t: _measured(plan, t, case.method, bounds_cases.throughput_question, name) for t in plan.tools}
        speeds = {f"{WHOSE[tool]}boxes/s": case.boxes / found.wall for tool, found in costs.items()}
        ratio = {"times faster": _ratio(list(speeds.values()))} if len(speeds) > 1 else {}
        rows.append({"network and method": name, "boxes": case.boxes} | speeds | ratio | _memory(costs))
    return rows


def batch(plan: Plan) -> list[Row]:
    """One CROWN call with 1,000 digits images against 1,000 calls."""
    rows = []
    for name in DIGITS:
        one, many = in_child(_batch_seconds, name, plan.device, plan.runs)
        rows.append({"network": name, "inputs": IMAGES, "one call ms": 1e3 * one, "single calls ms": 1e3 * many})
        rows[-1]["times faster"] = many / one
    return rows


def cold(plan: Plan) -> list[Row]:
    """From nothing to the bounds of a two-layer network, in a new process."""
    seconds = [_process_seconds(COLD) for _ in range(plan.runs)]
    imports = [_process_seconds("import torch") for _ in range(plan.runs)]
    return [
        {"what": "import torch", "s": statistics.median(imports)},
        {"what": "bounds", "s": statistics.median(seconds)},
    ]


def growth(plan: Plan) -> list[Row]:
    """Time and memory against width, depth, batch and rows of a dense network, the rest fixed."""
    rows = []
    for what, sizes in GROWTH.items():
        for method in [m for m in plan.methods if m != "ibp"]:
            for size in sizes:
                found = _measured(plan, plan.tools[0], method, _grown, replace(Size(), **{what: size}))
                rows.append({"grows": what, "to": size, "method": method, "ms": 1e3 * found.wall, "MiB": found.memory})
    return rows


TABLES: dict[str, Callable[[Plan], list[Row]]] = {
    "reference": reference,
    "values": values,
    "throughput": throughput,
    "batch": batch,
    "cold": cold,
    "growth": growth,
}


def show(name: str, rows: Sequence[Row]) -> None:
    """One table on stdout, nothing for no rows."""
    if not rows:
        return
    table = Table(*rows[0], box=SIMPLE, title=TABLES[name].__doc__, title_justify="left")
    for column in table.columns:
        column.no_wrap = True
        column.justify = "left" if column in table.columns[:1] else "right"
    for row in rows:
        table.add_row(*(_plain(row.get(column)) for column in rows[0]))
    console = Console()
    (console if console.is_terminal else Console(width=max(console.width, 150))).print(table)


def _reference_pairs(plan: Plan) -> Iterable[tuple[str, str]]:
    """Cases and methods, in the reference file's order."""
    names = [case.name for case in bounds_cases.references(plan.shared)]
    return [(n, m) for m in plan.methods for n in names if not plan.cases or n in plan.cases]


def _measured(plan: Plan, tool: str, method: str, make: Callable[[Path, Any], Question], what: Any) -> Cost:
    """The cost of one tool's answer, in a process of its own.

    Before it is measured the tool bounds a tiny network, and the network is run once: so both have loaded their code.
    """
    found: Cost = in_child(_cost, plan, tool, method, make, what)
    return found


def _cost(plan: Plan, tool: str, method: str, make: Callable[[Path, Any], Question], what: Any) -> Cost:
    question = make(plan.shared, what).to(plan.device)
    call = prepared(tool, question, method)
    prepared(tool, _grown(plan.shared, TINY).to(plan.device), method)()
    question.graph.forward(question.region.box.lower[:1])
    found = cost(call, plan.runs, plan.device)
    offset = question.offset if isinstance(question.offset, float) else question.offset.cpu().numpy()
    return replace(found, values=found.values + offset)


def _grown(shared: Path, size: Size) -> Question:
    return bounds_cases.growth_question(size)


def _batch_seconds(name: str, device: str, runs: int) -> tuple[float, float]:
    whole, parts = bounds_cases.digits_questions(name, IMAGES, RADIUS)
    one = cost(prepared("provenn", whole.to(device), "crown"), runs, device).wall
    singles = [prepared("provenn", part.to(device), "crown") for part in parts]

    def many() -> Any:
        return [single() for single in singles][-1]

    return one, cost(many, runs, device).wall


def _process_seconds(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def _side_by_side(costs: dict[str, Cost]) -> Row:
    row: Row = {f"{WHOSE[tool]}margin": float(c.values.min()) for tool, c in costs.items()}
    row |= {f"{WHOSE[tool]}ms": 1e3 * c.wall for tool, c in costs.items()}
    if len(costs) > 1:
        row |= {"time ratio": _ratio([c.wall for c in costs.values()])}
        row |= {"cpu ratio": _ratio([c.cpu for c in costs.values()])}
    return row | _memory(costs)


def _memory(costs: dict[str, Cost]) -> Row:
    row: Row = {f"{WHOSE[tool]}MiB": c.memory for tool, c in costs.items()}
    return row | ({"memory ratio": _ratio([c.memory for c in costs.values()], LEAST)} if len(costs) > 1 else {})


def _ratio(pair: Sequence[float], least: float = 0.0) -> float:
    """Ours over theirs; smaller numbers count as `least`."""
    return max(pair[0], least) / max(pair[1], least)


def _means(rows: Sequence[Row], methods: Sequence[str]) -> list[Row]:
    """The geometric mean of every ratio, a row a method."""
    ratios = [column for column in rows[0] if column.endswith("ratio")] if rows else []
    found = []
    for method in methods if ratios else ():
        of_method = [row for row in rows if row["method"] == method]
        means = {c: math.exp(statistics.fmean(math.log(row[c]) for row in of_method)) for c in ratios}
        most = {c: max(row[c] for row in of_method) for c in ratios}
        found.append({"case": "geometric mean", "method": method} | means)
        found.append({"case": "largest", "method": method} | most)
    return found


def _total(rows: Sequence[Row], method: str) -> Row:
    some = [row for row in rows if row["method"] == method]
    sums = {c: sum(row[c] for row in some) for c in ("rows", "equal or tighter", "tighter")}
    ends = {"worst %": min(row["worst %"] for row in some), "best %": max(row["best %"] for row in some)}
    return {"case": "all", "method": method} | sums | ends


def _plain(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
