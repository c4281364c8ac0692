"""Two servers, each with a data directory of its own, on one PostgreSQL database and one bucket."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from s3_kit import free_port, moto
from service_kit import LARGE, SMALL, serving, slow_request, small_request, wait_for

from provenn.api.jobs.model import State

pytestmark = pytest.mark.xdist_group("postgresql")
SERVE = "from provenn.api.app import serve; from provenn.api.settings import Settings; serve(Settings())"
JOBS = 20


@contextmanager
def other_server(folder: Path, **settings: Any) -> Iterator[tuple[subprocess.Popen[bytes], httpx.Client]]:
    """A server in a process of its own, which may be killed."""
    port = free_port()
    given = {f"PROVENN_{name.upper()}": str(value) for name, value in settings.items()}
    given |= {"PROVENN_DATA_DIR": str(folder), "PROVENN_PORT": str(port), "PROVENN_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-c", SERVE], env=os.environ | given, stderr=subprocess.DEVNULL)
    with process, httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        try:
            wait_for(lambda: ready(client), 180)
            yield process, client
        finally:
            process.terminate()


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def test_two_servers_share_the_work_and_survive_each_other(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    with moto() as store:
        shared = store.settings(
            database=postgresql(), lease_seconds=1, workers=1, poll_seconds=0.1, part_items=0, part_seconds=0
        )
        with serving(tmp_path / "one", **shared) as one, other_server(tmp_path / "two", **shared) as (process, two):
            model, large = one.model(SMALL), one.model(LARGE)
            clients = (one.client, two)
            bodies = [small_request(model, epsilons=[0.001 * (n + 1)]) | {"seed": n} for n in range(JOBS)]
            jobs = [clients[n % 2].post("/v1/jobs", json=body).json()["id"] for n, body in enumerate(bodies)]
            done = [one.ended(job) for job in jobs]
            assert {job["state"] for job in done} == {State.SUCCEEDED}
            assert {job["attempt"] for job in done} == {1}
            for job in jobs:
                assert [t.state for t in one.service.jobs.transitions(job)] == ["queued", "running", "succeeded"]

            rows = [one.service.jobs.get(job) for job in jobs]
            requests = {row.request for row in rows if row is not None}
            took = [{path.name for path in (tmp_path / name / "cache").iterdir()} & requests for name in ("one", "two")]
            assert took[0] | took[1] == requests
            assert not took[0] & took[1]
            assert all(took)

            for job in done:
                name = job["result"]["items"][0]["certificate"]
                if name is not None:
                    assert hashlib.sha256(one.service.blobs.get(name)).hexdigest() == name
                    assert two.get(f"/v1/certificates/{name}").status_code == 200

            slow = [one.submit({"model": large, **slow_request(), "seed": seed}) for seed in range(2)]
            wait_for(lambda: all(one.job(job)["state"] == State.RUNNING for job in slow))
            rows = [one.service.jobs.get(job) for job in slow]
            mine = one.service.engine.id
            kept, lost = sorted((row for row in rows if row is not None), key=lambda row: row.owner != mine)
            assert (kept.owner == mine, lost.owner == mine) == (True, False)
            process.kill()
            wait_for(lambda: one.job(lost.id)["state"] == State.QUEUED)
            assert "the lease expired" in one.job(lost.id)["reason"]
            one.client.delete(f"/v1/jobs/{kept.id}")
            wait_for(lambda: one.job(lost.id)["state"] == State.RUNNING)
            assert one.job(lost.id)["attempt"] == 2
            assert one.pid(lost.id)
            one.client.delete(f"/v1/jobs/{lost.id}")
