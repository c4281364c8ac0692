"""What a confined process may still ask of the kernel: memory, threads, time, and the files that are open already."""

from __future__ import annotations

import errno
import os

try:
    import pyseccomp as seccomp  # type: ignore[import-untyped]

    MISSING = ""
except (ImportError, RuntimeError) as error:  # another system than Linux, or no libseccomp
    MISSING = f"seccomp: {error}"

ACTIVE = "active"
CLONE_THREAD = 0x10000
PR_SET_NAME = 15

OPEN_FILES = (
    "read", "readv", "pread64", "preadv", "write", "writev", "pwrite64", "pwritev", "lseek", "close", "dup", "fcntl",
    "fstat", "fsync", "fdatasync", "ftruncate", "poll", "ppoll", "select", "pselect6",
)  # fmt: skip
"""The pipe to the server, the upload, the result."""
NAMES = ("newfstatat", "stat", "lstat", "statx")
"""glibc's fstat is one of them. They tell the size and times of a file that is named, not what is in it."""
MEMORY = ("brk", "madvise", "membarrier", "mmap", "mprotect", "mremap", "munmap")
THREADS = (
    "exit", "exit_group", "futex", "futex_waitv", "get_robust_list", "getcpu", "gettid", "restart_syscall", "rseq",
    "sched_getaffinity", "sched_yield", "set_robust_list",
)  # fmt: skip
SIGNALS = ("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack")
CLOCKS = ("clock_getres", "clock_gettime", "clock_nanosleep", "gettimeofday", "nanosleep", "time", "times")
KNOWLEDGE = (
    "getegid", "geteuid", "getgid", "getpid", "getppid", "getrandom", "getrlimit", "getrusage", "getuid", "sysinfo",
    "uname",
)  # fmt: skip
ALLOWED = (*OPEN_FILES, *NAMES, *MEMORY, *THREADS, *SIGNALS, *CLOCKS, *KNOWLEDGE)
OPENING = ("open", "openat", "openat2")


def filtered() -> str:
    """From now on every other call fails with EPERM; active, or why this could not be done.

    A refused call does not kill: what looks for a module or a processor count finds none and goes on. Calls of another
    architecture do kill.
    """
    if MISSING:
        return MISSING
    try:
        _filter().load()
    except OSError as error:
        return f"seccomp: {error.strerror}"
    return ACTIVE


def _filter() -> seccomp.SyscallFilter:
    made = seccomp.SyscallFilter(seccomp.ERRNO(errno.EPERM))
    made.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
    made.set_attr(seccomp.Attr.CTL_TSYNC, 1)
    for name in filter(_known, ALLOWED):
        made.add_rule(seccomp.ALLOW, name)
    for name in filter(_known, OPENING):
        made.add_rule(seccomp.ERRNO(errno.EACCES), name)
    made.add_rule(seccomp.ERRNO(errno.ENOSYS), "clone3")  # its flags lie in memory; the C library then takes clone
    made.add_rule(seccomp.ALLOW, "clone", seccomp.Arg(0, seccomp.MASKED_EQ, CLONE_THREAD, CLONE_THREAD))
    made.add_rule(seccomp.ALLOW, "prlimit64", seccomp.Arg(0, seccomp.EQ, 0))
    made.add_rule(seccomp.ALLOW, "prctl", seccomp.Arg(0, seccomp.EQ, PR_SET_NAME))
    made.add_rule(seccomp.ALLOW, "tgkill", seccomp.Arg(0, seccomp.EQ, os.getpid()))  # abort()
    return made


def _known(name: str) -> bool:
    """Whether this version of libseccomp has heard of the call."""
    return bool(seccomp.resolve_syscall(seccomp.Arch.NATIVE, name) != -1)
