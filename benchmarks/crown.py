"""IBP and CROWN on one instance of four reference networks, and the checker's time beside them.

    python benchmarks/crown.py [--shared ../shared] [--json]

One thread, float32, in process, median of the runs after a warm-up. The column `peer` is auto_LiRPA's CPU time for the
same rows from the reference folder; it was measured on another machine and stands there for scale.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from provenn.models.onnx_reader import read
from provenn.solvers.packing import pack
from provenn.verifier.bounds.backward import crown
from provenn.verifier.bounds.interval import output_lower, propagate
from provenn.verifier.certificate.emit import emit
from provenn.verifier.check import check, read_network
from provenn.verifier.spec import Specification
from provenn.verifier.spec_reader import read_specification

CASES = {
    "mnist_fc_256x2": ("mnist_fc/onnx/mnist-net_256x2.onnx.gz", "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz"),
    "mnist_fc_256x4": ("mnist_fc/onnx/mnist-net_256x4.onnx.gz", "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz"),
    "mnist_fc_256x6": ("mnist_fc/onnx/mnist-net_256x6.onnx.gz", "mnist_fc/vnnlib/prop_0_0.03.vnnlib.gz"),
    "oval21_base": ("oval21/onnx/cifar_base_kw.onnx.gz", None),
}


@dataclass(frozen=True)
class Row:
    """One network and method: seconds of wall and CPU time a call, the smallest margin, the checker's seconds."""

    network: str
    method: str
    wall: float
    cpu: float
    margin: float
    check: float | None
    peer: float | None


def timed(call: Callable[[], object], runs: int) -> tuple[float, float]:
    """Medians of wall and CPU seconds of `runs` calls, after two that are not counted."""
    walls, cpus = [], []
    for run in range(runs + 2):
        wall, cpu = time.perf_counter(), time.process_time()
        call()
        if run >= 2:
            walls.append(time.perf_counter() - wall)
            cpus.append(time.process_time() - cpu)
    return statistics.median(walls), statistics.median(cpus)


def measure(name: str, root: Path, peers: dict[str, float], runs: int) -> list[Row]:
    model, text = CASES[name]
    data = gzip.decompress((root / model).read_bytes())
    folder = root / model.split("/")[0]
    first = (folder / "instances.csv").read_text().split(",")[1]
    specification = read_specification((root / text if text else folder / f"{first}.gz").read_bytes())
    graph = read(data).to("cpu", torch.float32)
    packed = pack(graph, specification.cases, "cpu", torch.float32)

    def by_interval() -> torch.Tensor:
        return packed.margins(output_lower(graph, propagate(graph, packed.region.box), -packed.matrix))

    def by_crown() -> torch.Tensor:
        return packed.margins(crown(graph, packed.region).output_lower(-packed.matrix))

    rows = []
    for method, call in (("ibp", by_interval), ("crown", by_crown)):
        with torch.inference_mode():
            wall, cpu = timed(call, runs)
            margin = float(call().amin())
        seconds = checked(data, specification, method) if margin > 0 else None
        rows.append(Row(name, method, wall, cpu, margin, seconds, peers.get(f"{name} {method}")))
    return rows


def checked(data: bytes, specification: Specification, method: str) -> float:
    """Seconds that the checker takes to accept the certificate, the network read anew each time not included."""
    network = read_network(data)
    files = emit(network, specification, method, {})
    return timed(lambda: check(files, network), 3)[0]


def peer_times(shared: Path) -> dict[str, float]:
    path = shared / "peers" / "auto_lirpa_bounds.json"
    results = json.loads(path.read_text())["results"] if path.exists() else []
    return {f"{r['case']} {r['method'].lower()}": r["cpu_min_s"] for r in results if "cpu_min_s" in r}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=Path(__file__).parents[2] / "shared")
    parser.add_argument("--runs", type=int, default=11)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    root = options.shared / "vnncomp2022"
    if not root.is_dir():
        print(f"skipped: no reference networks at {root}; give --shared DIR", file=sys.stderr)
        return 0
    torch.set_num_threads(1)
    peers = peer_times(options.shared)
    rows = [row for name in CASES for row in measure(name, root, peers, options.runs)]
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
        return 0
    table = Table("network", "method", "wall ms", "cpu ms", "margin", "check ms", "peer cpu ms", "ratio")
    for row in rows:
        peer, ratio = (f"{row.peer * 1e3:.2f}", f"{row.cpu / row.peer:.2f}") if row.peer else ("", "")
        checked = f"{row.check * 1e3:.1f}" if row.check else ""
        times = (f"{row.wall * 1e3:.2f}", f"{row.cpu * 1e3:.2f}", f"{row.margin:.6g}", checked)
        table.add_row(row.network, row.method, *times, peer, ratio)
    Console(width=max(100, Console().width)).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
