"""What the service adds to one certification: upload, job, worker process, certificate, against the same in process.

    python benchmarks/service.py [--runs 15]

One digits image and one radius; the model's bytes differ in every run, so nothing is answered from what the service
already has. Prints the medians and their difference; the aim is at most 150 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table

from provenn.api.certification import Options, certify, load_model
from provenn.api.client import Client
from provenn.api.schemas import Inputs
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.verifier.spec_json import robustness

EPSILON, POLL = 0.03, 0.002


def variants(count: int) -> list[bytes]:
    """The same network under different digests."""
    model = onnx.load_from_string(load("digits-mlp-robust"))
    found = []
    for number in range(count):
        model.doc_string = f"run {number}, {time.time_ns()}"
        found.append(model.SerializeToString())
    return found


@contextmanager
def service() -> Iterator[Client]:
    """A client of a service of our own, warm."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "provenn", "serve", "--port", "0", "--data-dir", folder, "--json"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
            assert server.stdout is not None
            url = json.loads(server.stdout.readline())["url"]
            try:
                with Client(url) as client:
                    while not client.ready():
                        time.sleep(0.05)
                    yield client
            finally:
                server.terminate()


def through_service(client: Client, data: bytes, image: np.ndarray, label: int) -> float:
    """Seconds from the upload to the certificate in hand."""
    start = time.perf_counter()
    question = Inputs(inputs=[image.ravel().tolist()], labels=[label], epsilons=[EPSILON], clip=(0.0, 1.0))
    model = client.upload(data)
    result = client.wait(client.certify(model.id, question).id, poll_seconds=POLL)
    assert result.items[0].certificate is not None, result.items[0]
    client.bundle(result.items[0].certificate)
    return time.perf_counter() - start


def in_process(data: bytes, image: np.ndarray, label: int) -> float:
    """Seconds of the same path without a service."""
    start = time.perf_counter()
    specification = robustness(image, label=label, epsilon=EPSILON, outputs=10, clip=(0, 1))
    (item,) = certify(load_model(data), [specification], Options())
    assert item.certificate is not None, item
    return time.perf_counter() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    _, test = load_digits()
    image, label = test.images[0], int(test.labels[0])
    with service() as client:
        there = [through_service(client, data, image, label) for data in variants(runs + 2)][2:]
    here = [in_process(data, image, label) for data in variants(runs + 2)][2:]
    table = Table("path", "median ms", "least ms", "most ms")
    for name, times in (("through the service", there), ("in process", here)):
        table.add_row(name, *(f"{f(times) * 1e3:.1f}" for f in (statistics.median, min, max)))
    added = (statistics.median(there) - statistics.median(here)) * 1e3
    Console().print(table, f"the service adds {added:.0f} ms at the median (aim: at most 150)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
