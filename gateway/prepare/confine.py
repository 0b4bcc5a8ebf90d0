"""What a worker may not do, set by the worker itself before its first piece of work: it is about to read hostile input.

No network, no other program, no reach into other processes (seccomp(2)); no descriptor that it does not need; limits
on memory, files and, for each piece of work, processor time; last in the queue for the processor.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import platform
import resource
import signal
import struct
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MEMORY_BYTES = 1 << 30
FILE_BYTES = 16 << 30
"""As much as a deflated object may inflate to."""
NICENESS = 10
"""Reception comes first."""
_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_SECCOMP_MODE_FILTER = 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
"""BPF: load a word of the call's description, compare with it, end."""
_ALLOW, _DENY = 0x7FFF0000, 0x00050000 | errno.EPERM
_NUMBER_AT, _ARCHITECTURE_AT = 0, 4
_X32 = 0x40000000
"""From here on x86-64 has a second set of numbers for the same calls."""


@dataclass(frozen=True, slots=True)
class _Machine:
    architecture: int
    """AUDIT_ARCH_… of linux/audit.h."""
    denied: Mapping[str, int]


_MACHINES = {
    "x86_64": _Machine(
        0xC000003E,
        {
            "socket": 41,
            "connect": 42,
            "socketpair": 53,
            "execve": 59,
            "ptrace": 101,
            "process_vm_readv": 310,
            "process_vm_writev": 311,
            "execveat": 322,
            "io_uring_setup": 425,  # a ring opens sockets without any of the calls above
            "pidfd_getfd": 438,
        },
    ),
    "aarch64": _Machine(
        0xC00000B7,
        {
            "socket": 198,
            "connect": 203,
            "socketpair": 199,
            "execve": 221,
            "ptrace": 117,
            "process_vm_readv": 270,
            "process_vm_writev": 271,
            "execveat": 281,
            "io_uring_setup": 425,
            "pidfd_getfd": 438,
        },
    ),
}


def confine(keep: frozenset[int]) -> str:
    """Confine this process for good; of the descriptors only the standard three and `keep` stay open.

    Returns what the kernel would not do, in words, else "". Must run while there is one thread.
    """
    _close_all_but(keep | {0, 1, 2})
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    for limit, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES),
        (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(limit)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(limit, (most, most))
    os.nice(NICENESS)
    return _filter_calls(libc)


def allow_cpu(seconds: float) -> None:
    """Let this process use so much more processor time, all threads together; past it SIGXCPU ends it."""
    used = time.process_time()
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    soft = math.ceil(used + seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (soft if hard == resource.RLIM_INFINITY else min(soft, hard), hard))


def _close_all_but(keep: frozenset[int]) -> None:
    """The fork server's own pipes go too: with them open it would outlive the gateway, and no death signal come."""
    for entry in Path("/proc/self/fd").iterdir():
        if int(entry.name) not in keep:
            try:
                os.close(int(entry.name))
            except OSError:  # the one by which the folder was listed
                pass


def _filter_calls(libc: ctypes.CDLL) -> str:
    machine = _MACHINES.get(platform.machine()) if sys.maxsize > 1 << 32 else None
    if machine is None:
        return f"no system call filter for {platform.machine()}"
    program = _program(machine)
    code = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    for option, *arguments in (
        (_PR_SET_NO_NEW_PRIVS, 1, 0),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(described)),
    ):
        if libc.prctl(option, *(ctypes.c_ulong(argument) for argument in arguments), ctypes.c_ulong(0), 0):
            return f"no system call filter: {os.strerror(ctypes.get_errno())}"
    return ""


def _program(machine: _Machine) -> bytes:
    """A denied call, and any of another instruction set, answers EPERM."""
    calls = list(machine.denied.values())
    steps = [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 0, len(calls) + 3, machine.architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, len(calls) + 1, 0, _X32),
        *((_EQUAL, len(calls) - index, 0, call) for index, call in enumerate(calls)),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _DENY),
    ]
    return b"".join(struct.pack("@HBBI", *step) for step in steps)
