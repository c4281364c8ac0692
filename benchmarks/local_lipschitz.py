"""Local Lipschitz constants, l-infinity to l-infinity, against the published method of Shi et al. 2022.

    OMP_NUM_THREADS=1 python benchmarks/local_lipschitz.py [--shared ../shared] [--methods crown] [--only NAME]

One thread, float32 as the published method; the largest of ten outputs' constants around one input. Every measurement
is in a process of its own: the median of five calls, fewer of slow ones, the network read and one call made before.
`published` and `its seconds` are the method's own, measured beforehand on one thread, its graph of the network built
already; `exact` is known where activation patterns could be enumerated, `search` is what a gradient search found.
Values are those of the search for bounds, rounded to nearest, before any rigorous check.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure import Cost, cost, in_child
from torch import Tensor

from provenn.models.onnx_reader import read
from provenn.verifier.bounds.jacobian import METHODS, forward_bounds, row_norms
from provenn.verifier.graph import Graph
from provenn.verifier.interval import Interval
from provenn.verifier.region import Region

PUBLISHED = {"crown": "lirpa_crown", "alpha-crown": "lirpa_opt", "ibp": "interval_jac_ibp"}
"""Our method -> what it is measured beside."""

COLUMNS = ("network", "radius", "method", "ours", "published", "ratio", "exact", "search", "seconds", "its seconds")


def main() -> int:
    """Prints a table, and the geometric mean of the ratios of times; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="reference folder")
    parser.add_argument("--methods", default="crown", help=f"some of {','.join(METHODS)}")
    parser.add_argument("--only", default="", help="a part of the names of the networks to run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.shared / "lipschitz" / "local"
    if not (folder / "local_lip.json").exists():
        print(f"skipped: there is nothing to measure at {folder}", file=sys.stderr)
        return 0
    print(_line((*COLUMNS, "times faster", "MiB")))
    print(_line(["---"] * (len(COLUMNS) + 2)))
    gains: dict[str, list[float]] = {}
    for entry in json.loads((folder / "local_lip.json").read_text()):
        for method in options.methods.split(",") if options.only in entry["net"] else ():
            found: Cost = in_child(_measured, folder, entry, method)
            gain = _shown(entry, method, found)
            gains.setdefault(method, []).extend([gain] if gain else [])
    for method, each in gains.items():
        if each:
            mean = math.exp(sum(map(math.log, each)) / len(each))
            print(f"\n{method}: {mean:.2f} times faster in the geometric mean of {len(each)}, least {min(each):.2f}")
    return 0


def _measured(folder: Path, entry: dict[str, Any], method: str) -> Cost:
    graph = read((folder / f"{entry['net']}.onnx").read_bytes()).to("cpu", torch.float32)
    centre = torch.tensor(np.load(folder / f"{entry['net']}.x0.npy")).float().reshape(1, *graph.input_shape)
    region = Region(Interval(centre - entry["eps"], centre + entry["eps"]))
    return cost(partial(_bounded, graph, region, method), 5, "cpu")


def _bounded(graph: Graph, region: Region, method: str) -> Tensor:
    rows = torch.eye(math.prod(graph.output_shape))
    return row_norms(graph, forward_bounds(graph, region, method), rows, method)


def _shown(entry: dict[str, Any], method: str, found: Cost) -> float | None:
    """Prints a line; how many times faster it was."""
    beside = entry.get(PUBLISHED.get(method, "")) or {}
    ours, theirs, seconds = float(found.values.max()), beside.get("value"), beside.get("time_s")
    exact, search = ((entry.get(key) or {}).get("value") for key in ("exact", "lower"))
    ratio, gain = ours / theirs if theirs else None, seconds / found.wall if seconds else None
    numbers = [ours, theirs, ratio, exact, search, found.wall, seconds, gain]
    cells = [f"{n:.6g}" if n is not None else "" for n in numbers]
    print(_line([entry["net"], entry["eps_name"], method, *cells, f"{found.memory:.0f}"]), flush=True)
    return gain


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
