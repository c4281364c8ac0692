"""What a batch costs in this process: 1,000 digits at 5 radii, certified, bundled and checked again.

    python benchmarks/batch.py [--network digits-mlp-robust] [--images 1000] [--seconds 600] [--threads 1]

Rows by verdict and by the method that decided them; rows and processor seconds; bytes of the bundle; peak memory.
With --largest every input's radius is bracketed instead. --repeat takes the images several times, for 10,000.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from provenn.api.batch.checking import Given, check_batch
from provenn.api.batch.data import Data
from provenn.api.batch.question import Question
from provenn.api.batch.run import BatchResult, certify_batch
from provenn.api.certification import Options, load_model
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits

RADII = ("1/255", "2/255", "4/255", "8/255", "16/255")
MIB = 1 << 20


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="digits-mlp-robust")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=1)
    parser.add_argument("--radii", type=int, default=len(RADII), help="how many of the five, the largest first")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--largest", type=float)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    content = load(given.network)
    model, data = load_model(content), digits(given.images, given.repeat)
    asked = (
        Question(RADII[-given.radii :], clip=(0, 1))
        if given.largest is None
        else Question(largest=given.largest, clip=(0, 1))
    )
    before = peak()
    with tempfile.TemporaryDirectory() as folder:
        wall, processor = time.perf_counter(), time.process_time()
        found = certify_batch(model, data, asked, Options(seconds=given.seconds), Path(folder))
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        most, bundle = peak(), Path(folder) / "batch.zip"
        size = bundle.stat().st_size
        checking = time.perf_counter()
        report = check_batch(bundle, content, Given(data, model.executor, model.graph.input_shape))
        checking = time.perf_counter() - checking
    show(found)
    count = len(found.rows)
    print(f"{given.network}: {count} rows in {wall:.1f} s ({count / wall:.1f}/s), {processor:.1f} processor seconds")
    print(f"bundle {size / MIB:.1f} MiB; {report.certificates} certificates checked again in {checking:.1f} s")
    print(f"peak memory {most:.0f} MiB, before the batch {before:.0f} MiB")
    return 0


def digits(images: int, repeat: int) -> Data:
    train, test = load_digits()
    several = np.concatenate([test.images.reshape(len(test.images), -1), train.images.reshape(len(train.images), -1)])
    labels = np.concatenate([test.labels, train.labels])
    places = np.tile(np.arange(images), repeat)
    names = tuple(map(str, range(len(places))))
    return Data(several[places].astype(np.float32), tuple(labels[places].tolist()), names)


def show(found: BatchResult) -> None:
    table = Table("method", "verdict", "rows", "seconds in them", box=None)
    counts: Counter[tuple[str, str]] = Counter()
    seconds: Counter[tuple[str, str]] = Counter()
    for row in found.rows:
        counts[row.method, row.verdict] += 1
        seconds[row.method, row.verdict] += row.seconds  # type: ignore[assignment]
    for key, count in sorted(counts.items(), key=lambda pair: -pair[1]):
        table.add_row(*key, str(count), f"{seconds[key]:.1f}")
    Console().print(table)
    ends = [(row.certified or 0.0, row.attacked) for row in found.rows if row.attacked]
    if ends:
        print(f"brackets: width {np.mean([1 - low / high for low, high in ends]):.4f} of their upper ends, on average")
    for each in found.summary.radii:
        print(f"radius {each.epsilon:.5f}: certified {each.certified.value:.4f}, attacked {each.attacked.value:.4f}")


def peak() -> float:
    """MiB of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    sys.exit(main())
