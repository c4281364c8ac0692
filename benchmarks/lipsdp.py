"""Lipschitz constants: LipSDP against published optima, against conic solvers, and how it grows.

    OMP_NUM_THREADS=1 python benchmarks/lipsdp.py [--shared ../shared] [--tables reference,peers,sizes,maxmin] [--quick]

One thread, float64, CPU seconds, every measurement in a process of its own. Constants are those that the solvers
return, before the rigorous check. The tables:

reference: `lipsdp-neuron` on trained networks against the published optimum of the same problem (l2, output 7).
peers: the same problem with Clarabel and SCS through cvxpy at tolerance 1e-7; seconds are those of the
    whole call on both sides (ours: the median of five), imports not counted.
sizes: random He-normal networks, `lipsdp-neuron` as a user calls it, with a budget. `own gap` is between its bound and
    its own lower bound, `to the gap` when that was first as small as asked; memory is the peak of the resident set
    beyond what it was before.
maxmin: published MaxMin networks against the optimum of the eliminated form, and the published program's.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from lipsdp_tables import TABLES

NARROWEST = 11
"""Least width of a column."""


@dataclass(frozen=True)
class Plan:
    """quick: fewer networks, and a limit of time for the peers; only: what a network's name must contain;
    budget: seconds that each of the large random networks has.
    """

    shared: Path
    quick: bool
    only: str
    budget: float


def main() -> int:
    """Prints the tables as they come; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="reference folder")
    parser.add_argument("--tables", default=",".join(TABLES), help=f"some of {','.join(TABLES)}")
    parser.add_argument("--budget", type=float, default=120.0, help="seconds for each of the large random networks")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    parser.add_argument("--quick", action="store_true", help="one network of a kind, the small random ones only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    plan = Plan(options.shared, options.quick, options.only, options.budget)
    for name in options.tables.split(","):
        if not show(name, TABLES[name](plan)):
            print(f"skipped: {name}. There is nothing to measure at {plan.shared}", file=sys.stderr)
    return 0


def show(name: str, rows: Iterable[dict[str, str]]) -> int:
    """A table in Markdown, row by row; returns how many rows there were."""
    count = 0
    for row in rows:
        widths = [max(len(column), NARROWEST) for column in row]
        if not count:
            print(f"\n## {name}\n\n{_line(row, widths)}\n|{'|'.join('-' * (w + 2) for w in widths)}|")
        print(_line(row.values(), widths), flush=True)
        count += 1
    return count


def _line(cells: Iterable[str], widths: Iterable[int]) -> str:
    return "| " + " | ".join(cell.ljust(w) for cell, w in zip(cells, widths, strict=True)) + " |"


if __name__ == "__main__":
    sys.exit(main())
