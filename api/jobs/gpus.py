"""How full the GPUs of this machine are, as its driver says: a supervisor has no right to load CUDA for that."""

from __future__ import annotations

import logging
import shutil
import subprocess

Memory = dict[str, list[int]]
"""[bytes used, bytes there] by the GPU's number."""
QUERY = ["--query-gpu=index,memory.used,memory.total", "--format=csv,noheader,nounits"]
SECONDS = 5.0
MIB = 1 << 20
log = logging.getLogger("provenn.api")


def memory() -> Memory:
    """Of every GPU; empty where there is none, or its driver does not say."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return {}
    try:
        told = subprocess.run([command, *QUERY], capture_output=True, text=True, timeout=SECONDS, check=True).stdout
        rows = [[int(word) for word in line.split(",")] for line in told.splitlines()]
        return {str(number): [used * MIB, total * MIB] for number, used, total in rows}
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        log.warning("the memory of the GPUs is not known: %s", type(error).__name__)
        return {}
