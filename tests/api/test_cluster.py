"""Supervisors that Ray places: real nodes, a real API without workers, PostgreSQL; and every kind of loss."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from ray_kit import Cluster, environment, ray_cluster
from service_kit import LARGE, SMALL, wait_for
from sqlalchemy import select

from provenn.api.database import Database
from provenn.api.jobs.model import State
from provenn.api.tables import JobRow, TransitionRow

pytestmark = pytest.mark.xdist_group("postgresql")
PATIENCE = 120.0
LEASE = 3.0
ITEMS = 300
"""Of the largest job that is no batch of parts: it takes seconds with the larger network."""
FINAL = [state for state in State if state.final]


@contextmanager
def process(log: Path, *arguments: str, variables: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A `provenn` command that writes to a file, killed at the end if it is still there."""
    command = [sys.executable, "-m", "provenn", *arguments]
    with log.open("ab") as file, subprocess.Popen(command, env=variables, stdout=file, stderr=file) as started:
        try:
            yield started
        finally:
            started.kill()


class Bench:
    """The API as a process, its database, and what is seen there."""

    def __init__(self, url: str, folder: Path, token: str | None) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        settings = {
            "DATABASE": url,
            "BLOBS": f"file://{folder}/blobs",
            "DATA_DIR": str(folder / "api"),
            "PORT": str(self.port),
            "LEASE_SECONDS": str(LEASE),
            "THREADS": "1",
            "PART_ITEMS": str(ITEMS),
            "DRAIN_SECONDS": "0",
        }
        self._log = folder / "api.log"
        self.variables = environment(token) | {f"PROVENN_{name}": value for name, value in settings.items()}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self.database = Database(url)
        self._closing = ExitStack()
        self.api: subprocess.Popen[bytes]

    def serve(self) -> None:
        """Starts the API, again if it was killed."""
        self.api = self._closing.enter_context(process(self._log, "serve", "--workers", "0", variables=self.variables))

    def close(self) -> None:
        self._closing.close()
        self.client.close()
        self.database.close()

    def ready(self) -> bool:
        time.sleep(0.1)
        try:
            return self.client.get("/readyz").status_code == 200
        except httpx.TransportError:
            return False

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Supervisors that live and have slots; asked for now and then."""
        time.sleep(0.1)
        items = self.client.get("/v1/nodes").json()["items"]
        return {node["id"]: node for node in items if node["alive"] and node["slots"]}

    def submit(self, data: bytes, inputs: int, radii: int = 1) -> str:
        width = 64 if data is LARGE else 4
        answer = self.client.post("/v1/models", files={"file": ("n.onnx", data)})
        images = np.random.default_rng(0).random((inputs, width)).round(3).tolist()
        body = {
            "model": answer.json()["id"],
            "inputs": {"inputs": images, "labels": [0] * inputs, "epsilons": [0.001 * (1 + k) for k in range(radii)]},
            "method": "crown",
            "seed": time.monotonic_ns() % (1 << 31),  # no two are the same question
        }
        queued = self.client.post("/v1/jobs", json=body)
        assert queued.status_code == 202, queued.text
        return str(queued.json()["id"])

    def row(self, job: str) -> JobRow:
        time.sleep(0.02)
        with self.database.reading() as session:
            return session.scalars(select(JobRow).where(JobRow.id == job)).one()

    def reasons(self, job: str) -> list[str]:
        """Of all its changes so far."""
        with self.database.reading() as session:
            return list(
                session.scalars(
                    select(TransitionRow.reason).where(TransitionRow.job_id == job, TransitionRow.reason != "")
                )
            )

    def owners(self) -> set[str]:
        """Who runs something now."""
        with self.database.reading() as session:
            return set(session.scalars(select(JobRow.owner).where(JobRow.state == State.RUNNING, JobRow.owner != "")))

    def runs_at(self, job: str, owner: str) -> bool:
        row = self.row(job)
        return row.state == State.RUNNING and row.owner == owner

    def ended(self, *jobs: str) -> set[str]:
        """Waits until all have succeeded, each once; who was seen running something meanwhile."""
        seen: set[str] = set()

        def over() -> bool:
            seen.update(self.owners())
            return all(State(self.row(job).state).final for job in jobs)

        wait_for(over, PATIENCE)
        for job in jobs:
            row = self.row(job)
            assert row.state == State.SUCCEEDED, row.reason
            with self.database.reading() as session:
                ends = select(TransitionRow).where(TransitionRow.job_id == job, TransitionRow.state.in_(FINAL))
                assert len(session.scalars(ends).all()) == 1
        return seen


def refusal(log: Path, variables: dict[str, str], address: str) -> str:
    """What `provenn place` says when it gives up at once."""
    with process(log, "place", "--address", address, variables=variables) as place:
        assert place.wait(PATIENCE) == 2
    return log.read_text()


def test_no_cluster_without_a_token(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with ray_cluster(authenticated=False) as cluster:
        head = cluster.begin_head()
        assert "there is no token" in refusal(log, environment(None), "127.0.0.2:6379")
        variables = environment("secret") | {"PROVENN_DATABASE": "sqlite:///provenn.db"}
        assert "SQLite" in refusal(log, variables, "127.0.0.2:6379")
        address = cluster.joined("open", head).address
        assert "lets in whoever asks" in refusal(log, environment("secret"), address)


def test_jobs_survive_the_loss_of_nodes_head_and_api(postgresql: Callable[[], str], tmp_path: Path) -> None:
    with ray_cluster() as cluster, ExitStack() as closing:
        bench = Bench(postgresql(), tmp_path, cluster.token)
        closing.callback(bench.close)
        head = cluster.begin_head()
        bench.serve()
        address = cluster.joined("head", head).address
        first = cluster.begin_node(address)
        assert "another token" in refusal(tmp_path / "refused", environment("wrong"), address)
        cluster.joined("first", first)
        command = ("place", "--address", address, "--every", "0.5", "--workers", "1")
        closing.enter_context(process(tmp_path / "place.log", *command, variables=bench.variables))
        wait_for(bench.ready, PATIENCE)
        wait_for(lambda: len(bench.nodes()) == 2, PATIENCE)
        nodes = bench.nodes()
        share_of_work(bench, nodes)
        lost = loss_of_a_node(bench, cluster, address, nodes)
        loss_of_head_and_api(bench, cluster, address, lost)


def all_take_some(bench: Bench, nodes: Iterable[str]) -> None:
    """Each of these supervisors, however newly placed, runs a job; each job ends once."""
    seen: set[str] = set()

    def done() -> bool:
        seen.update(bench.ended(*(bench.submit(SMALL, 10) for _ in range(12))))
        return seen == set(nodes)

    wait_for(done, PATIENCE)


def job_at(bench: Bench, owner: str) -> tuple[str, str]:
    """A job that runs there now, and one that another supervisor has; each takes seconds."""
    jobs = [bench.submit(LARGE, ITEMS) for _ in range(2)]
    wait_for(lambda: len(bench.owners()) == 2, PATIENCE)
    first, second = sorted(jobs, key=lambda job: bench.row(job).owner != owner)
    assert bench.runs_at(first, owner)
    return first, second


def share_of_work(bench: Bench, nodes: Iterable[str]) -> None:
    """A job of many items falls into parts over both nodes, which are joined in order."""
    all_take_some(bench, nodes)
    whole = bench.submit(SMALL, 2 * ITEMS // 20, 20)
    assert bench.ended(whole) == set(nodes)
    assert bench.row(whole).parts == 2
    items = bench.client.get(f"/v1/jobs/{whole}").json()["result"]["items"]
    assert [(item["index"], item["input"]) for item in items] == [(k, k // 20) for k in range(2 * ITEMS)]


def node_of(cluster: Cluster, supervisor: dict[str, Any]) -> str:
    """The name of the node whose session a supervisor is in."""
    return next(name for name, node in cluster.nodes.items() if supervisor["pid"] in node.pids())


def loss_of_a_node(bench: Bench, cluster: Cluster, address: str, nodes: dict[str, Any]) -> str:
    """A job whose node is killed ends on the other, after its lease; a new node gets a supervisor: its id."""
    away = next(id for id, node in nodes.items() if node_of(cluster, node) == "first")
    staying = next(id for id in nodes if id != away)
    lost, other = job_at(bench, away)
    cluster.kill("first")
    second = cluster.begin_node(address)
    assert not bench.row(lost).finished_at
    bench.ended(lost, other)
    assert "the lease expired" in bench.reasons(lost)
    cluster.joined("second", second)
    (new,) = wait_for(lambda: bench.nodes().keys() - {away, staying}, PATIENCE)
    all_take_some(bench, (staying, new))
    return new


def loss_of_head_and_api(bench: Bench, cluster: Cluster, address: str, other: str) -> None:
    """Jobs go on without both; a restarted API finds them, and a new head gets a supervisor."""
    going, lost = job_at(bench, other)
    before = bench.owners()
    os.kill(bench.api.pid, signal.SIGKILL)
    cluster.kill("head")
    bench.serve()
    head = cluster.begin_head(at=address)
    assert bench.runs_at(going, other)
    bench.ended(going)
    assert bench.row(going).attempt == 1
    cluster.joined("new head", head)
    wait_for(bench.ready, PATIENCE)
    wait_for(lambda: bench.nodes().keys() - before, PATIENCE)
    bench.ended(lost, bench.submit(SMALL, 10))
    assert all(bench.client.get(f"/v1/jobs/{job}").json()["verdict"] for job in (going, lost))
