"""What a large upload costs the server's process: peak resident memory beyond that before it, and seconds.

    python benchmarks/upload.py [--megabytes 200]

A real server, one valid ONNX file of that size, sent as a stream; then the same file downloaded. The server never
holds it: it goes to disk as it comes, and a sandboxed process reads it. The aim is less than 50 MB.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

WIDTH = 1024


def write_network(path: Path, megabytes: int) -> None:
    """Layers of 1024 x 1024 weights, 4 MiB each."""
    generator = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for layer in range(max(1, megabytes // 4)):
        weight = generator.standard_normal((WIDTH, WIDTH), dtype=np.float32) / 32
        weights.append(numpy_helper.from_array(weight, f"w{layer}"))
        nodes += [
            helper.make_node("MatMul", [value, f"w{layer}"], [f"z{layer}"]),
            helper.make_node("Relu", [f"z{layer}"], [f"a{layer}"]),
        ]
        value = f"a{layer}"
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", WIDTH]) for name in ("x", value))
    graph = helper.make_graph(nodes, "large", [x], [y], weights)
    opsets = [helper.make_opsetid("", 17)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, str]]:
    """(pid, url) of a warm service."""
    command = [sys.executable, "-m", "provenn", "serve", "--port", "0", "--data-dir", str(folder), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            while not _ready(url):
                time.sleep(0.05)
            yield process.pid, url
        finally:
            process.terminate()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").status_code == 200
    except httpx.TransportError:
        return False


def resident_megabytes(pid: int, which: str) -> float:
    """VmRSS (now) or VmHWM (the peak since it was last forgotten) of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(which)).split()[1]) / 1024


def forget_peak(pid: int) -> None:
    """The peak is what is resident now."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the network")
    megabytes = parser.parse_args().megabytes
    with tempfile.TemporaryDirectory() as name, server(Path(name) / "data") as (pid, url):
        path = Path(name) / "large.onnx"
        write_network(path, megabytes)
        small = onnx.helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "small", [], [])
        for value, listed in (("x", small.input), ("y", small.output)):
            listed.append(helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", 3]))
        warm = helper.make_model(small, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        httpx.post(f"{url}/v1/models", files={"file": warm.SerializeToString()}, timeout=600).raise_for_status()
        before = resident_megabytes(pid, "VmRSS")
        forget_peak(pid)
        start = time.perf_counter()
        with path.open("rb") as file:
            answer = httpx.post(f"{url}/v1/models", files={"file": ("large.onnx", file)}, timeout=600)
        seconds = time.perf_counter() - start
        print(f"upload of {path.stat().st_size / 1e6:.0f} MB: HTTP {answer.status_code} after {seconds:.1f} s")
        print(f"server: {before:.0f} MB before, peak {resident_megabytes(pid, 'VmHWM') - before:.1f} MB more")
        forget_peak(pid)
        before, digest = resident_megabytes(pid, "VmRSS"), hashlib.sha256()
        with httpx.stream("GET", f"{url}/v1/models/{answer.json()['id']}/file", timeout=600) as download:
            for chunk in download.iter_bytes():
                digest.update(chunk)
        same = digest.hexdigest() == answer.json()["id"]
        print(f"download: {'the same bytes' if same else 'OTHER BYTES'}, peak ", end="")
        print(f"{resident_megabytes(pid, 'VmHWM') - before:.1f} MB more")


if __name__ == "__main__":
    main()
