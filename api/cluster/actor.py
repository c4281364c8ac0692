"""What Ray runs on a node: a supervisor as any other, in a process that Ray has started."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from provenn.api.cluster.orders import of_node
from provenn.verifier.errors import ProvennError

if TYPE_CHECKING:
    from provenn.api.settings import Settings
    from provenn.api.supervisor import Supervisor

AT_ONE_MACHINE = 32
"""Nodes of one machine that find a folder each."""


class NodeSupervisor:
    """Ray's part ends with the start of the process: nothing here retries, restarts or returns results.

    An actor with several threads, so that it answers while it drains. Ray has set CUDA_VISIBLE_DEVICES before this
    module was imported, and torch is imported below, or by children.
    """

    def __init__(self, given: Mapping[str, Any], cpus: float, gpus: float) -> None:
        """Raises: as `supervisor`; NotShared; TracingUnavailable."""
        os.environ.pop("RAY_AUTH_TOKEN", None)  # the process has read it; what it starts need not know it
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves the node's own value otherwise
        from provenn.api import logs, tracing

        settings = of_node(given, cpus, gpus)
        logs.configure(settings.log_format, settings.log_level)
        tracing.start(settings.trace_endpoint)
        self._stack = ExitStack()
        self._found = _open(settings, self._stack)

    def status(self) -> dict[str, Any]:
        """Which supervisor it is, and how it is."""
        engine = self._found.engine
        return {
            "id": engine.id,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "status": engine.status,
            "running": len(engine.running),
        }

    def drain(self) -> None:
        """Lets what runs end, for `drain_seconds`; puts back the rest. The process is to be ended then."""
        self._stack.close()


def _open(settings: Settings, stack: ExitStack) -> Supervisor:
    """In the first folder that no other node of this machine holds: what is cached there is of use again."""
    from provenn.api.database import DataDirectoryInUse
    from provenn.api.sharing import require_shared
    from provenn.api.supervisor import supervisor

    require_shared(settings)
    for number in range(AT_ONE_MACHINE):
        folder = Path(settings.data_dir.resolve(), f"node-{number}")
        try:
            mine = settings.model_copy(update={"data_dir": folder})
            return stack.enter_context(supervisor(mine, upgrade=False))
        except DataDirectoryInUse:
            continue
    raise ProvennError(f"{AT_ONE_MACHINE} nodes use {settings.data_dir} already")
