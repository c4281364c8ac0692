"""What a file would do that had taken over the process that reads it: tasks for a sandboxed child."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

from provenn.verifier.errors import InvalidModel


@dataclass(frozen=True)
class Attack:
    """name: of one of the functions below, which is called with `given`."""

    refusal: ClassVar[type[InvalidModel]] = InvalidModel
    descriptors: ClassVar[tuple[int, ...]] = ()

    name: str
    given: Any = None

    def run(self) -> dict[str, Any]:
        return {"result": globals()[self.name](self.given)}


def answer(given: Any) -> Any:
    """Nothing wrong."""
    return given


def stumble(_: Any) -> None:
    """What ONNX's parser raises on some bytes."""
    b"\xff".decode()


def crash(_: Any) -> None:
    """A null pointer."""
    ctypes.string_at(0)


def allocate(size: int) -> int:
    return len(bytearray(size))


def spin(_: Any) -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def read(paths: list[str]) -> list[str]:
    """The errors of opening files."""
    found = []
    for path in paths:
        try:
            found.append(repr(Path(path).read_bytes()[:10]))
        except OSError as error:
            found.append(type(error).__name__)
    return found


def say(data: bytes) -> None:
    """Its own bytes to the server, past everything."""
    for each in gc.get_objects():
        if isinstance(each, Connection):
            each.send_bytes(data)
    os._exit(0)


def found_secret(connection: Connection, first: str, second: str) -> None:
    """Not a task: says where an unconfined child sees a secret, of which it gets the two halves."""
    secret = first + second
    places = {"environment": repr(os.environ), "environ file": Path("/proc/self/environ").read_bytes().decode()}
    maps = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
    low, high = next(line[0] for line in maps if line[-1] == "[stack]").split("-")
    with Path("/proc/self/mem").open("rb", buffering=0) as memory:
        memory.seek(int(low, 16))
        stack = memory.read(int(high, 16) - int(low, 16))
    needle = b"PROVENN_TEST_SECRET=" + secret.encode()
    seen = [place for place, text in places.items() if secret in text] + ["stack"] * (needle in stack)
    kept = b"PROVENN_TEST_THREADS" in stack, "OMP_TEST_VARIABLE" in places["environ file"], len(stack) > 1 << 12
    connection.send_bytes(repr((seen, kept)).encode())
