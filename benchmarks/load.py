"""What a warm embedded server does under load: delays, throughput, answers while it computes.

    python benchmarks/load.py [--jobs 200] [--clients 8]

Starts a service of its own with two workers. Prints, against the aims for two cores: the time from submission to start
(one job at a time, workers idle; median and 99th percentile); small jobs through REST a second, from the
first request to the last answer, with errors; and how long GET requests take while both workers are busy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import httpx
import numpy as np
from rich.console import Console
from rich.table import Table

from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits

SETTLE = 0.002


@contextmanager
def service(workers: int = 2) -> Iterator[httpx.Client]:
    """A client of a warm service of our own."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", "0", "--data-dir", folder, "--workers", str(workers), "--json"]
        command = [sys.executable, "-m", "provenn", "serve", *options]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            try:
                with httpx.Client(base_url=url, timeout=60) as client:
                    while not ready(client):
                        time.sleep(0.05)
                    yield client
            finally:
                server.terminate()


def ready(client: httpx.Client) -> bool:
    """Whether it takes jobs."""
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def submitted(client: httpx.Client, body: dict[str, Any]) -> str:
    """The id of a new job."""
    answer = client.post("/v1/jobs", json=body)
    answer.raise_for_status()
    return str(answer.json()["id"])


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    """The job once it is over."""
    while (found := client.get(f"/v1/jobs/{job}", params={"wait": 10}).json())["state"] in ("queued", "running"):
        pass
    return dict(found)


def delay(job: dict[str, Any]) -> float:
    """Seconds from submission to the worker's start, by the server's own clock."""
    first, then = (datetime.fromisoformat(job[name]) for name in ("created_at", "started_at"))
    return (then - first).total_seconds()


def small(model: str, seed: int, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """One image, one radius; no two alike, so that none is answered from another."""
    k = seed % len(images)
    inputs = {"inputs": [images[k].ravel().tolist()], "labels": [int(labels[k])], "epsilons": [0.01], "clip": [0, 1]}
    return {"model": model, "inputs": inputs, "seed": seed}


def long(model: str, seed: int, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Far more than the benchmark waits for."""
    inputs = {
        "inputs": images.reshape(len(images), -1).tolist(),
        "labels": labels.tolist(),
        "epsilons": [0.001 * k for k in range(1, 20)],
    }
    return {"model": model, "inputs": inputs, "seed": seed, "budget": {"seconds": 600}}


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of all do not exceed."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def measured(client: httpx.Client, jobs: int, clients: int) -> Iterator[tuple[str, float, str, float, bool]]:
    """(what, value, unit, aim, whether less is better)."""
    _, test = load_digits()
    images, labels = test.images[:500], test.labels[:500]
    answer = client.post("/v1/models", files={"file": ("digits.onnx", load("digits-mlp-robust"))})
    answer.raise_for_status()
    model = answer.json()["id"]
    alone = [ended(client, submitted(client, small(model, 1000 + k, images, labels))) for k in range(40)]
    delays = [delay(job) * 1e3 for job in alone[5:]]
    yield "submission to start, median", statistics.median(delays), "ms", 50, True
    yield "submission to start, 99th percentile", percentile(delays, 0.99), "ms", 200, True
    start = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        names = list(pool.map(lambda k: submitted(client, small(model, 2000 + k, images, labels)), range(jobs)))
        found = list(pool.map(lambda job: ended(client, job), names))
    yield f"{jobs} small jobs", jobs / (time.perf_counter() - start), "jobs/s", 20, False
    yield "of these not succeeded", sum(job["state"] != "succeeded" for job in found), "jobs", 0, True
    busy = [submitted(client, long(model, 3000 + k, images, labels)) for k in range(2)]
    while any(client.get(f"/v1/jobs/{job}").json()["state"] == "queued" for job in busy):
        time.sleep(SETTLE)
    times = []
    for number in range(600):
        path = ("/v1/jobs", f"/v1/models/{model}", f"/v1/jobs/{names[0]}", "/v1/backends", "/readyz")[number % 5]
        begun = time.perf_counter()
        client.get(path).raise_for_status()
        times.append((time.perf_counter() - begun) * 1e3)
        time.sleep(SETTLE)
    yield "answers while two workers are busy, median", statistics.median(times), "ms", 100, True
    yield "answers while two workers are busy, 99th percentile", percentile(times, 0.99), "ms", 100, True
    for job in busy:
        client.delete(f"/v1/jobs/{job}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    asked = parser.parse_args()
    table, missed = Table("what", "measured", "aim", "reached"), False
    with service() as client:
        for what, value, unit, aim, less in measured(client, asked.jobs, asked.clients):
            reached = value <= aim if less else value >= aim
            missed |= not reached
            sign = "at most" if less else "at least"
            table.add_row(what, f"{value:.4g} {unit}", f"{sign} {aim:g} {unit}", "yes" if reached else "no")
    Console(width=120).print(table)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
