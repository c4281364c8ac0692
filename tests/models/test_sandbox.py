"""What code that has the process can still do in the sandbox: each attack is really made."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path

import pytest

from provenn.models.sandbox import ACTIVE, LAYERS, SandboxUnavailable, demanded, layers, require

IMPORTS = """
import ctypes, errno, json, mmap, os, resource, signal, socket, subprocess, sys, threading
from provenn.models import sandbox, syscalls
libc = ctypes.CDLL(None, use_errno=True)
"""
ENTER = IMPORTS + "sandbox.enter(sandbox.Confinement({memory_mb}, {cpu_seconds}, 1 << 20), keep=[0, 1, 2, *{keep}])\n"
TRIES = """
def tried(call):
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__} {error.errno}" if isinstance(error, OSError) else repr(error)
"""
DENIED, REFUSED = "PermissionError 13", "PermissionError 1"


def needs(*names: str) -> None:
    """Skips where the kernel, or what confines these tests, lacks a layer."""
    for name in names:
        if layers()[name] != ACTIVE:
            pytest.skip(f"no layer '{name}' here: {layers()[name]}")


def run(code: str, keep: Collection[int] = ()) -> subprocess.CompletedProcess[str]:
    """Runs code in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, pass_fds=tuple(keep))


def confined(
    code: str, memory_mb: int = 256, cpu_seconds: int = 30, keep: Collection[int] = ()
) -> subprocess.CompletedProcess[str]:
    """Runs code in the sandbox."""
    entered = ENTER.format(memory_mb=memory_mb, cpu_seconds=cpu_seconds, keep=list(keep))
    return run(entered + TRIES + textwrap.dedent(code), keep)


def outcomes(attacks: Collection[str]) -> dict[str, str]:
    """What each expression gives in one sandboxed process: its value, or its error."""
    done = confined(f"print(json.dumps({{each: tried(lambda: eval(each)) for each in {list(attacks)!r}}}))")
    assert done.returncode == 0, done
    return dict(json.loads(done.stdout))


# --- files --------------------------------------------------------------------------------------------------------


def test_no_file_can_be_opened() -> None:
    needs("files")
    paths = ("/etc/passwd", "/etc/hostname", "/proc/self/environ", "/proc/1/environ", "/proc/self/maps", "/dev/null")
    found = outcomes([f"open({path!r}, 'rb')" for path in paths] + ["os.open('/', os.O_PATH)"])
    assert set(found.values()) == {DENIED}


@pytest.mark.parametrize("alone", [False, True], ids=["all layers", "landlock alone"])
def test_the_blobs_can_be_neither_read_nor_changed(tmp_path: Path, alone: bool) -> None:
    needs("files", "privileges")
    blob = tmp_path / "blobs" / "abcd"
    blob.parent.mkdir()
    blob.write_bytes(b"another tenant's network")
    for path in (blob, blob.parent, tmp_path):
        path.chmod(0o777)  # what keeps it out is the sandbox
    attacks = [
        f"open({str(blob)!r}, 'rb')",
        f"open({str(blob)!r}, 'ab')",
        f"open({str(tmp_path / 'new')!r}, 'wb')",
        f"os.listdir({str(tmp_path)!r})",
        f"os.unlink({str(blob)!r})",
        f"os.rename({str(blob)!r}, {str(tmp_path / 'moved')!r})",
        f"os.truncate({str(blob)!r}, 0)",
        f"os.mkdir({str(tmp_path / 'folder')!r})",
        f"os.mkfifo({str(tmp_path / 'pipe')!r})",
        f"os.symlink('/etc/passwd', {str(tmp_path / 'link')!r})",
        f"os.link({str(blob)!r}, {str(tmp_path / 'hard')!r})",
    ]
    if alone:
        code = f"print(json.dumps([tried(lambda: eval(each)) for each in {attacks!r}]))"
        found = json.loads(run(f"{IMPORTS}{TRIES}sandbox._landlocked()\n{code}").stdout)
    else:
        found = list(outcomes([*attacks, f"os.chmod({str(blob)!r}, 0o777)", f"os.utime({str(blob)!r})"]).values())
    assert all(each.startswith(("PermissionError", "OSError 18")) for each in found), found  # 18: EXDEV, of a rename
    assert blob.read_bytes() == b"another tenant's network"
    assert [p.name for p in tmp_path.iterdir()] == ["blobs"]


def test_the_two_open_files_are_of_use_and_no_other_descriptor_is_left(tmp_path: Path) -> None:
    upload, secret, result = tmp_path / "upload", tmp_path / "secret", tmp_path / "result"
    upload.write_bytes(b"a network")
    secret.write_bytes(b"a secret")
    with upload.open("rb") as reading, secret.open("rb") as other, result.open("wb") as writing:
        read, write = reading.fileno(), writing.fileno()
        code = ENTER.format(memory_mb=256, cpu_seconds=30, keep=[read, write]) + TRIES
        code += f"os.write({write}, os.pread({read}, 100, 0).upper())\n"
        code += "left = [n for n in range(3, 200) if tried(lambda: os.fstat(n)) != 'OSError 9']\n"
        code += (
            f"print(json.dumps([left, tried(lambda: os.write({read}, b'x')), tried(lambda: os.ftruncate({read}, 0))]))"
        )
        done = run(code, keep=[read, write, other.fileno()])
    assert json.loads(done.stdout) == [sorted([read, write]), "OSError 9", "OSError 22"], done
    assert (result.read_bytes(), upload.read_bytes()) == (b"A NETWORK", b"a network")


def test_a_disk_cannot_be_filled(tmp_path: Path) -> None:
    needs("limits")
    with (tmp_path / "result").open("wb") as result:
        number = result.fileno()
        done = confined(f"print([tried(lambda: os.write({number}, bytes(1 << 18))) for _ in range(6)])", keep=[number])
    assert done.stdout.strip() == str(["262144"] * 4 + ["OSError 27"] * 2), done
    assert (tmp_path / "result").stat().st_size == 1 << 20


# --- network ------------------------------------------------------------------------------------------------------


def test_no_socket_can_be_made() -> None:
    needs("syscalls")
    kinds = ("AF_INET, socket.SOCK_STREAM", "AF_INET, socket.SOCK_DGRAM", "AF_INET6", "AF_UNIX", "AF_PACKET")
    found = outcomes([f"socket.socket(socket.{kind})" for kind in kinds] + ["socket.socketpair()", "os.pipe()"])
    assert set(found.values()) == {REFUSED}


@pytest.mark.parametrize(("layer", "alone"), [("tcp", "_landlocked()"), ("namespaces", "_isolated()")])
def test_without_seccomp_another_layer_still_keeps_it_from_the_network(layer: str, alone: str) -> None:
    """A listener that the sandbox must not reach, by the one layer alone."""
    needs(layer)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        attack = f"socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), timeout=5)"
        done = run(f"{IMPORTS}{TRIES}sandbox.{alone}\nprint(tried(lambda: {attack}))")
    assert done.stdout.strip() in (DENIED, "OSError 101"), done  # 101: the network is unreachable


# --- processes ----------------------------------------------------------------------------------------------------


def test_no_process_and_no_program_can_be_started() -> None:
    needs("syscalls")
    attacks = ["os.fork()", "os.execv('/bin/true', ['true'])", "os.posix_spawn('/bin/true', ['true'], {})"]
    found = outcomes([*attacks, "subprocess.run(['/bin/true'])", "os.forkpty()"])
    assert set(found.values()) <= {REFUSED, DENIED}


def test_nobody_else_can_be_signalled() -> None:
    needs("syscalls")
    attacks = ["os.kill(os.getppid(), 0)", "os.kill(1, 0)", "os.killpg(0, 0)", "os.pidfd_open(os.getppid())"]
    assert set(outcomes(attacks).values()) == {REFUSED}
    needs("signals")
    done = run(f"{IMPORTS}{TRIES}sandbox._landlocked()\nprint(tried(lambda: os.kill(os.getppid(), 0)))")
    assert done.stdout.strip() == REFUSED, done


def test_threads_work_and_are_limited() -> None:
    needs("limits", "namespaces", "privileges")
    done = confined(
        """
        threading.stack_size(1 << 16)
        stop, started = threading.Event(), 0
        try:
            while started < 1000:
                threading.Thread(target=stop.wait, daemon=True).start()
                started += 1
        except RuntimeError:
            print(started)
        stop.set()
        """
    )
    assert 1 <= int(done.stdout) < 64, done


CALLS = {
    "ptrace": "16, os.getppid(), 0, 0",
    "process_vm_readv": "os.getppid(), 0, 0, 0, 0, 0",
    "unshare": "0x10000000",
    "setns": "0, 0",
    "mount": "b'none', b'/tmp', b'tmpfs', 0, 0",
    "chroot": "b'/'",
    "setuid": "0",
    "memfd_create": "b'x', 0",
    "prlimit": "os.getppid(), 7, None, None",
    "personality": "0",
    "capset": "None, None",
    "syscall": "425, 0, 0",  # io_uring_setup, which the C library has no name for
}


def test_calls_that_lead_further_are_refused() -> None:
    needs("syscalls")
    found = outcomes([f"(libc.{name}({given}), ctypes.get_errno())" for name, given in CALLS.items()])
    assert set(found.values()) == {"(-1, 1)"}, found


def test_root_becomes_nobody_and_no_capability_is_left() -> None:
    needs("privileges", "namespaces")
    code = """
sandbox._unprivileged()
sandbox._isolated()
header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(*[7] * 6)
print(json.dumps([os.getuid() == 0, os.geteuid() == 0, os.getgroups(), libc.capget(header, data), list(data)]))
"""
    found = json.loads(run(IMPORTS + code).stdout)
    assert (found[:2], found[3:]) == ([False, False], [0, [0] * 6])


# --- time and memory ----------------------------------------------------------------------------------------------


def test_memory_is_limited_whoever_takes_it() -> None:
    needs("limits")
    never = "resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY,) * 2)"
    found = outcomes(["bytearray(1 << 29)", "mmap.mmap(-1, 1 << 29)", "len(bytearray(1 << 25))", never])
    raised = "ValueError('not allowed to raise maximum limit')"
    assert list(found.values()) == ["MemoryError()", "OSError 12", str(1 << 25), raised]


@pytest.mark.parametrize(("habit", "end"), [("SIG_DFL", signal.SIGXCPU), ("SIG_IGN", signal.SIGKILL)])
def test_a_spinning_process_is_ended(habit: str, end: signal.Signals) -> None:
    needs("limits")
    done = confined(f"signal.signal(signal.SIGXCPU, signal.{habit})\nwhile True: pass", cpu_seconds=1)
    assert done.returncode == -end


def test_no_core_is_dumped_and_abort_works() -> None:
    done = confined("print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)\nos.abort()")
    assert (done.stdout.strip(), done.returncode) == ("(0, 0)", -signal.SIGABRT)


# --- what is reported, and demanded -------------------------------------------------------------------------------


def test_every_layer_is_reported() -> None:
    assert set(layers()) == set(LAYERS)
    assert all(layers().values())


def test_layers_may_be_demanded() -> None:
    assert demanded(None) == ()
    assert demanded("all") == LAYERS
    assert demanded("files, syscalls") == ("files", "syscalls")
    with pytest.raises(SandboxUnavailable, match="there is no layer 'magic' of the sandbox; there are privileges, "):
        demanded("files,magic")
    require(demanded(None))
    require([name for name in LAYERS if layers()[name] == ACTIVE])


def test_a_layer_that_is_lacking_is_reported_and_refused_where_it_is_demanded() -> None:
    """A user namespace takes a process of one thread: here a second one runs."""
    needs("namespaces")
    code = """
stop = threading.Event()
threading.Thread(target=stop.wait).start()
print(tried(lambda: sandbox.enter(sandbox.Confinement(256, 9, 9, ("limits", "namespaces")), keep=[0, 1, 2])))
stop.set()
"""
    lacking = "PROVENN_REQUIRE_SANDBOX demands: namespaces (unshare: Invalid argument)"
    assert lacking in run(IMPORTS + TRIES + code).stdout


def test_the_probe_is_what_enter_reports() -> None:
    done = run(f"{IMPORTS}sandbox.probe()")
    assert json.loads(done.stdout) == dict(layers())
