"""What the service adds to a batch: 1,000 digits at 5 radii in this process, and end to end through REST.

    python benchmarks/batch_service.py [--network digits-mlp-robust] [--images 1000] [--radii 5] [--workers 1 2]
    python benchmarks/batch_service.py --images 10000 --radii 1 --workers 2

In process: reading the network, verdicts, certificates, the bundle. Through REST: uploads, the parts and their files,
the bundle, downloading it. The aim is at most 1.3 times the time with as many workers as processes (one).
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from batch import RADII, digits
from load import service
from rich.console import Console
from rich.table import Table

from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.run import certify_batch
from provenn.api.certification import Options, load_model
from provenn.models.zoo import load

AIM = 1.3
DIGITS = 1000
"""Images that are taken once; more are the same ones again."""
SERVES = b"\0provenn\0serve\0"


def _command(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:  # it has ended meanwhile
        return b""


def _resident(process: Path) -> float:
    """MiB; 0 of a process that has ended."""
    try:
        lines = (process / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def _children(process: Path) -> list[Path]:
    """Those that it and its threads have started, and theirs."""
    try:
        found = [Path("/proc", pid) for file in process.glob("task/*/children") for pid in file.read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [below for child in found for below in (child, *_children(child))]


@dataclass
class Most:
    """MiB that the server had at most, and any one of the processes below it."""

    server: float = 0.0
    worker: float = 0.0

    def look(self, server: Path) -> None:
        """Once."""
        self.server = max(self.server, _resident(server))
        self.worker = max(self.worker, *map(_resident, _children(server)), 0.0)


def in_process(content: bytes, data: Data, radii: tuple[float, ...]) -> float:
    """Seconds."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        certify_batch(load_model(content), data, Question(radii, clip=(0, 1)), Options(seconds=600), Path(folder))
    return time.perf_counter() - start


def through_rest(content: bytes, data: Data, workers: int, radii: tuple[float, ...]) -> tuple[float, Most]:
    """Seconds, and the memory for it."""
    file = io.BytesIO()
    np.savez(file, x=data.inputs, y=np.array(data.labels))
    with service(workers) as client:
        server = next(path for path in Path("/proc").glob("[0-9]*") if SERVES in _command(path))
        start, most = time.perf_counter(), Most()
        model = client.post("/v1/models", files={"file": ("digits.onnx", content)}).raise_for_status().json()["id"]
        answer = client.post("/v1/datasets", files={"file": ("digits.npz", file.getvalue())}).raise_for_status()
        asked = {"model": model, "dataset": answer.json()["id"], "epsilons": list(radii), "clip": [0, 1]}
        job = client.post("/v1/batches", json=asked).raise_for_status().json()["id"]
        while (found := client.get(f"/v1/jobs/{job}", params={"wait": 0.2}).json())["state"] in ("queued", "running"):
            most.look(server)
        assert found["state"] == "succeeded", found
        client.get(f"/v1/batches/{job}/files/batch.zip").raise_for_status()
        return time.perf_counter() - start, most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="digits-mlp-robust")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--radii", type=int, default=len(RADII), help="how many of the five, the largest first")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    given = parser.parse_args()
    torch.set_num_threads(1)
    content, data = load(given.network), digits(min(given.images, DIGITS), max(1, given.images // DIGITS))
    radii = RADII[-given.radii :]
    table = Table("where", "seconds", "ratio", "rows/s", "server MiB", "largest worker MiB")
    alone, rows, missed = in_process(content, data, radii), len(data) * len(radii), False
    table.add_row("in process", f"{alone:.1f}", "1", f"{rows / alone:.0f}", "", "")
    for workers in given.workers:
        seconds, most = through_rest(content, data, workers, radii)
        missed |= seconds > AIM * alone
        cells = (
            f"{seconds:.1f}",
            f"{seconds / alone:.2f}",
            f"{rows / seconds:.0f}",
            f"{most.server:.0f}",
            f"{most.worker:.0f}",
        )
        table.add_row(f"through REST, {workers} workers", *cells)
    Console(width=100).print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
