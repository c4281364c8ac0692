"""Real workers: killed, cancelled, timed out, orphaned, restarted."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from service_kit import LARGE, SMALL, Server, mlp, serving, slow_request, small_request, wait_for

from provenn.api.jobs.child import NURSERY, Reporter
from provenn.api.jobs.model import State
from provenn.api.jobs.slot import Slot, slots_of
from provenn.api.jobs.task import Limits, Order
from provenn.api.settings import Settings
from provenn.api.tables import JobRow
from provenn.verifier.certificate.bundle import load_zip
from provenn.verifier.check import check
from provenn.verifier.spec_json import robustness


def alive(pid: int) -> bool:
    """Whether the process is there and not merely unreaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def running(server: Server, job: str) -> bool:
    return server.job(job)["state"] == State.RUNNING


def test_a_killed_worker_is_replaced(server: Server) -> None:
    job = server.slow_job()
    first = server.pid(job)
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: server.job(job)["attempt"] == 2 and running(server, job))
    found = server.job(job)
    assert "worker died (signal 9)" in found["reason"]
    assert server.pid(job) != first
    server.client.delete(f"/v1/jobs/{job}")


def test_a_job_that_kills_its_workers_fails(server: Server) -> None:
    job = server.slow_job()
    seen: set[int] = set()
    for _ in range(3):
        pid = wait_for(lambda: next((p for p in server.service.engine.worker_pids(job) if p not in seen), None))
        seen.add(pid)
        os.kill(pid, signal.SIGKILL)
    found = server.ended(job)
    assert (found["state"], found["attempt"]) == (State.FAILED, 3)
    assert found["reason"].startswith("worker died (signal 9)")


def test_cancelling_kills_only_that_worker(server: Server) -> None:
    doomed, other = server.slow_job(seed=1), server.slow_job(seed=2)
    pid, spared = server.pid(doomed), server.pid(other)
    response = server.client.delete(f"/v1/jobs/{doomed}")
    assert (response.status_code, response.json()["state"]) == (202, State.CANCELLED)
    wait_for(lambda: not alive(pid))
    assert alive(spared)
    again = server.client.delete(f"/v1/jobs/{doomed}")
    assert (again.status_code, again.json()["type"]) == (409, "urn:provenn:problem:conflict")
    server.client.delete(f"/v1/jobs/{other}")
    wait_for(lambda: not alive(spared))


def test_cancelling_at_any_moment_leaves_no_worker(server: Server) -> None:
    jobs = [server.slow_job(seed=seed) for seed in range(8)]
    for job in jobs:
        server.client.delete(f"/v1/jobs/{job}")
    wait_for(lambda: not any(server.service.engine.worker_pids(job) for job in jobs))
    assert {server.job(job)["state"] for job in jobs} == {State.CANCELLED}


def test_leases_are_renewed(tmp_path: Path) -> None:
    with serving(tmp_path, lease_seconds=1) as server:
        job = server.slow_job()
        server.pid(job)
        first = lease(server, job)
        wait_for(lambda: lease(server, job) > first + 1)
        assert server.job(job)["attempt"] == 1


def lease(server: Server, job: str) -> float:
    row = server.service.jobs.get(job)
    assert row is not None
    assert row.lease_until is not None
    return row.lease_until


def test_a_queued_job_is_cancelled_without_a_worker(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        first, second = server.slow_job(), server.slow_job()
        server.pid(first)
        assert server.client.delete(f"/v1/jobs/{second}").json()["state"] == State.CANCELLED
        assert server.job(second)["attempt"] == 0


def test_the_wall_clock_kills_a_frozen_worker(tmp_path: Path) -> None:
    with serving(tmp_path, grace_seconds=0.2) as server:
        frozen = server.slow_job(budget={"seconds": 1})
        pid = server.pid(frozen)
        os.kill(pid, signal.SIGSTOP)
        found = server.ended(frozen)
        assert found["state"] == State.TIMED_OUT
        assert "wall-clock" in found["reason"]
        wait_for(lambda: not alive(pid))


def test_a_restart_resumes(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        interrupted = server.slow_job()
        waiting = server.submit(small_request(server.model(SMALL)))
        pid = server.pid(interrupted)
    assert not alive(pid)
    with serving(tmp_path, workers=1) as server:
        wait_for(lambda: running(server, interrupted))
        assert server.job(interrupted)["attempt"] == 2
        assert server.job(waiting)["state"] == State.QUEUED
        server.client.delete(f"/v1/jobs/{interrupted}")
        assert server.ended(waiting)["state"] == State.SUCCEEDED


def test_a_dead_server_takes_its_workers_along_and_its_jobs_come_back(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PROVENN_DATA_DIR": str(tmp_path), "PROVENN_PORT": str(port), "PROVENN_THREADS": "1"}
    code = "from provenn.api.app import serve; from provenn.api.settings import Settings; serve(Settings())"
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.DEVNULL) as process:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            wait_for(lambda: ready(client))
            model = client.post("/v1/models", files={"file": ("n.onnx", LARGE)}).json()["id"]
            job = client.post("/v1/jobs", json={"model": model, **slow_request()}).json()["id"]
            wait_for(lambda: client.get(f"/v1/jobs/{job}").json()["state"] == State.RUNNING)
            workers = wait_for(lambda: descendants(process.pid))
        process.kill()
    wait_for(lambda: not any(alive(pid) for pid in workers))
    with serving(tmp_path) as server:
        wait_for(lambda: running(server, job) and server.job(job)["attempt"] == 2)
        assert "the server stopped" in server.job(job)["reason"]


def ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, from /proc."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except FileNotFoundError:
                continue
    below, todo = [], [pid]
    while todo:
        parent = todo.pop()
        children = [child for child, p in parents.items() if p == parent]
        below += children
        todo += children
    return below


def test_an_interrupt_of_the_terminal_does_not_reach_a_worker(server: Server) -> None:
    radii = [0.001 * k for k in range(500)]
    job = server.submit(small_request(server.model(SMALL), epsilons=radii))
    os.kill(server.pid(job), signal.SIGINT)
    found = server.ended(job)
    assert (found["state"], found["attempt"]) == (State.SUCCEEDED, 1)


def test_memory_is_limited(tmp_path: Path) -> None:
    large = mlp([64, 4096, 4096, 10])  # made first: it takes as long as a server keeps an idle connection
    with serving(tmp_path, memory_limit_mb=128) as server:
        response = server.upload(large)
        assert response.status_code in (413, 422)
        assert "MiB" in response.json()["detail"]
        assert server.upload(SMALL).status_code == 201


def test_reading_a_file_is_limited_in_time(tmp_path: Path) -> None:
    with serving(tmp_path, inspect_seconds=0.001) as server:
        response = server.upload(SMALL)
        assert (response.status_code, response.json()["type"]) == (413, "urn:provenn:problem:resource-limit")
        assert server.client.get("/v1/models").json()["items"] == []


@pytest.mark.parametrize("part", ["database", "blobs", "engine"])
def test_readiness_names_what_is_wrong(tmp_path: Path, part: str) -> None:
    with serving(tmp_path / "data") as server:
        if part == "database":
            server.service.database.close()
            hide(tmp_path / "data" / "provenn.db")
        elif part == "blobs":
            hide(tmp_path / "data" / "blobs")
            (tmp_path / "data" / "blobs").write_text("in the way")
        else:
            server.service.engine.stop()
        response = server.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()[part] != "ready"
        assert server.client.get("/healthz").status_code == 200


def hide(path: Path) -> None:
    path.rename(path.with_suffix(".hidden"))


def test_a_batch_falls_into_parts_and_is_joined_again(tmp_path: Path) -> None:
    images = np.random.default_rng(1).random((7, 4)).round(3).tolist()
    request = {"inputs": images, "labels": [k % 3 for k in range(7)], "epsilons": [0.001, 0.01, 0.4]}
    with serving(tmp_path, part_items=9) as server:
        model = server.model(SMALL)
        whole = server.ended(server.submit({"model": model, "inputs": request, "seed": 1, "method": "crown"}))
        parts = server.service.jobs.parts(whole["id"])
        assert [(part.state, part.items, part.parent_id) for part in parts] == [
            (State.SUCCEEDED, 9, whole["id"]),
            (State.SUCCEEDED, 12, whole["id"]),
        ]
        listed = server.client.get("/v1/jobs").json()["items"]
    with serving(tmp_path, part_items=0) as server:
        alone = server.ended(server.submit({"model": model, "inputs": request, "seed": 1, "method": "crown"}))
    assert [job["id"] for job in listed] == [whole["id"]]
    told = ("index", "input", "epsilon", "verdict", "certificate")
    assert [[i[t] for t in told] for i in whole["result"]["items"]] == [
        [i[t] for t in told] for i in alone["result"]["items"]
    ]
    assert whole["result"]["summary"] == alone["result"]["summary"]
    assert whole["progress"]["done"] == 21


def test_cancelling_a_batch_ends_its_parts(tmp_path: Path) -> None:
    with serving(tmp_path, part_items=100) as server:
        job = server.slow_job()
        parts = wait_for(lambda: server.service.jobs.parts(job))
        pids = wait_for(lambda: server.service.engine.worker_pids(parts[0].id))
        server.client.delete(f"/v1/jobs/{job}")
        wait_for(lambda: not alive(pids[0]))
        assert {part.state for part in server.service.jobs.parts(job)} == {State.CANCELLED}
        assert list((tmp_path / "work").iterdir()) == [] or wait_for(lambda: not any((tmp_path / "work").iterdir()))


def test_a_part_that_fails_takes_the_batch_along(tmp_path: Path) -> None:
    with serving(tmp_path, part_items=100) as server:
        job = server.slow_job()
        doomed = wait_for(lambda: server.service.jobs.parts(job))[0].id
        for _ in range(3):
            os.kill(server.pid(doomed), signal.SIGKILL)
            wait_for(lambda: not server.service.engine.worker_pids(doomed))
        found = server.ended(job)
        assert found["state"] == State.FAILED
        assert "part 1 of 2 failed: worker died (signal 9)" in found["reason"]


def test_a_search_falls_into_parts_and_is_proved_as_one(tmp_path: Path) -> None:
    network = mlp([8, 80, 80, 80, 3], seed=3)
    centre = np.random.default_rng(5).random(8).round(3)
    text = robustness(centre, label=1, epsilon=0.18, outputs=3).text.decode()
    with serving(tmp_path, part_seconds=0.05) as server:
        model = server.model(network)
        asked = {"specification": text, "method": "branch-and-bound", "budget": {"seconds": 400}}
        job = server.submit({"model": model, **asked})
        found = server.ended(job)
        parts = server.service.jobs.parts(job)
        assert [part.state for part in parts] == [State.SUCCEEDED] * 2
        (item,) = found["result"]["items"]
        assert (item["verdict"], item["assurance"]) == ("verified", "checked")
        files = load_zip(server.client.get(f"/v1/certificates/{item['certificate']}/bundle").content)
        assert check(files, network).verdict == "verified"


def test_a_worker_stays_for_the_next_job_of_its_network(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        first, second = server.model(SMALL), server.model(mlp([4, 8, 3], seed=9))
        pids = []
        for model, radius in ((first, 0.01), (first, 0.02), (second, 0.01), (first, 0.03)):
            job = server.submit(small_request(model, epsilons=[radius]))
            assert server.ended(job)["state"] == State.SUCCEEDED
            pids.append(waiting_pid(server))
        assert pids[0] == pids[1]
        assert len(set(pids)) == 3
        os.kill(pids[3], signal.SIGKILL)
        wait_for(lambda: not alive(pids[3]))
        job = server.submit(small_request(first, epsilons=[0.04]))
        assert (server.ended(job)["state"], server.job(job)["attempt"]) == (State.SUCCEEDED, 1)
    assert not any(alive(pid) for pid in pids)


def waiting_pid(server: Server) -> int:
    (slot,) = server.service.engine.slots
    return wait_for(lambda: slot.pid)


@dataclass(frozen=True)
class Surroundings:
    """Says which GPUs this process may see, now and before it imported anything."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        first = Path("/proc/self/environ").read_bytes().split(b"\0")
        return {"now": os.environ.get("CUDA_VISIBLE_DEVICES"), "first": [v.decode() for v in first if b"CUDA_V" in v]}


def test_the_workers_of_a_gpu_see_it_alone_before_they_load_torch() -> None:
    slots = slots_of(Settings(gpus="1,3", gpu_share=0.5, threads=1))
    assert len(slots) == 4
    job = JobRow(project_id="p", model_id="m")
    child = slots[3].start(job, Order(Surroundings(), 60.0))
    said = next(child.messages())["answer"]
    slots[3].close()
    assert said == {"now": "3", "first": ["CUDA_VISIBLE_DEVICES=3"]}
    assert "CUDA_VISIBLE_DEVICES" not in os.environ


@dataclass(frozen=True)
class Spin:
    """Computes for ever."""

    def run(self, reporter: Reporter) -> dict[str, Any]:
        while True:
            pass


def test_cpu_time_is_limited() -> None:
    slot = Slot(NURSERY, Limits(1, None))
    child = slot.start(JobRow(project_id="p", model_id="m"), Order(Spin(), 0.2))
    assert list(child.messages()) == []
    assert child.close() == -signal.SIGXCPU


def test_a_child_that_ends_just_when_it_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forkserver reaps it first and says so after: in between nobody has its process id."""
    slot = Slot(NURSERY, Limits(None, None))
    child = slot.start(JobRow(project_id="p", model_id="m"), Order(Spin(), 600.0))
    os.kill(child.pid, signal.SIGKILL)
    wait_for(lambda: not Path(f"/proc/{child.pid}").exists())
    with monkeypatch.context() as patched:
        patched.setattr("provenn.api.jobs.child.wait", lambda sentinels, timeout: [])
        child.kill("it is not needed any more")
    assert child.close() == -signal.SIGKILL
