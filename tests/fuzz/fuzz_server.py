"""A server of its own to be mistreated, and what can be seen of a process from outside."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

MIB = 1 << 20


@dataclass(frozen=True)
class Running:
    """pid: of the server's process; folder: its data directory."""

    pid: int
    url: str
    client: httpx.Client
    folder: Path


@contextmanager
def running(folder: Path, **settings: object) -> Iterator[Running]:
    """A warm service over this data directory, with settings by their names."""
    given = {f"PROVENN_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "provenn", "serve", "--port", "0", "--data-dir", str(folder), "--json"]
    with (
        (folder.parent / f"{folder.name}.log").open("wb") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=os.environ | given) as process,
    ):
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        try:
            with httpx.Client(base_url=url, timeout=120) as client:
                while not _ready(client):
                    time.sleep(0.05)
                yield Running(process.pid, url, client, folder)
        finally:
            process.terminate()


def _ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").status_code == 200
    except httpx.TransportError:
        return False


def resident(pid: int) -> float:
    """MiB of memory that the process has now; 0 if it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def descriptors(pid: int) -> int:
    """How many files the process has open."""
    return len([*Path(f"/proc/{pid}/fd").iterdir()])


def descendants(pid: int) -> set[int]:
    """Processes that the process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(parent), []).append(int(entry.name))
    found, todo = set[int](), [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            found.add(child)
            todo.append(child)
    return found
