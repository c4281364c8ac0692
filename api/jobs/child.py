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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess, set_spawning_popen
from queue import SimpleQueue
from typing import Any

PRELOAD = ["provenn.api.jobs.preload"]
MESSAGE_LIMIT = 16 << 20
"""Bytes of one message: ten thousand certificate digests are under one million."""

INHERITED = {
    "HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "LD_PRELOAD", "MOSEKLM_LICENSE_FILE", "PATH", "TMPDIR", "TZ",
    "VIRTUAL_ENV",
}  # fmt: skip
FAMILIES = (
    "CUDA_", "GOMP_", "KMP_", "LC_", "MALLOC_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PYTHON", "PYTORCH_", "TORCH_",
)  # fmt: skip
"""Variables of the server's environment that children see, and beginnings of names of others; no secret among them."""
_starting = threading.Lock()


class Child:
    """Runs `target(connection, *arguments)` in a process of its own.

    `arguments` are pickled on the way in. `why` is the reason it was killed for, if it was.
    """

    def __init__(self, target: Callable[..., None], *arguments: object, nursery: Nursery | None = None) -> None:
        nursery = nursery or NURSERY
        self.why: str | None = None
        self._code: int | None = None
        self._orders = 0
        self._lock = threading.Lock()
        self._pipe, theirs = multiprocessing.Pipe()
        with theirs:
            self._popen = _Popen(nursery, ForkServerProcess(target=target, args=(theirs, *arguments), daemon=True))

    @property
    def pid(self) -> int:
        """The process id."""
        assert self._popen.pid is not None
        return self._popen.pid

    def give(self, what: object) -> bool:
        """Sends the child something to do; False if it has ended."""
        if wait([self._popen.sentinel], 0):
            return False
        self._orders += 1
        try:
            self._pipe.send_bytes(reduction.ForkingPickler.dumps(what))
        except OSError:
            return False
        return True

    def messages(self) -> Iterator[dict[str, Any]]:
        """What the child says, until it ends or says what is no JSON object."""
        while True:
            try:
                said = json.loads(self._pipe.recv_bytes(MESSAGE_LIMIT))
            except (EOFError, OSError, ValueError, RecursionError):
                return
            if not isinstance(said, dict) or said.pop("order", 0) != self._orders:  # of an earlier one
                return
            yield said

    def kill(self, why: str) -> None:
        """Ends the process now; the first reason given is kept."""
        with self._lock:
            if self.why is None:
                self.why = why
            if self._code is None and self._popen.returncode is None and not wait([self._popen.sentinel], 0):
                with suppress(ProcessLookupError):  # it ended just now: its exit code is on the way
                    os.kill(self.pid, signal.SIGKILL)

    def close(self) -> int:
        """The exit code, negative for a signal; a child that is still there gets a second to end by itself."""
        if self._code is None:
            if not wait([self._popen.sentinel], 1):
                self.kill("it did not end after its last message")
            with self._lock:
                self._code = self._popen.poll(0)
                self._pipe.close()
                self._popen.close()
        assert self._code is not None
        return self._code


class _Popen(popen_forkserver.Popen):
    """A forkserver child that does not run the caller's main module again: it needs nothing from there.

    The standard library's own `_launch`, less `init_main_from_*`; and outside `Process.start`, whose bookkeeping of
    all children is not safe to use from several threads.
    """

    _fds: list[int]

    def __init__(self, nursery: Nursery, process: ForkServerProcess) -> None:
        self._nursery = nursery
        super().__init__(process)

    def _launch(self, process_obj: ForkServerProcess) -> None:
        preparation = spawn.get_preparation_data(process_obj.name)
        preparation.pop("init_main_from_name", None)
        preparation.pop("init_main_from_path", None)
        preparation.pop("sys_argv", None)
        buffer = io.BytesIO()
        set_spawning_popen(self)
        try:
            reduction.dump(preparation, buffer)
            reduction.dump(process_obj, buffer)
        finally:
            set_spawning_popen(None)
        self.sentinel, write_end = self._nursery.connect(self._fds)
        kept_open = os.dup(write_end)
        self.finalizer = util.Finalize(self, _close, (kept_open, self.sentinel))
        with os.fdopen(write_end, "wb") as stream:
            stream.write(buffer.getbuffer())
        try:
            self.pid = forkserver.read_signed(self.sentinel)
        except EOFError as error:
            raise OSError("the forkserver has ended") from error


class Nursery:
    """A warm forkserver: what its children share, all of them with the same environment.

    variables: of that environment, beyond what is inherited: they are there before anything is imported.
    """

    def __init__(self, **variables: str) -> None:
        self._variables = variables
        self._server = forkserver.ForkServer()
        self._server.set_forkserver_preload(PRELOAD)

    def connect(self, descriptors: list[int]) -> tuple[int, int]:
        """(the sentinel of a new child, the pipe on which it is told what to be), with these open files."""
        with _starting:
            server: int | None = self._server._forkserver_pid  # type: ignore[attr-defined]
            if server is None or os.waitid(os.P_PID, server, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
                with _only(self._variables):
                    self._server.ensure_running()
        return self._server.connect_to_new_process(descriptors)


NURSERY = Nursery()
"""Of children that need nothing special."""


@contextmanager
def _only(variables: Mapping[str, str]) -> Iterator[None]:
    """While it lasts this process has what is inherited and these variables: what it starts gets its own."""
    before = dict(os.environ)
    for name in before:
        if name not in INHERITED and not name.startswith(FAMILIES):
            del os.environ[name]
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


@dataclass(frozen=True)
class Descriptor:
    """An open file that travels to a child with its arguments; there it has another number."""

    number: int

    def __reduce__(self) -> tuple[Callable[[Any], Descriptor], tuple[object]]:
        return _received, (reduction.DupFd(self.number),)


def _received(sent: Any) -> Descriptor:
    return Descriptor(sent.detach())


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


class Reporter:
    """The child's end of the pipe. Ends the process as soon as the server's end closes: nobody wants the answer."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._given: SimpleQueue[Any] = SimpleQueue()
        self._orders = 0
        threading.Thread(target=self._watch, daemon=True).start()

    def given(self) -> Iterator[Any]:
        """What the server gives to do, one after another, for as long as it is there."""
        while True:
            order = self._given.get()
            self._orders += 1
            yield order

    def send(self, message: dict[str, Any]) -> None:
        """Sends one JSON object, with the number of the order it is about."""
        self._connection.send_bytes(json.dumps(message | {"order": self._orders}).encode())

    def _watch(self) -> None:
        try:
            while True:
                self._given.put(reduction.ForkingPickler.loads(self._connection.recv_bytes()))
        except (EOFError, OSError):
            os._exit(1)
