"""What each way to run jobs costs while idle, and how long a job waits for a free worker.

    python benchmarks/engines.py [--jobs 30]

Starts, one after another: the service alone; an API without workers and `provenn worker` on a PostgreSQL of its own;
the same with a two-node Ray cluster on this machine and `provenn place`. Memory is PSS, the sum over each part's
processes; waiting is from the row's `created_at` to its `started_at`. Without PostgreSQL or ray a part is left out.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import httpx
from rich.console import Console
from rich.table import Table
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from postgres_kit import binaries, cluster
from ray_kit import environment, ray_cluster

from provenn.api.database import Database
from provenn.api.jobs.store import JobStore
from provenn.api.tables import JobRow
from provenn.models.zoo import load

PORT = 8917
SETTLE_SECONDS = 8.0
MIB = 1 << 20
Rows = list[tuple[str, str]]


def pss(pids: list[int]) -> float:
    """MiB of memory, pages that several share divided among them."""
    total = 0
    for pid in pids:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        total += next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return total * 1024 / MIB


def tree(root: int) -> list[int]:
    """A process and all below it."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (entry / "stat").exists():
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


@contextmanager
def provenn(*arguments: str, variables: dict[str, str]) -> Iterator[int]:
    """A command, and its process id."""
    command = [sys.executable, "-m", "provenn", *arguments]
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process.pid
        finally:
            process.terminate()


def until(what: Callable[[], bool]) -> None:
    """Waits; two minutes at most."""
    end = time.monotonic() + 120
    while not what():
        if time.monotonic() > end:
            raise TimeoutError("it did not begin")
        time.sleep(0.2)


def answers(client: httpx.Client, slots: int) -> bool:
    """Whether the API is ready and so many jobs can run at a time."""
    try:
        if client.get("/readyz").status_code != 200:
            return False
    except httpx.TransportError:
        return False
    nodes = client.get("/v1/nodes").json()["items"]
    return sum(node["slots"] for node in nodes if node["alive"]) >= slots


def waits(client: httpx.Client, database: Database, jobs: int) -> list[float]:
    """Milliseconds between being queued and being claimed, of jobs through the API one after another."""
    model = client.post("/v1/models", files={"file": ("n.onnx", load("digits-mlp-robust"))}).json()["id"]
    found = []
    for number in range(jobs):
        question = {"inputs": [[0.5] * 64], "labels": [number % 10], "epsilons": [0.001 * (1 + number)]}
        seed = time.time_ns() % (1 << 31)  # no two are the same question, whose answer would be there already
        job = client.post("/v1/jobs", json={"model": model, "inputs": question, "seed": seed}).json()["id"]
        found.append(waited(database, job))
    return found


def unheard(database: Database, jobs: int) -> list[float]:
    """The same of rows that nobody gives notice of: polling finds them."""
    store, found = JobStore(database), []
    with database.reading() as session:
        row = session.scalars(select(JobRow).limit(1)).one()
    kept = ("model_id", "kind", "method", "seconds", "certificates", "items", "request", "priority")
    for number in range(jobs):
        copy = JobRow(id=uuid.uuid4().hex, seed=number, **{name: getattr(row, name) for name in kept})
        found.append(waited(database, store.add(copy).id))
        time.sleep(0.037)  # out of step with the polls
    return found


def waited(database: Database, job: str) -> float:
    """Of one job, once it is over."""
    while True:
        with database.reading() as session:
            row = session.scalars(select(JobRow).where(JobRow.id == job)).one()
        if row.finished_at is not None and row.started_at is not None:
            return 1000 * (row.started_at - row.created_at)
        time.sleep(0.02)


def shown(milliseconds: list[float]) -> str:
    """Median and ninth decile."""
    return f"{statistics.median(milliseconds):.1f} ms, p90 {statistics.quantiles(milliseconds, n=10)[-1]:.1f} ms"


def embedded(folder: Path, jobs: int) -> Rows:
    """`provenn serve` alone."""
    variables = environment(None) | {"PROVENN_DATA_DIR": str(folder), "PROVENN_PORT": str(PORT)}
    with ExitStack() as stack:
        pid = stack.enter_context(provenn("serve", "--workers", "2", variables=variables))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60))
        until(lambda: answers(client, 2))
        time.sleep(SETTLE_SECONDS)
        idle = pss(tree(pid))
        database = Database(f"sqlite:///{folder}/provenn.db")
        stack.callback(database.close)
        found = waits(client, database, jobs)
    return [("serve: idle memory", f"{idle:.0f} MiB"), ("serve: queued to claimed", shown(found))]


def beyond(folder: Path, jobs: int) -> Rows:
    """An API without workers with `provenn worker`, then with supervisors that Ray places."""
    rows: Rows = []
    with ExitStack() as stack:
        url = stack.enter_context(cluster()).database()
        settings = {"DATABASE": url, "BLOBS": f"file://{folder}/blobs", "PORT": str(PORT)}
        shared = {f"PROVENN_{name}": value for name, value in settings.items()}
        here = environment(None) | shared
        api = stack.enter_context(provenn("serve", "--workers", "0", "--data-dir", f"{folder}/api", variables=here))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{PORT}", timeout=60))
        database = stack.enter_context(opened(url, client))
        with provenn("worker", "--workers", "2", "--data-dir", f"{folder}/worker", variables=here) as worker:
            until(lambda: answers(client, 2))
            time.sleep(SETTLE_SECONDS)
            rows.append(("serve --workers 0: idle memory", f"{pss(tree(api)):.0f} MiB"))
            rows.append(("worker: idle memory", f"{pss(tree(worker)):.0f} MiB"))
            rows.append(("worker: queued to claimed, by notices", shown(waits(client, database, jobs))))
            rows.append(("worker: queued to claimed, by polling alone", shown(unheard(database, jobs))))
        if find_spec("ray") is not None:
            until(lambda: not answers(client, 1))
            rows += placed(client, database, shared, jobs)
    return rows


@contextmanager
def opened(url: str, client: httpx.Client) -> Iterator[Database]:
    """The database, once the API has made its tables."""
    until(lambda: answers(client, 0))
    database = Database(url)
    try:
        yield database
    finally:
        database.close()


def placed(client: httpx.Client, database: Database, shared: dict[str, str], jobs: int) -> Rows:
    """A head that takes no jobs, and a node with one supervisor."""
    with ray_cluster() as nodes, ExitStack() as stack:
        head = nodes.joined("head", nodes.begin_head(cpus=0))
        node = nodes.joined("node", nodes.begin_node(head.address, cpus=2))
        bare = pss(node.pids())
        begun = time.monotonic()
        command = ("place", "--address", head.address, "--workers", "2")
        keeper = stack.enter_context(provenn(*command, variables=environment(nodes.token) | shared))
        until(lambda: answers(client, 2))
        rows = [("ray: from provenn place to a ready node", f"{time.monotonic() - begun:.1f} s")]
        time.sleep(SETTLE_SECONDS)
        rows += [
            ("ray: head, idle memory", f"{pss(head.pids()):.0f} MiB"),
            ("ray: node without supervisor, idle memory", f"{bare:.0f} MiB"),
            ("ray: node with supervisor, idle memory", f"{pss(node.pids()):.0f} MiB"),
            ("ray: provenn place, idle memory", f"{pss(tree(keeper)):.0f} MiB"),
            ("ray: queued to claimed", shown(waits(client, database, jobs))),
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=30)
    jobs = parser.parse_args().jobs
    with tempfile.TemporaryDirectory() as name:
        rows = embedded(Path(name, "embedded"), jobs)
        if binaries() is not None:
            rows += beyond(Path(name), jobs)
    table = Table("what", "measured")
    for row in rows:
        table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
