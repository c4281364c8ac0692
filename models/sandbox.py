"""A process that has imported all it needs gives up its rights, for good, before it reads a stranger's bytes.

What stays are the descriptors it is told to keep: no file can be opened, no socket made, no program started, no other
process signalled. Each layer is the kernel's; one that the kernel lacks is reported, and the operator may demand it.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from provenn.models.syscalls import ACTIVE, filtered
from provenn.verifier.errors import ProvennError

if sys.platform == "linux":
    import py_landlock as landlock

NOBODY = 65534
CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET = 0x08000000, 0x10000000, 0x40000000
PR_SET_NO_NEW_PRIVS = 38
CAPABILITY_VERSION = 0x20080522
TASKS = 64
"""Threads, where they are counted apart from the user's other processes."""
DESCRIPTORS = 64
PROBE_SECONDS = 30

libc = ctypes.CDLL(None, use_errno=True)


class SandboxUnavailable(ProvennError):
    """The operator demands a layer of the sandbox that this machine does not have."""


@dataclass(frozen=True)
class Confinement:
    """memory_mb: MiB of address space beyond that at the entrance; file_bytes: of any file that is written.

    required: layers without which nothing is read.
    """

    memory_mb: int
    cpu_seconds: int
    file_bytes: int
    required: tuple[str, ...] = ()


def enter(confinement: Confinement, keep: Collection[int] = ()) -> Mapping[str, str]:
    """Gives up all rights but the descriptors `keep`; says of every layer that it is active, or why it is not.

    The process must have one thread: later threads inherit what the first one has given up.
    Raises: SandboxUnavailable if a required layer is not active.
    """
    if sys.platform != "linux":
        reports = dict.fromkeys(LAYERS, "the sandbox is made of what Linux has")
    else:
        reports = _entered(confinement, keep)
    _require(reports, confinement.required)
    return reports


def _entered(confinement: Confinement, keep: Collection[int]) -> dict[str, str]:
    """The order matters: a user namespace takes one thread, and nothing can be opened after the last two."""
    _close_all_but(keep)
    reports = {"privileges": _unprivileged(), "namespaces": _isolated()}
    reports["limits"] = _limited(confinement, counted=reports["namespaces"] == ACTIVE)
    reports |= _landlocked()
    reports["syscalls"] = filtered()
    return reports


@functools.cache
def layers() -> Mapping[str, str]:
    """What `enter` reports on this machine, from a process that does nothing else."""
    code = "from provenn.models.sandbox import probe; probe()"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PROBE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        return dict.fromkeys(LAYERS, f"the trial process failed: {error}")
    return dict(json.loads(done.stdout))


def probe() -> None:
    """Enters the sandbox and prints the report."""
    text = json.dumps(dict(enter(Confinement(memory_mb=256, cpu_seconds=10, file_bytes=1 << 20), keep=[1])))
    os.write(1, text.encode())


def demanded(text: str | None) -> tuple[str, ...]:
    """The layers that a setting names: all of them, or a list with commas.   Raises: SandboxUnavailable."""
    if text is None:
        return ()
    names = LAYERS if text.strip() == "all" else tuple(filter(None, (name.strip() for name in text.split(","))))
    unknown = [name for name in names if name not in LAYERS]
    if unknown:
        raise SandboxUnavailable(f"there is no layer '{unknown[0]}' of the sandbox; there are {', '.join(LAYERS)}")
    return names


def require(names: Collection[str]) -> None:
    """Raises: SandboxUnavailable if the machine lacks one of these layers, naming each and why."""
    if names:
        _require(layers(), names)


def _require(reports: Mapping[str, str], names: Collection[str]) -> None:
    missing = [f"{name} ({reports[name]})" for name in names if reports[name] != ACTIVE]
    if missing:
        raise SandboxUnavailable(f"the sandbox lacks what PROVENN_REQUIRE_SANDBOX demands: {'; '.join(missing)}")


def _close_all_but(keep: Collection[int]) -> None:
    """Closes every other descriptor; standard input, output and errors lead nowhere unless they are kept."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in {0, 1, 2} - set(keep):
        os.dup2(nowhere, standard)
    for first, last in _gaps(sorted({0, 1, 2, *keep})):
        os.closerange(first, last)


def _gaps(kept: list[int]) -> Iterator[tuple[int, int]]:
    """Between the kept descriptors, and from the last one on."""
    yield from ((low + 1, high) for low, high in zip(kept, [*kept[1:], os.sysconf("SC_OPEN_MAX")], strict=True))


def _unprivileged() -> str:
    """A root process becomes nobody; nothing that is started can gain rights."""
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    except OSError as error:
        return f"the process stays root: {error.strerror}"
    return _called("prctl", lambda: libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def _isolated() -> str:
    """Empty namespaces of users, networks and System V objects; no capability is kept in them."""
    report = _called("unshare", lambda: libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC))
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION, 0)
    nothing = (ctypes.c_uint32 * 6)()
    dropped = _called("capset", lambda: libc.capset(header, nothing))
    return report if report != ACTIVE else dropped


def _limited(confinement: Confinement, counted: bool) -> str:
    """Hard limits. Threads are limited where a namespace counts them apart from the user's other processes."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = {
        resource.RLIMIT_AS: (now + (confinement.memory_mb << 20),) * 2,
        resource.RLIMIT_CPU: (confinement.cpu_seconds, confinement.cpu_seconds + 1),
        resource.RLIMIT_FSIZE: (confinement.file_bytes,) * 2,
        resource.RLIMIT_NOFILE: (DESCRIPTORS,) * 2,
        resource.RLIMIT_CORE: (0, 0),
    } | ({resource.RLIMIT_NPROC: (TASKS,) * 2} if counted else {})
    try:
        for limit, values in limits.items():
            resource.setrlimit(limit, values)
    except (OSError, ValueError) as error:
        return f"setrlimit: {error}"
    return ACTIVE


def _landlocked() -> dict[str, str]:
    """No file can be opened, made, removed or linked; no TCP; signals stay within the sandbox."""
    if isinstance(VERSION, str):
        return dict.fromkeys(LANDLOCK, VERSION)
    try:
        landlock.Landlock(strict=False).apply()
    except landlock.LandlockError as error:
        return dict.fromkeys(LANDLOCK, str(error))
    lacking = f"the kernel's Landlock has version {VERSION}; this takes version "
    return {name: ACTIVE if needed <= VERSION else f"{lacking}{needed}" for name, needed in LANDLOCK.items()}


def _version() -> int | str:
    """The kernel's version of Landlock, or why there is none."""
    try:
        return int(landlock.get_abi_version())
    except landlock.LandlockError as error:
        return str(error)


def _called(name: str, call: Callable[[], int]) -> str:
    """Active, or the error of a C function that returns -1."""
    return ACTIVE if call() == 0 else f"{name}: {os.strerror(ctypes.get_errno())}"


LANDLOCK = {"files": 1, "tcp": 4, "signals": 6}
"""Layers and the version of Landlock that has them."""
LAYERS = ("privileges", "namespaces", "limits", *LANDLOCK, "syscalls")
VERSION = (
    _version() if sys.platform == "linux" else 0
)  # now, since the first call looks for the C library, which takes another program
