"""`provenn-vnnlib` for hundreds of calls: one process loads torch, and forks a child that runs the command for each.

What a call is given, prints and exits with is the command's own; only the interpreter's start is left out.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path

OURS = ("api.certification", "api.vnnlib.answers", "api.vnnlib.deciding", "api.vnnlib.proving", "api.vnnlib.trying")
OURS += ("solvers.portfolio", "verifier.query.reading")
PARTS = ("vnnlib", *(f"provenn.{name}" for name in OURS))
"""What the command imports, sooner or later: torch comes with the first."""

CALL = """#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect({path!r})
    socket.send_fds(line, [json.dumps([os.getcwd(), sys.argv[1:]]).encode()], [1, 2])
    sys.exit(int(line.recv(16)))
"""


@contextmanager
def warm_command(folder: Path) -> Iterator[Path]:
    """A program in `folder` that answers as the installed command does."""
    program = folder / "provenn-vnnlib"
    program.write_text(CALL.format(python=sys.executable, path=str(folder / "line")))
    program.chmod(0o755)
    with subprocess.Popen([sys.executable, __file__, folder / "line"], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield program
        server.terminate()


def serve(path: str) -> None:
    """Never returns."""
    for name in PARTS:
        import_module(name)
    with socket.socket(socket.AF_UNIX) as line:
        line.bind(path)
        line.listen()
        print("ready", flush=True)
        while True:
            call, _ = line.accept()
            message, files, _, _ = socket.recv_fds(call, 1 << 20, 2)
            if (child := os.fork()) == 0:
                os._exit(run(message, files))
            for file in files:
                os.close(file)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            call.sendall(str(code).encode())
            call.close()


def run(message: bytes, files: list[int]) -> int:
    """The command's exit code."""
    from provenn.api.vnnlib.command import main

    folder, arguments = json.loads(message)
    os.chdir(folder)
    for number, file in enumerate(files, start=1):
        os.dup2(file, number)
    try:
        code = main(arguments, time.monotonic())
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    return code


if __name__ == "__main__":
    serve(sys.argv[1])
