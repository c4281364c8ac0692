"""Ray nodes on one machine, as processes of ours: started by `ray start --block`, ended by their sessions.

All of a node's processes (GCS, raylet, agents, workers, what the actors fork) are in the session of its `ray start`;
each worker has a process group of its own, so groups would not do. `ray stop` is never used: it ends whatever it finds.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import pytest

RAY = Path(sys.executable).with_name("ray")
START_SECONDS, STOP_SECONDS = 90.0, 15.0
OBJECT_STORE_BYTES = 80_000_000  # the least that Ray accepts is 75 MiB
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_health_check_initial_delay_ms": "500",
    "RAY_gcs_rpc_server_reconnect_timeout_s": "30",
}
"""Without telemetry and the memory monitor; a lost node or head is noticed in seconds instead of a minute."""


Begun = tuple[subprocess.Popen[bytes], Path]
"""A `ray start`, and its folder."""


@dataclass(frozen=True)
class Node:
    """process: its `ray start --block`, the leader of its session; address: of the cluster's head."""

    address: str
    process: subprocess.Popen[bytes]
    folder: Path = field(repr=False)

    def pids(self) -> list[int]:
        """All living processes of the node."""
        return [pid for pid in _numbers("/proc") if _session(pid) == self.process.pid]

    def kill(self) -> None:
        """Ends every process of the node now, as a power cut would."""
        deadline = time.monotonic() + STOP_SECONDS
        while (living := self.pids()) and time.monotonic() < deadline:
            for pid in living:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.poll()
            time.sleep(0.02)
        self.process.wait(STOP_SECONDS)
        shutil.rmtree(self.folder, ignore_errors=True)


def _numbers(folder: str) -> list[int]:
    return [int(path.name) for path in Path(folder).iterdir() if path.name.isdigit()]


def _session(pid: int) -> int:
    """0 for a process that is gone or a zombie."""
    try:
        rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if rest[0] == "Z" else int(rest[3])


def environment(token: str | None) -> dict[str, str]:
    """The variables of a process of the cluster (None: without authentication)."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "PROVENN_"))}
    kept.pop("PYTHONDONTWRITEBYTECODE", None)  # each of a node's five Python processes would compile all of ray again
    cache = Path(tempfile.gettempdir(), f"provenn-ray-bytecode-{os.getuid()}")
    kept = kept | QUIET | {"PYTHONPYCACHEPREFIX": str(cache), "OMP_NUM_THREADS": "1"}
    return kept | ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"})


class Cluster:
    """Nodes by name, each with a loopback address of its own: ray replaces 127.0.0.1 by the machine's public one."""

    def __init__(self, token: str | None) -> None:
        self.token = token
        self.nodes: dict[str, Node] = {}
        self._begun: list[Node] = []
        self._hosts = iter(range(2, 250))

    def begin(self, *switches: str, host: str | None = None) -> Begun:
        """Starts a node, which is up once `joined` returns."""
        # Unix sockets lie in it, whose paths must stay under 108 bytes: pytest's own folders are too deep.
        folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
        host = host or f"127.0.0.{next(self._hosts)}"
        command = [
            *(RAY, "start", "--block", "--disable-usage-stats", "--include-log-monitor=false", f"--temp-dir={folder}"),
            *(f"--object-store-memory={OBJECT_STORE_BYTES}", f"--node-ip-address={host}"),
            *switches,
        ]
        with (folder / "start.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                env=environment(self.token),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=folder,
                start_new_session=True,
            )
        self._begun.append(Node("", process, folder))
        return process, folder

    def joined(self, name: str, begun: Begun) -> Node:
        """Waits until the node is up, and keeps it."""
        process, folder = begun
        written = folder / "ray_current_cluster"  # the last thing that `ray start` does before it blocks
        deadline = time.monotonic() + START_SECONDS
        while not written.exists() or not written.read_text().strip():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"node {name} did not start:\n" + (folder / "start.log").read_text(errors="replace"))
            time.sleep(0.05)
        self.nodes[name] = Node(written.read_text().strip(), process, folder)
        return self.nodes[name]

    def begin_head(self, cpus: int = 1, at: str | None = None) -> Begun:
        """at: the address, of a head that is gone, to take over."""
        host, port = at.split(":") if at else (None, "0")
        quiet = ("--head", "--include-dashboard=false", "--no-monitor")
        return self.begin(*quiet, f"--port={port}", f"--num-cpus={cpus}", host=host)

    def begin_node(self, address: str, cpus: int = 1) -> Begun:
        return self.begin(f"--address={address}", f"--num-cpus={cpus}")

    def kill(self, name: str) -> None:
        self.nodes.pop(name).kill()

    def close(self) -> None:
        """Ends whatever was begun."""
        for node in self._begun:
            node.kill()


@contextmanager
def ray_cluster(authenticated: bool = True) -> Iterator[Cluster]:
    """A cluster without nodes; all that it gets are gone afterwards. Skips where ray is not installed."""
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    cluster = Cluster(secrets.token_hex(32) if authenticated else None)
    try:
        yield cluster
    finally:
        cluster.close()
