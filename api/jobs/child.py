"""One process of the warm forkserver, running one task: started in milliseconds, killed without consequences.

The child talks JSON over a pipe, which the server reads without trusting it; nothing a child sends is unpickled.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from typing import Any

PRELOAD = ["provenn.api.jobs.preload"]
MESSAGE_LIMIT = 16 << 20
"""Bytes of one message: ten thousand certificate digests are under one million."""


class Child:
    """Runs `target(connection, *arguments)` in a process of its own.

    `arguments` are pickled on the way in. `why` is the reason it was killed for, if it was.
    """

    def __init__(self, target: Callable[..., None], *arguments: object) -> None:
        forkserver.set_forkserver_preload(PRELOAD)
        self.why: str | None = None
        self._lock = threading.Lock()
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._popen = _Popen(ForkServerProcess(target=target, args=(theirs, *arguments), daemon=True))

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._popen.pid is not None
        return self._popen.pid

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the child says, until it ends."""
        while True:
            try:
                yield json.loads(self._pipe.recv_bytes(MESSAGE_LIMIT))
            except (EOFError, OSError, ValueError):
                return

    def kill(self, why: str) -> None:
        """Ends the process now; the first reason given is kept."""
        with self._lock:
            if self.why is None:
                self.why = why
            if self._popen.returncode is None and not wait([self._popen.sentinel], 0):
                os.kill(self.pid, signal.SIGKILL)

    def close(self) -> int:
        """The exit code, negative for a signal; a child that is still there gets a second to end by itself."""
        if not wait([self._popen.sentinel], 1):
            self.kill("it did not end after its last message")
        with self._lock:
            code = self._popen.poll(0)
            assert code is not None
            self._pipe.close()
            self._popen.close()
        return code


class _Popen(popen_forkserver.Popen):
    """A forkserver child that does not run the caller's main module again: it needs nothing from there.

    The standard library's own `_launch`, less `init_main_from_*`; and outside `Process.start`, whose bookkeeping of
    all children is not safe to use from several threads.
    """

    _fds: list[int]

    def _launch(self, process_obj: ForkServerProcess) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.sentinel, write_end = forkserver.connect_to_new_process(self._fds)
        kept_open = os.dup(write_end)
        self.finalizer = util.Finalize(self, _close, (kept_open, self.sentinel))
        with os.fdopen(write_end, "wb") as stream:
            stream.write(buffer.getbuffer())
        self.pid = forkserver.read_signed(self.sentinel)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Reporter:
    """The child's end of the pipe. Ends the process as soon as the server's end closes: nobody wants the answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        threading.Thread(target=self._watch, daemon=True).start()

    def send(self, message: dict[str, Any]) -> None:
        """Sends one JSON object."""
        self._connection.send_bytes(json.dumps(message).encode())

    def _watch(self) -> None:
        try:
            self._connection.recv_bytes()
        except (EOFError, OSError):
            os._exit(1)
