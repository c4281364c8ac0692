"""Bounds, how fast and in how much memory: Provenn, and auto_LiRPA beside it where a checkout is at hand.

    python benchmarks/bounds.py [--shared ../shared] [--auto-lirpa DIR] [--device cuda] [--json]

One thread, float32. Every measurement has a process of its own: wall time is the median of the runs after a warm-up,
memory the peak of the resident set beyond what it was after imports, loading and a tiny network (on CUDA: of the
device's memory). `peer` is auto_LiRPA with its default options; ratios are ours over the peer's of the same run.
The tables: the reference cases, against the reference values, throughput, one call against many, cold start, growth.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Row = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """What to run. tools: the engines, ours first; cases: reference cases, none for all of them."""

    shared: Path
    tools: Sequence[str]
    methods: Sequence[str]
    cases: Sequence[str]
    device: str
    runs: int


def main() -> int:
    """Prints the tables as they come; returns the exit code."""
    options = _options()
    torch.set_num_threads(1)
    if options.auto_lirpa is not None:
        sys.path.insert(0, str(options.auto_lirpa.resolve()))
    from bounds_tables import TABLES, show
    from bounds_tools import METHODS, TOOLS

    from provenn.solvers.auto_lirpa import AutoLirpaCrown

    status = AutoLirpaCrown.status()
    if options.auto_lirpa is not None and status != "available":
        print(f"error: auto_LiRPA in {options.auto_lirpa}: {status}", file=sys.stderr)
        return 2
    tools = TOOLS if options.auto_lirpa is not None else TOOLS[:1]
    methods = options.methods.split(",") if options.methods else METHODS
    cases = options.cases.split(",") if options.cases else ()
    plan = Plan(options.shared, tools, methods, cases, options.device, options.runs)
    found: dict[str, list[Row]] = {}
    for name in options.tables.split(",") if options.tables else TABLES:
        found[name] = _rows(TABLES[name], plan)
        if not options.json:
            show(name, found[name])
    if options.json:
        print(json.dumps(found))
    return 0


def _rows(table: Callable[[Plan], list[Row]], plan: Plan) -> list[Row]:
    rows = table(plan)
    if not rows:
        print(f"skipped: {table.__doc__} There is nothing to measure at {plan.shared}", file=sys.stderr)
    return rows


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="reference folder")
    parser.add_argument("--auto-lirpa", type=Path, metavar="DIR", help="a checkout of auto_LiRPA to run beside")
    parser.add_argument("--methods", help="some of ibp,crown,alpha-crown")
    parser.add_argument("--cases", help="some of the reference cases, by name")
    parser.add_argument("--tables", help="some of reference,values,throughput,batch,cold,growth")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--runs", type=int, default=5, help="timed calls after the warm-up")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
