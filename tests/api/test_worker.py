"""`provenn worker` and `provenn nodes` as processes beside an API without workers; what they refuse; notices."""

from __future__ import annotations

import ast
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from service_kit import SMALL, Server, serving, small_request, wait_for

from provenn.api.cluster.orders import PASSED, Order, of_node, passed
from provenn.api.database import Database
from provenn.api.jobs.model import State
from provenn.api.jobs.nodes import Node, Nodes
from provenn.api.jobs.notices import Kind, Notice, Notices
from provenn.api.settings import Settings

ROOT = Path(__file__).parents[2]
on_postgresql = pytest.mark.xdist_group("postgresql")


def command(*arguments: str, **settings: Any) -> subprocess.Popen[bytes]:
    variables = {f"PROVENN_{name.upper()}": str(value) for name, value in settings.items()}
    path = {"PATH": "/usr/bin:/bin", "PROVENN_THREADS": "1", "OMP_NUM_THREADS": "1"}
    line = [sys.executable, "-m", "provenn", *arguments]
    return subprocess.Popen(line, env=path | variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def refusal(*arguments: str, **settings: Any) -> str:
    with command(*arguments, **settings) as process:
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2, said
    return said.decode()


@contextmanager
def without_workers(url: str, folder: Path, **more: Any) -> Iterator[Server]:
    shared = {"database": url, "blobs": f"file://{folder}/blobs", **more}
    with serving(folder / "api", workers=0, lease_seconds=2, **shared) as server:
        yield server


@on_postgresql
def test_a_worker_runs_what_the_api_queues_and_drains(postgresql: Callable[[], str], tmp_path: Path) -> None:
    url = postgresql()
    settings = {"database": url, "blobs": f"file://{tmp_path}/blobs", "data_dir": tmp_path / "worker"}
    with without_workers(url, tmp_path) as server:
        model = server.model(SMALL)
        job = server.submit(small_request(model))
        assert server.client.get("/v1/nodes").json()["items"][0]["slots"] == 0
        with command("worker", "--workers", "1", "--json", **settings, lease_seconds=2, drain_seconds=60) as worker:
            try:
                assert worker.stdout is not None
                assert json.loads(worker.stdout.readline())["database"].startswith("postgresql+psycopg://")
                assert server.ended(job)["state"] == State.SUCCEEDED
                slow = server.slow_job()
                wait_for(lambda: server.job(slow)["state"] == State.RUNNING)
                (mine,) = [n for n in server.client.get("/v1/nodes").json()["items"] if n["slots"]]
                assert (mine["running"], mine["pid"], mine["alive"]) == (1, worker.pid, True)
                worker.send_signal(signal.SIGTERM)
                wait_for(lambda: any(node["draining"] for node in server.client.get("/v1/nodes").json()["items"]))
                assert worker.poll() is None
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(30) == 0
            finally:
                worker.kill()
        found = server.job(slow)
        assert (found["state"], found["reason"]) == (State.QUEUED, "the server was shut down")
        assert [node["slots"] for node in server.client.get("/v1/nodes").json()["items"]] == [0]


@on_postgresql
def test_two_processes_wake_each_other(postgresql: Callable[[], str], tmp_path: Path) -> None:
    """Polls are far longer than the test: what happens comes by notices."""
    url = postgresql()
    with without_workers(url, tmp_path, poll_seconds=600) as server:
        shared = {"database": url, "blobs": f"file://{tmp_path}/blobs", "poll_seconds": 600}
        with serving(tmp_path / "other", workers=1, **shared) as other:
            job = server.submit(small_request(server.model(SMALL)))
            assert server.ended(job)["state"] == State.SUCCEEDED
            slow = server.slow_job()
            other.pid(slow)
            with server.client.stream("GET", f"/v1/jobs/{slow}/events") as events:
                lines = events.iter_lines()
                wait_for(lambda: "running" in next(lines))
                server.client.delete(f"/v1/jobs/{slow}")
                wait_for(lambda: "event: end" in next(lines))
            wait_for(lambda: not other.service.engine.worker_pids(slow))


@on_postgresql
def test_notices_reach_the_others_and_come_back_after_a_loss(postgresql: Callable[[], str]) -> None:
    import psycopg

    url = postgresql()
    heard: list[Notice] = []
    speaker, listener = Notices(url), Notices(url)
    speaker.start(lambda notice: None)
    listener.start(heard.append)

    def arrives(job: str) -> None:
        def told() -> bool:
            speaker.tell(Notice(Kind.CHANGED, job))
            time.sleep(0.05)
            return Notice(Kind.CHANGED, job) in heard

        wait_for(told)

    arrives("first")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("NOTIFY provenn, 'of a newer version'")
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> "
        connection.execute(others + "pg_backend_pid()")
    arrives("second")
    listener.tell(Notice(Kind.QUEUED))
    arrives("third")
    assert {notice.kind for notice in heard} == {Kind.QUEUED, Kind.CANCELLED, Kind.CHANGED}  # the first two: connected
    speaker.stop()
    listener.stop()
    assert not [thread for thread in threading.enumerate() if thread.name == "notices"]


@on_postgresql
def test_a_forgotten_supervisor_comes_back_and_a_draining_one_has_no_slots(postgresql: Callable[[], str]) -> None:
    database = Database(postgresql())
    nodes = Nodes(database, 60)
    mine, other = Node("a" * 32, 2, "cpu"), Node("b" * 32, 3, "cuda")
    nodes.join(mine)
    nodes.beat(other)
    assert nodes.slots() == 5
    nodes.beat(other, draining=True)
    assert nodes.slots() == 2
    assert [(each.row.id, each.running, each.alive) for each in nodes.known()] == [
        (mine.id, 0, True),
        (other.id, 0, True),
    ]
    nodes.leave(mine)
    assert [row.id for row in nodes.alive()] == [other.id]
    database.close()


def test_what_others_cannot_reach_is_refused(tmp_path: Path) -> None:
    assert "SQLite" in refusal("worker", data_dir=tmp_path)
    assert "PROVENN_BLOBS" in refusal("worker", data_dir=tmp_path, database="postgresql://nobody@/none")
    assert "SQLite" in refusal("serve", "--workers", "0", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_nodes_of_one_process(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        with command("nodes", "--here", "--json", data_dir=tmp_path) as process:
            said, _ = process.communicate(timeout=60)
        (node,) = json.loads(said)["nodes"]
        assert (node["slots"], node["alive"], node["running"]) == (1, True, 0)
        assert [n["id"] for n in server.client.get("/v1/nodes").json()["items"]] == [node["id"]]
    assert "no supervisor" in refusal("nodes", "--here", data_dir=tmp_path)


def test_what_a_node_says_itself_comes_before_what_it_is_given() -> None:
    given = {"database": "postgresql://given@/x", "workers": 4, "lease_seconds": 5.0}
    found = of_node(given, cpus=8, gpus=0, variables={"PROVENN_WORKERS": "3"})
    assert (found.database, found.lease_seconds, found.workers) == ("postgresql://given@/x", 5.0, Settings().workers)
    assert of_node(given, 8, 0, {}).threads == 2
    assert of_node(given, 8, 1, {}).device == "cuda"
    assert of_node({**given, "device": "cpu", "threads": 5}, 8, 1, {}).model_dump(include={"device", "threads"}) == {
        "device": "cpu",
        "threads": 5,
    }


def test_settings_that_travel_are_those_that_were_given() -> None:
    assert set(PASSED) <= Settings.model_fields.keys()
    assert passed(Settings(workers=3, port=9)) == {"workers": 3}
    assert json.loads(json.dumps(vars(Order("127.0.0.2:1", passed(Settings(workers=3)))))) is not None


def test_ray_is_imported_by_the_placement_alone() -> None:
    code = (
        "import sys; import provenn.api.app, provenn.api.supervisor, provenn.api.cli.app, provenn.api.cluster.keeper, "
        "provenn.api.cluster.actor; print('ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    importing = set()
    for path in (ROOT / "api").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "ray" for name in names):
                importing.add(path.relative_to(ROOT).as_posix())
    assert importing == {"api/cluster/placement.py"}
