"""The whole path on real input: train, serve, upload, certify 100 digits, re-check every certificate, draw the curve.

Run it by `make demo`. Everything it leaves is in demo-output/.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import provenn
from provenn.api.client import Client
from provenn.api.schemas import Inputs, Item, JobResult
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.verifier.certificate.bundle import to_zip
from provenn.verifier.spec_json import robustness

RADII = (0.01, 0.02, 0.03, 0.05, 0.08, 0.12)
CLIP = (0.0, 1.0)
CLASSES = 10
START_SECONDS = 60
console = Console(highlight=False)


@dataclass(frozen=True)
class Demo:
    """What to certify, and where the results go."""

    network: str
    images: np.ndarray
    labels: np.ndarray
    folder: Path

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.folder / f"{self.network}.onnx"


def main() -> int:
    """0 if every certificate was accepted."""
    signal.signal(signal.SIGTERM, _stop)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="digits-cnn-robust", help="a network of the zoo")
    parser.add_argument("--images", type=int, default=100, help="how many test images")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder of the results")
    given = parser.parse_args()
    demo = prepare(given.network, given.images, given.output)
    with serving(demo.folder) as client:
        result = certify(client, demo)
        show(demo, result)
        rejected = recheck(client, demo, result.items)
    draw(demo, result)
    explain(demo)
    return 1 if rejected else 0


def prepare(network: str, count: int, folder: Path) -> Demo:
    """Trains or loads the network; writes it and the images where the commands at the end find them."""
    console.print(f"[bold]1  Network[/]  {network}, trained on scikit-learn's digits")
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    data = load(network)
    _, test = load_digits()
    demo = Demo(network, test.images[:count], test.labels[:count], folder)
    demo.model.write_bytes(data)
    np.save(folder / "images.npy", demo.images)
    np.save(folder / "labels.npy", demo.labels)
    console.print(f"   {demo.model}: {len(data) / 1000:.0f} kB, {time.monotonic() - start:.1f} s")
    return demo


@contextmanager
def serving(folder: Path) -> Iterator[Client]:
    """A client of a service of our own on a free port; the service ends with the block, however that ends."""
    command = [sys.executable, "-m", "provenn", "serve", "--port", "0", "--data-dir", str(folder / "data"), "--json"]
    said, log = folder / "server.json", folder / "server.log"
    with said.open("w") as out, log.open("w") as errors:
        server = subprocess.Popen(command, stdout=out, stderr=errors)
    try:
        with Client(_url(server, said, log)) as client:
            console.print(f"[bold]2  Service[/]  {client.url}, ready; its log: {log}")
            yield client
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _url(server: subprocess.Popen[bytes], said: Path, log: Path) -> str:
    """Where the service says it is, once it is ready.   Raises: SystemExit if it ends or takes too long."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        line = said.read_text().partition("\n")
        if line[1]:
            url = str(json.loads(line[0])["url"])
            with Client(url) as client:
                if client.ready():
                    return url
        time.sleep(0.1)
    raise SystemExit(f"the service did not start; {log} says:\n{log.read_text()}{said.read_text()}")


def certify(client: Client, demo: Demo) -> JobResult:
    """One job over all images and radii, followed to its end."""
    console.print(f"[bold]3  Job[/]  {len(demo.images)} images at {len(RADII)} radii, l-infinity, pixels in [0, 1]")
    model = client.upload(demo.model)
    inputs = Inputs(
        inputs=demo.images.reshape(len(demo.images), -1).tolist(),
        labels=demo.labels.tolist(),
        epsilons=list(RADII),
        clip=CLIP,
    )
    job = client.certify(model.id, inputs, seconds=120)
    columns = (TextColumn("   {task.description:<12}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("queued", total=len(demo.images) * len(RADII))
        result = client.wait(
            job.id, lambda done, total, phase: progress.update(task, completed=done, description=phase)
        )
        progress.update(task, completed=len(result.items), description="done")
    return result


def show(demo: Demo, result: JobResult) -> None:
    """The table of results, one line a radius."""
    correct = clean_correct(demo)
    names = ("radius", "clean correct", "verified", "falsified", "unknown", "certified accuracy", "seconds")
    table = Table(*names, box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False, show_edge=False)
    for column in table.columns:
        column.justify = "right"
    for row in result.summary:
        seconds = sum(item.seconds for item in result.items if item.epsilon == row.epsilon)
        counts = (correct, row.verified, row.falsified, row.unknown + row.timeout)
        accuracy = f"{100 * row.verified / len(demo.images):.0f} %"
        table.add_row(f"{row.epsilon:g}", *map(str, counts), accuracy, f"{seconds:.2f}")
    console.print(table)
    console.print("   A misclassified image counts as falsified at every radius.")


def clean_correct(demo: Demo) -> int:
    """How many images the network gets right, by onnxruntime."""
    from provenn.models.executor import OnnxExecutor

    outputs = OnnxExecutor(demo.model.read_bytes()).run(demo.images)
    return int((outputs.argmax(axis=1) == demo.labels).sum())


def recheck(client: Client, demo: Demo, items: Sequence[Item]) -> int:
    """Downloads every certificate and has the trusted checker prove it again, here, about the question asked."""
    console.print("[bold]4  Certificates[/]  downloaded, and re-proved here by the trusted checker")
    verified = [item for item in items if item.verdict == "verified"]
    rejected, start = 0, time.monotonic()
    for item in verified:
        why = _rejection(client, demo, item)
        if why is not None:
            rejected += 1
            console.print(f"   [red]rejected[/]: image {item.input}, radius {item.epsilon}: {why}", markup=True)
    seconds = time.monotonic() - start
    if rejected:
        console.print(f"   [red]{rejected} of {len(verified)} certificates rejected[/]")
    else:
        console.print(f"   [green]all certificates accepted ({len(verified)})[/] in {seconds:.1f} s")
    return rejected


def _rejection(client: Client, demo: Demo, item: Item) -> str | None:
    """Why this item's certificate does not prove this item, or None."""
    if item.certificate is None or item.input is None or item.epsilon is None:
        return "there is no certificate"
    question = robustness(
        demo.images[item.input].ravel().tolist(),
        label=int(demo.labels[item.input]),
        epsilon=item.epsilon,
        norm="inf",
        outputs=CLASSES,
        clip=CLIP,
    )
    files = client.certificate(item.certificate)
    try:
        provenn.check(files, demo.model, question.text)
    except provenn.CertificateRejected as refusal:
        return str(refusal)
    (demo.folder / "certificate.zip").write_bytes(to_zip(files))
    return None


def draw(demo: Demo, result: JobResult) -> None:
    """Certified accuracy: the truth lies between the share that is certified and the share not falsified."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    total = len(demo.images)
    clean = 100 * clean_correct(demo) / total
    radii = [0.0, *RADII]
    lower = [clean, *(100 * row.verified / total for row in result.summary)]
    upper = [clean, *(100 * (total - row.falsified) / total for row in result.summary)]
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    axes.fill_between(radii, lower, upper, alpha=0.2, label="undecided")
    axes.plot(radii, upper, marker="o", label="not falsified (no counterexample found)")
    axes.plot(radii, lower, marker="o", label="certified (proved and re-checked)")
    axes.set(xlabel="radius (l-infinity, pixels in [0, 1])", ylabel="test images, %", ylim=(0, 102))
    axes.set_title(f"{demo.network}: {total} test images")
    axes.grid(alpha=0.3)
    axes.legend(loc="lower left")
    path = demo.folder / "certified-accuracy.png"
    figure.savefig(path, dpi=150)
    plt.close(figure)
    console.print(f"[bold]5  Curve[/]  {path}")


def explain(demo: Demo) -> None:
    """What to try next."""
    folder, command = demo.folder, Path(sys.executable).with_name("provenn")
    shown = command.relative_to(Path.cwd()) if command.is_relative_to(Path.cwd()) else command
    console.print(
        f"""[bold]6  Go on[/]  the service has stopped; try (each line as it is):

  {shown} inspect {demo.model}
  {shown} certify {demo.model} --input {folder}/images.npy --label {folder}/labels.npy --eps 0.1 --clip 0 1
  {shown} check {folder}/certificate.zip --model {demo.model}
  {shown} serve --data-dir {folder}/data        # then, in another terminal:
  curl -s http://127.0.0.1:8000/v1/jobs         # the job above; http://127.0.0.1:8000/openapi.json has the API
  curl -s -F file=@{demo.model} http://127.0.0.1:8000/v1/models
""",
        soft_wrap=True,
        markup=True,
    )


def _stop(number: int, frame: FrameType | None) -> None:
    """Turns a termination signal into an exit that runs every `finally`."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
