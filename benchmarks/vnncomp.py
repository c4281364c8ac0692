"""VNN-COMP instances, each in a fresh process: solved, times, contradictions, and beside a peer's figures.

    python benchmarks/vnncomp.py --root DIR [--category C ...] [--sample N] [--timeout S] [--out FILE]

DIR holds a folder a category with instances.csv (network, specification, seconds) and its files, gzipped or not. Times
count after imports, like the peer's; the time of importing is printed beside them. A table goes to the terminal, every
instance as JSON to --out, `results.csv` as in VNN-COMP and a cactus plot (PNG) beside it. Exit code 1 if a verdict
contradicts a known one or a proof does not hold.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vnncomp_report import cactus, contradictions, tables

CHILD = Path(__file__).with_name("vnncomp_instance.py")
GRACE = 60.0
"""Seconds beyond its time after which an instance's process is killed."""

Found = dict[str, Any]


@dataclass(frozen=True)
class Instance:
    """A network and a specification of a category; seconds: its time."""

    category: str
    network: str
    specification: str
    seconds: float

    @property
    def id(self) -> str:
        """As the peers' files call it."""
        return "/".join([self.category, *(Path(n).name.split(".gz")[0].rsplit(".", 1)[0] for n in self.names)])

    @property
    def names(self) -> tuple[str, str]:
        """Both files."""
        return self.network, self.specification


def instances(root: Path, categories: Sequence[str]) -> Iterator[Instance]:
    """Of the categories, in the order of their lists; all where none is named."""
    for listed in sorted(root.glob("*/instances.csv")):
        if categories and listed.parent.name not in categories:
            continue
        with listed.open() as file:
            for network, specification, seconds in csv.reader(file):
                yield Instance(listed.parent.name, network, specification, float(seconds))


def spread(every: Sequence[Instance], count: int | None) -> list[Instance]:
    """At most `count`, evenly over the list."""
    if count is None or count >= len(every):
        return list(every)
    return [every[i * len(every) // count] for i in range(count)]


def run(root: Path, instance: Instance, seconds: float, device: str, threads: int) -> Found:
    """What the instance's process printed, or how it ended."""
    files = [next(p for p in (root / instance.category / n, root / instance.category / f"{n}.gz") if p.exists())
             for n in instance.names]  # fmt: skip
    command = [sys.executable, str(CHILD), *map(str, files), str(seconds), device, str(threads)]
    limited = os.environ | {"OMP_NUM_THREADS": str(threads)}
    start = time.perf_counter()
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + GRACE, env=limited)
        lines = done.stdout.strip().splitlines()
        found: Found = json.loads(lines[-1]) if done.returncode == 0 and lines else {
            "verdict": "error", "reason": f"exit code {done.returncode}: {done.stderr.strip()[-300:]}"}  # fmt: skip
    except subprocess.TimeoutExpired:
        found = {"verdict": "error", "reason": "killed"}
    return {"id": instance.id, "category": instance.category, "timeout": seconds, "names": instance.names} | {
        "process_s": time.perf_counter() - start,
        **found,
    }


def read(path: Path | None) -> Mapping[str, Any]:
    """A JSON file, or nothing."""
    return json.loads(path.read_text()) if path is not None and path.exists() else {}


def write_csv(path: Path, found: Sequence[Found]) -> None:
    """VNN-COMP's results.csv: category, network, specification, time to prepare, result, time."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        for one in found:
            cold, spent = one.get("cold_s", 0.0), one.get("wall_s", one["timeout"])
            writer.writerow([one["category"], *one["names"], f"{cold:.3f}", one["verdict"], f"{spent:.3f}"])


def options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="VNN-COMP instances, each in a fresh process, beside a peer.")
    parser.add_argument("--root", type=Path, required=True, help="folder with a folder a category")
    parser.add_argument("--category", nargs="*", default=[], help="only these categories")
    parser.add_argument("--sample", type=int, help="at most so many instances, evenly over the list")
    parser.add_argument("--timeout", type=float, help="seconds an instance (default: the peer's, else the official)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--peer", type=Path, help="a peer's figures (default: ROOT/../peers/abcrown_cpu.json)")
    parser.add_argument("--truth", type=Path, help="known verdicts (default: ROOT/../peers/ground_truth.json)")
    parser.add_argument("--out", type=Path, default=Path("vnncomp.json"), help="where every instance is written")
    return parser.parse_args()


def main() -> int:
    """Runs everything and prints the tables."""
    given = options()
    beside = given.root.resolve().parent / "peers"
    peer, truth = read(given.peer or beside / "abcrown_cpu.json"), read(given.truth or beside / "ground_truth.json")
    theirs = {r["id"]: r for r in peer.get("results", [])}
    every = [i for i in instances(given.root, given.category) if not theirs or i.id in theirs]
    found: list[Found] = []
    for instance in spread(every, given.sample):
        seconds = given.timeout or theirs.get(instance.id, {}).get("timeout", instance.seconds)
        one = run(given.root, instance, seconds, given.device, given.threads)
        found.append(one)
        shown = f"{one['verdict']:8} {one.get('wall_s', 0):7.2f} s  {one.get('assurance') or '':9} {instance.id}"
        print(f"{len(found):4}  {shown}", file=sys.stderr, flush=True)
        given.out.write_text(json.dumps({"results": found}, indent=1))
    print(tables(found, theirs, peer.get("tool", "peer")))
    write_csv(given.out.with_name("results.csv"), found)
    cactus(given.out.with_suffix(".png"), found, theirs, peer.get("tool", "peer"))
    wrong = contradictions(found, truth)
    print("\n".join(wrong) or "no verdict contradicts a known one, and every proof and counterexample holds")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
