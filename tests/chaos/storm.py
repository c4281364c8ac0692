"""Faults at random while jobs run: workers, the server and database connections are killed, and nothing may be lost.

    python tests/chaos/storm.py [--seconds 60] [--jobs 300] [--seed 0] [--database postgresql://...]

Without a database URL a PostgreSQL server of its own is started where the package is installed, else SQLite is used,
which has no connections to break. Prints what was done and what was survived; exit code 1 if anything was lost, twice
there, or left behind.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import create_engine, text

from provenn.api.certification import Options, certify, load_model
from provenn.api.database import database_url
from provenn.models.zoo import load
from provenn.models.zoo.digits import load_digits
from provenn.verifier.spec_json import robustness

RADII = (0.005, 0.02, 0.05, 0.2)
FINAL = ("succeeded", "failed", "cancelled", "timed_out")
LEASE = 2


def questions(count: int) -> tuple[bytes, list[dict[str, Any]], list[str]]:
    """A network, questions about it, and their answers as they are without any service."""
    data = load("digits-mlp-robust")
    _, test = load_digits()
    model = load_model(data)
    asked = [(k % 50, RADII[(k // 50) % len(RADII)]) for k in range(count)]
    known: dict[tuple[int, float], str] = {}
    for image, epsilon in set(asked):
        label = int(test.labels[image])
        specification = robustness(test.images[image], label=label, epsilon=epsilon, outputs=10, clip=(0, 1))
        known[image, epsilon] = certify(model, [specification], Options("crown", certificates=False))[0].verdict
    bodies = [
        {
            "inputs": {
                "inputs": [test.images[image].ravel().tolist()],
                "labels": [int(test.labels[image])],
                "epsilons": [epsilon],
                "clip": [0, 1],
            },
            "method": "crown",
            "seed": number,
        }
        for number, (image, epsilon) in enumerate(asked)
    ]
    return data, bodies, [known[each] for each in asked]


@dataclass
class Service:
    """A server that is started again whenever it has been killed."""

    folder: Path
    database: str | None
    port: int
    process: subprocess.Popen[bytes] | None = None
    sessions: set[int] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        settings = {
            "DATA_DIR": str(self.folder),
            "PORT": str(self.port),
            "LEASE_SECONDS": str(LEASE),
            "THREADS": "1",
            "POLL_SECONDS": "0.2",
        } | ({"DATABASE": self.database} if self.database else {})
        environment = os.environ | {f"PROVENN_{name}": value for name, value in settings.items()}
        with (self.folder / "server.log").open("ab") as log:
            command = [sys.executable, "-m", "provenn", "serve"]
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        self.sessions.add(self.process.pid)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Without warning."""
        with self.lock:
            self.kill()
            self.start()

    def keep(self) -> None:
        """Starts it again if it has ended by itself, as one does whose database goes away while it starts."""
        with self.lock:
            if self.process is not None and self.process.poll() is not None:
                self.start()

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(60)

    def workers(self) -> list[int]:
        """Processes that run tasks now: children of the forkserver, which is the server's child."""
        assert self.process is not None
        known = processes()
        return [pid for pid, (parent, _) in known.items() if known.get(parent, (0, 0))[0] == self.process.pid]

    def left(self) -> list[int]:
        """Processes of any server that was ever started, which should all be gone."""
        return [pid for pid, (_, session) in processes().items() if session in self.sessions]


def processes() -> dict[int, tuple[int, int]]:
    """(parent, session) of every process that is not merely unreaped."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                found[int(entry.name)] = int(fields[1]), int(fields[3])
    return found


@dataclass
class Storm:
    """What is done to a service, and what its clients do in the meantime."""

    service: Service
    chance: random.Random
    faults: Counter[str] = field(default_factory=Counter)
    jobs: dict[int, str] = field(default_factory=dict)
    over: threading.Event = field(default_factory=threading.Event)

    def persist(self, client: httpx.Client, method: str, path: str, **content: Any) -> httpx.Response:
        """As a good client: tries again while there is no server or it has no database."""
        end = time.monotonic() + 120
        while True:
            try:
                answer = client.request(method, path, **content)
                if answer.status_code < 500:
                    answer.raise_for_status()
                    return answer
            except httpx.TransportError:
                self.faults["requests broken off"] += 1
                self.service.keep()
            if time.monotonic() > end:
                raise TimeoutError(f"{method} {path} was not answered")
            time.sleep(0.05)

    def submit(self, model: str, bodies: list[dict[str, Any]], seconds: float) -> None:
        """All jobs, spread over most of the time."""
        with httpx.Client(base_url=self.service.url, timeout=20) as client:
            for number, body in enumerate(bodies):
                headers = {"Idempotency-Key": f"storm-{number}"}
                answer = self.persist(client, "POST", "/v1/jobs", json={"model": model, **body}, headers=headers)
                self.jobs[number] = answer.json()["id"]
                time.sleep(0.7 * seconds / len(bodies))

    def blow(self, seconds: float) -> None:
        """Kills something every now and then."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(self.chance.uniform(0.1, 0.8))
            kind = self.chance.choices(["worker", "server", "database"], [6, 1, 2])[0]
            getattr(self, f"_{kind}")()

    def _worker(self) -> None:
        workers = self.service.workers()
        if workers:
            try:
                os.kill(self.chance.choice(workers), signal.SIGKILL)
            except ProcessLookupError:
                return  # it had just ended
            self.faults["workers killed"] += 1

    def _server(self) -> None:
        self.service.restart()
        self.faults["servers killed"] += 1
        time.sleep(self.chance.uniform(0, 6))  # often before it is up

    def _database(self) -> None:
        if self.service.database is None:
            return
        cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        others = "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        engine = create_engine(database_url(self.service.database))
        with engine.connect() as connection:
            self.faults["database connections cut"] += int(connection.scalar(text(f"{cut} {others}")) or 0)
        engine.dispose()


def losses(storm: Storm, expected: list[str]) -> list[str]:
    """What is wrong after the storm."""
    wrong: list[str] = []
    with httpx.Client(base_url=storm.service.url, timeout=60) as client:
        for number, job in storm.jobs.items():
            found = awaited(storm, client, job)
            if found["state"] == "succeeded":
                (item,) = found["result"]["items"]
                if item["verdict"] != expected[number]:
                    wrong.append(f"job {number}: {item['verdict']}, without a service {expected[number]}")
                if item["certificate"]:
                    storm.persist(client, "GET", f"/v1/certificates/{item['certificate']}/bundle")
            elif not (found["state"] == "failed" and "worker died" in (found["reason"] or "")):
                wrong.append(f"job {number} {found['state']}: {found['reason']}")
            storm.faults[f"jobs {found['state']}"] += 1
    storm.service.stop()
    return wrong + in_rows(storm) + left_behind(storm)


def awaited(storm: Storm, client: httpx.Client, job: str) -> dict[str, Any]:
    """The job once it is over."""
    end = time.monotonic() + 180
    while (found := storm.persist(client, "GET", f"/v1/jobs/{job}").json())["state"] not in FINAL:
        if time.monotonic() > end:
            break
        time.sleep(0.05)
    return dict(found)


def in_rows(storm: Storm) -> list[str]:
    """Jobs that are there twice, or ended twice."""
    url = storm.service.database or f"sqlite:///{storm.service.folder / 'provenn.db'}"
    engine = create_engine(database_url(url))
    ends = "SELECT job_id, count(*) FROM transitions WHERE state NOT IN ('queued', 'running') GROUP BY job_id"
    with engine.connect() as connection:
        rows = {row[0] for row in connection.execute(text("SELECT id FROM jobs"))}
        ended = dict(tuple(row) for row in connection.execute(text(ends)))
        storm.faults["attempts"] = connection.scalar(text("SELECT sum(attempt) FROM jobs")) or 0
    engine.dispose()
    wrong = [f"{len(rows)} jobs, {len(storm.jobs)} submitted"] if rows != set(storm.jobs.values()) else []
    return wrong + [f"job {job} ended {ended.get(job, 0)} times" for job in rows if ended.get(job) != 1]


def left_behind(storm: Storm) -> list[str]:
    """Processes and files."""
    end = time.monotonic() + 10
    while storm.service.left() and time.monotonic() < end:
        time.sleep(0.05)
    wrong = [f"process {pid} is left" for pid in storm.service.left()]
    wrong += [f"file {path} is left" for path in (storm.service.folder / "work").rglob("*")]
    return wrong


def storm(folder: Path, database: str | None, seconds: float, count: int, seed: int) -> tuple[Counter[str], list[str]]:
    """(what happened, what is wrong)."""
    data, bodies, expected = questions(count)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    raging = Storm(Service(folder, database, port), random.Random(seed))
    raging.service.start()
    try:
        with httpx.Client(base_url=raging.service.url, timeout=60) as client:
            answer = raging.persist(client, "POST", "/v1/models", files={"file": ("digits.onnx", data)})
        model = answer.json()["id"]
        submitting = threading.Thread(target=raging.submit, args=(model, bodies, seconds))
        submitting.start()
        raging.blow(seconds)
        submitting.join()
        wrong = losses(raging, expected)
        if len(raging.jobs) != count:
            wrong.append(f"{len(raging.jobs)} of {count} jobs were accepted")
        return raging.faults, wrong
    finally:
        if raging.service.process is not None and raging.service.process.poll() is None:
            raging.service.kill()


@contextmanager
def some_database(given: str | None) -> Iterator[str | None]:
    """The one given, or one of a PostgreSQL server of our own, or None for SQLite."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from postgres_kit import binaries, cluster

    if given is not None or binaries() is None:
        yield given
        return
    with cluster() as running:
        yield running.database()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, some_database(asked.database) as database:
        where = "PostgreSQL" if database else "SQLite"
        print(f"{asked.jobs} jobs, {asked.seconds:g} s of faults, seed {asked.seed}, on {where}")
        happened, wrong = storm(Path(folder), database, asked.seconds, asked.jobs, asked.seed)
        for what, times in sorted(happened.items()):
            print(f"{times:6d}  {what}")
        for line in wrong:
            print(f"WRONG: {line}")
        if wrong:
            print((Path(folder) / "server.log").read_text()[-5000:])
    print("everything was survived" if not wrong else f"{len(wrong)} things are wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
