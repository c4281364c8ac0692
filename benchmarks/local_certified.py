"""Certified local Lipschitz constants, l-infinity to l-infinity, beside the published method of Shi et al. 2022.

    OMP_NUM_THREADS=1 python benchmarks/local_certified.py [--seconds 60] [--large 1200] [--only NAME]

What `provenn lipschitz --norm inf --to inf` answers with its default method in so many seconds, one thread: the proved
and checked upper bound, the lower bound that a pair of inputs shows, both of the file's exact numbers in real
arithmetic. `published` is that method's value, without a proof; `gaps` is our distance between upper and lower bound
over its distance to our lower bound. `exact` is known where activation patterns could be enumerated. The networks
whose bounds in `--seconds` are above half of the published ones get `--large` seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from provenn.api.lipschitz import LipschitzResult, Options, bound, load
from provenn.api.lipschitz_question import Around, Question

COLUMNS = (
    "network",
    "radius",
    "upper",
    "lower",
    "exact",
    "published",
    "upper / published",
    "gaps",
    "method",
    "seconds",
)
RADII = {"1e-3": "0.001", "1/255": "1/255", "1e-2": "0.01", "8/255": "8/255"}


def main() -> int:
    """Prints a table; returns the exit code: 1 if a bound is on the wrong side of an exact value."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared", help="reference folder")
    parser.add_argument("--seconds", type=float, default=60.0, help="for every question")
    parser.add_argument("--large", type=float, default=1200.0, help="where that is too little; 0: nothing more")
    parser.add_argument("--only", default="", help="a part of the names `network radius` to run")
    options = parser.parse_args()
    torch.set_num_threads(1)
    folder = options.shared / "lipschitz" / "local"
    if not (folder / "local_lip.json").exists():
        print(f"skipped: there is nothing to measure at {folder}", file=sys.stderr)
        return 0
    print(_line(COLUMNS))
    print(_line(["---"] * len(COLUMNS)))
    wrong = 0
    for entry in json.loads((folder / "local_lip.json").read_text()):
        if options.only not in f"{entry['net']} {entry['eps_name']}":
            continue
        result, seconds = _bounded(folder, entry, options.seconds)
        wrong += _shown(entry, result, seconds)
        large = entry["eps_name"] == "8/255" and (result.upper or 0) > entry["lirpa_crown"]["value"] / 2
        if options.large and large and "cnn" in entry["net"]:
            wrong += _shown(entry, *_bounded(folder, entry, options.large))
    print(f"\n{wrong} bounds on the wrong side of what is known")
    return int(wrong > 0)


def _bounded(folder: Path, entry: dict[str, Any], seconds: float) -> tuple[LipschitzResult, float]:
    model = load((folder / f"{entry['net']}.onnx").read_bytes())
    centre = np.load(folder / f"{entry['net']}.x0.npy").astype(np.float64).ravel()
    question = Question("inf", "inf", region=Around(centre.tolist(), RADII[entry["eps_name"]]))
    start = time.monotonic()
    return bound(model, question, Options(seconds=seconds)), time.monotonic() - start


def _shown(entry: dict[str, Any], result: LipschitzResult, seconds: float) -> bool:
    """Prints a line; whether a bound is on the wrong side of the exact value."""
    published, exact = entry["lirpa_crown"]["value"], (entry.get("exact") or {}).get("value")
    assert isinstance(result.upper, float)
    assert isinstance(result.lower, float)
    theirs = published - result.lower
    gaps = f"{(result.upper - result.lower) / theirs:.3g}" if theirs > 1e-6 * published else ""
    numbers = [f"{n:.8g}" if n else "" for n in (result.upper, result.lower, exact, published)]
    cells = [*numbers, f"{result.upper / published:.4f}", gaps, result.method, f"{seconds:.1f}"]
    print(_line([entry["net"], entry["eps_name"], *cells]), flush=True)
    return exact is not None and not result.lower * (1 - 1e-12) <= exact <= result.upper


def _line(cells: Any) -> str:
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    sys.exit(main())
